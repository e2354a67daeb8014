"""Text classification."""

from tasks._models.checkpoint import tokenizer
from tasks.text._base import (
    SMALL,
    ModelName,
    TextTask,
    draw_test_texts,
    fold_text,
    make_readable,
    pad_tokens,
    small_tokenizer,
    train_tokenizer,
)
from tasks.text._texts import Texts, edit_distance

__all__ = [
    "SMALL",
    "ModelName",
    "TextTask",
    "Texts",
    "draw_test_texts",
    "edit_distance",
    "fold_text",
    "make_readable",
    "pad_tokens",
    "small_tokenizer",
    "tokenizer",
    "train_tokenizer",
]
