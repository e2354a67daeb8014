"""Language models."""

from tasks._models.causal import CausalNet
from tasks.language._base import LanguageTask, LanguageVictim, detokenize, small_tokenizer

__all__ = ["CausalNet", "LanguageTask", "LanguageVictim", "detokenize", "small_tokenizer"]
