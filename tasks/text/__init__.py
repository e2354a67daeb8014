"""Text classification."""

from tasks._models.huggingface import tokenizer
from tasks.text._base import SMALL, TextTask, held_out, padded, readable, small_tokenizer, train_tokenizer
from tasks.text._texts import Texts, edit_distance

__all__ = [
    "SMALL",
    "TextTask",
    "Texts",
    "edit_distance",
    "held_out",
    "padded",
    "readable",
    "small_tokenizer",
    "tokenizer",
    "train_tokenizer",
]
