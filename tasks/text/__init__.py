"""Text classification."""

from tasks._models.huggingface import tokenizer
from tasks.text._base import SMALL, TextTask, held_out, padded, readable, small_tokenizer, train_tokenizer

__all__ = ["SMALL", "TextTask", "held_out", "padded", "readable", "small_tokenizer", "tokenizer", "train_tokenizer"]
