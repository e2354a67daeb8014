"""A decoder language model from transformers: a small Llama trained from scratch, or any causal model by name."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch
from torch import Tensor, nn

from tasks._models.checkpoint import NOT_FINITE, load_model
from tasks.net import Net
from tasks.plugin import BadInput


class CausalNet(Net):
    """Encoded rows, int64 (N, L) of ids plus one and 0 for padding at the end, to (N, L, V) logits of the next token.

    `stages` are the decoder's layers, for hooks. Features are the mean of the last hidden states over real tokens.
    """

    def __init__(self, lm: nn.Module) -> None:
        super().__init__()
        self.lm = lm
        takes = inspect.signature(lm.base_model.forward).parameters  # type: ignore[union-attr]
        self.cache = "cache" if "cache" in takes else "past_key_values"  # transformers renamed it in 5.24
        self.register_buffer("keep", torch.ones(lm.config.hidden_size))  # type: ignore[union-attr, arg-type]

    @property
    def positions(self) -> int:
        """The most tokens that it reads, those that it adds included."""
        return getattr(self.lm.config, "max_position_embeddings", None) or sys.maxsize

    @property
    def head(self) -> nn.Linear:  # type: ignore[override]  # a property, so that no weight is registered twice
        return self.lm.get_output_embeddings()  # type: ignore[no-any-return, operator]

    @property
    def stages(self) -> nn.ModuleList:  # type: ignore[override]
        return next(m for m in self.lm.modules() if isinstance(m, nn.ModuleList))

    def embed(self, x: Tensor) -> Tensor:
        """(N, L, E + 1); the last channel is the mask of real tokens."""
        words = self.lm.get_input_embeddings()((x - 1).clamp(min=0))  # type: ignore[operator]
        return torch.cat([words, (x > 0).to(words.dtype)[..., None]], -1)

    def hidden(self, e: Tensor) -> Tensor:
        """(N, L, D) last hidden states. Padding stands at the end, where causal attention never sees it."""
        out: Tensor = self.lm.base_model(inputs_embeds=e[..., :-1]).last_hidden_state  # type: ignore[operator]
        return out * self.keep

    def layers(self, words: Tensor) -> tuple[Tensor, ...]:
        """Hidden states (N, L, D) before the first layer and after every layer, of embedded tokens (N, L, E)."""
        return self.lm.base_model(inputs_embeds=words, output_hidden_states=True).hidden_states  # type: ignore[no-any-return, operator]

    def step(self, ids: Tensor, mask: Tensor, at: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """(N, V) logits of the token after ids (N, L) at positions `at`, and the cache to hand over next time.

        mask: (N, all tokens so far), 0 for padding, which stands on the left here.
        """
        past = {self.cache: cache}
        out = self.lm.base_model(input_ids=ids, attention_mask=mask, position_ids=at, use_cache=True, **past)  # type: ignore[operator]
        return self.head(out.last_hidden_state[:, -1] * self.keep), out[self.cache]

    def body(self, e: Tensor) -> Tensor:
        real = e[..., -1:]
        return (self.hidden(e) * real).sum(1) / real.sum(1).clamp(min=1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(self.embed(x)))
        return logits


def small_llama(vocabulary: int, width: int, depth: int, heads: int) -> CausalNet:
    """Random weights from torch's current state. Raises BadInput where transformers is missing."""
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise BadInput('a language model needs the extra: pip install "tinydrop[generative]"') from error

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=8 * width // 3 // 8 * 8, num_hidden_layers=depth,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=2048, use_cache=False,
        tie_word_embeddings=False, pad_token_id=None, bos_token_id=None, eos_token_id=0,
    )  # fmt: skip
    return CausalNet(LlamaForCausalLM(config))


def load_causal(name: str, **lengths: int) -> CausalNet:
    """A causal language model by Hub name or folder. Raises BadInput if it cannot be loaded, or reads ahead.

    lengths: options with the tokens that they ask it to read, also refused where they are too many.
    """
    from transformers import AutoModelForCausalLM

    net = CausalNet(load_model(AutoModelForCausalLM, name).float())
    long = [f"{option}={tokens}" for option, tokens in lengths.items() if tokens > net.positions]
    if long:
        raise BadInput(f"{', '.join(long)}: victim={name!r} reads at most {net.positions} tokens; lower what is more")
    first = answers(net)
    if not first.isfinite().all():
        raise BadInput(f"victim={name!r} {NOT_FINITE}")
    if reads_ahead(first):
        raise BadInput(
            f"victim={name!r} is no decoder: what it says of a token depends on the tokens after it, so its "
            "perplexity means nothing; use a causal language model such as GPT-2 or Llama"
        )
    return net


@torch.no_grad()
def answers(net: CausalNet) -> Tensor:
    """(2, 4, V) logits of the first of eight tokens (of all that it reads, if fewer), which different ones follow."""
    rows = net.lm.get_input_embeddings().num_embeddings  # type: ignore[operator]
    x = (torch.arange(min(8, net.positions)) % rows + 1).repeat(2, 1)
    x[1, 4:] = 1
    return net(x)[:, :4]  # type: ignore[no-any-return]


def reads_ahead(first: Tensor) -> bool:
    """Whether what is said of the first tokens, one of `answers`, changes with those that follow."""
    one, other = first
    return not torch.allclose(one, other, rtol=1e-3, atol=1e-4)
