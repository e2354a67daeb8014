"""Language models."""

from tasks._models.causal import CausalNet
from tasks.language._base import LanguageTask, LanguageVictim, detokenize, list_tokens, small_tokenizer, tokenize

__all__ = ["CausalNet", "LanguageTask", "LanguageVictim", "detokenize", "list_tokens", "small_tokenizer", "tokenize"]
