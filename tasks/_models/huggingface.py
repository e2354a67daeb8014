"""Any transformers sequence classifier with an encoder body (BERT, RoBERTa, DistilBERT, ...) as a victim."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from tasks._models.transformer import crop_padding, token_mask
from tasks.net import Net
from tasks.plugin import BadInput


def load_pretrained(loader: Any, name: str, **kwargs: Any) -> Any:
    """loader.from_pretrained(name). Raises BadInput, which names both ways to get the model, if it cannot be loaded."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # a new head on an old body is what is asked for, not news
    logging.disable_progress_bar()
    try:
        return loader.from_pretrained(name, **kwargs)
    except Exception as error:  # OSError, ValueError, KeyError, ImportError: all mean the same to the user
        raise BadInput(
            f"victim={name!r} cannot be loaded ({type(error).__name__}: {str(error).strip().splitlines()[0][:120]}); "
            f"use 'transformer' (the small one), go online once so that transformers can fetch it from the Hub, "
            f"or give a folder that save_pretrained wrote (model and tokenizer)"
        ) from error
    finally:
        logging.set_verbosity(verbosity)


@lru_cache(maxsize=4)
def tokenizer(name: str) -> Any:
    """The tokenizer that belongs to a checkpoint."""
    from transformers import AutoTokenizer

    return load_pretrained(AutoTokenizer, name)


@lru_cache(maxsize=4)
def longest_text(name: str) -> int:
    """The most tokens that a checkpoint reads."""
    from transformers import AutoConfig

    positions = getattr(load_pretrained(AutoConfig, name), "max_position_embeddings", None)
    return min(int(tokenizer(name).model_max_length), positions or sys.maxsize)


class HuggingFaceNet(Net):
    """A pretrained classifier, cut in three: its last linear layer is the head, what that layer reads the features.

    `stages` are the encoder's layers, for hooks; they hold no mask channel and are called by the model's own forward.
    """

    def __init__(self, name: str, max_length: int, classes: int) -> None:
        super().__init__()
        from transformers import AutoModelForSequenceClassification

        model = load_pretrained(
            AutoModelForSequenceClassification, name, num_labels=classes, ignore_mismatched_sizes=True,
            attn_implementation="eager",  # the fused kernels have no second derivative
        )  # fmt: skip
        if max_length > (longest := longest_text(name)):
            raise BadInput(f"max_length={max_length}: {name} reads at most {longest} tokens")
        at, last = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]
        self.attach_head(last.in_features, classes)
        self.head = last
        model.set_submodule(at, nn.Identity())  # so that the model's "logits" are the features
        self.model = model.float()

    @property
    def stages(self) -> nn.ModuleList:  # type: ignore[override]  # a property, so that no weight is registered twice
        return next(m for m in self.model.modules() if isinstance(m, nn.ModuleList))

    def embed(self, x: Tensor) -> Tensor:
        """int64 (N, L), ids plus one and 0 for padding, to (N, L, E + 1); the last channel is the attention mask."""
        words = self.model.get_input_embeddings()((x - 1).clamp(min=0))
        return torch.cat([words, (x > 0).to(words.dtype)[..., None]], -1)

    def body(self, e: Tensor) -> Tensor:
        e = crop_padding(e)
        out: Tensor = self.model(inputs_embeds=e[..., :-1], attention_mask=token_mask(e).squeeze(-1).long()).logits
        return out * self.keep
