"""Any transformers sequence classifier, encoder (BERT, RoBERTa, DistilBERT, ...) or decoder (GPT-2, Llama, ...)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tasks._models.checkpoint import NOT_FINITE, load_model, longest_text
from tasks._models.transformer import crop_padding, token_mask
from tasks.net import Net
from tasks.plugin import BadInput

WAY_OUT = "lower max_length, or use an encoder like BERT, a decoder like GPT-2"


class HuggingFaceNet(Net):
    """A pretrained classifier, cut in three: its last linear layer is the head, what that layer reads the features.

    Decoders, whose head is called `score`, are read at a text's last token. `stages` are the layers, for hooks; they
    hold no mask channel and are called by the model's own forward.
    """

    def __init__(self, name: str, max_length: int, classes: int) -> None:
        super().__init__()
        from transformers import AutoModelForSequenceClassification

        model = load_model(
            AutoModelForSequenceClassification, name, num_labels=classes, ignore_mismatched_sizes=True,
            attn_implementation="eager",  # the fused kernels have no second derivative
        ).float()  # fmt: skip  # all of it, before the head is taken out
        if max_length > (longest := longest_text(name)):
            raise BadInput(f"max_length={max_length}: {name} reads at most {longest} tokens")
        at, last = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
        self.attach_head(last.in_features, classes)
        self.head = last
        self.decoder = at == "score"
        model.set_submodule(at, nn.Identity())  # so that the model's "logits" are the features
        self.model = model
        flaw = find_flaw(self, max_length)
        if flaw:
            raise BadInput(f"victim={name!r} {flaw}")

    @property
    def stages(self) -> nn.ModuleList:  # type: ignore[override]  # a property, so that no weight is registered twice
        return next(m for m in self.model.modules() if isinstance(m, nn.ModuleList))

    def embed(self, x: Tensor) -> Tensor:
        """int64 (N, L), ids plus one and 0 for padding, to (N, L, E + 1); the last channel is the attention mask."""
        words = self.model.get_input_embeddings()((x - 1).clamp(min=0))
        return torch.cat([words, (x > 0).to(words.dtype)[..., None]], -1)

    def body(self, e: Tensor) -> Tensor:
        e = crop_padding(e)
        mask = token_mask(e).squeeze(-1).long()
        read = {"inputs_embeds": e[..., :-1], "attention_mask": mask}
        if not self.decoder:
            return self.model(**read).logits * self.keep  # type: ignore[no-any-return]
        # The model's own choice of the last token needs ids, and would take padding for text.
        last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
        states: Tensor = self.model.base_model(**read).last_hidden_state
        return states[torch.arange(len(states), device=mask.device), last] * self.keep


@torch.no_grad()
def find_flaw(net: HuggingFaceNet, length: int) -> str:
    """Why the network cannot be a victim, and the way out; "" if it can: it reads `length` embedded tokens, no padding.

    What it says of a short text must not depend on the longer one beside it.
    """
    rows = net.model.get_input_embeddings().num_embeddings
    x = torch.arange(2 * length).view(2, length) % rows + 1
    x[1, min(3, length) :] = 0
    try:
        beside, alone = net(x)[1:], net(x[1:])
    except Exception as error:  # whatever its own forward raises
        return f"cannot read {length} embedded tokens ({type(error).__name__}: {one_line(error)}); {WAY_OUT}"
    if not beside.isfinite().all():
        return NOT_FINITE
    if not torch.allclose(beside, alone, rtol=1e-3, atol=1e-4):
        return f"answers to the padding behind a text, not to the text alone; {WAY_OUT}"
    return ""


def one_line(error: Exception) -> str:
    """The first line of an error, cut."""
    return str(error).strip().partition("\n")[0][:120]
