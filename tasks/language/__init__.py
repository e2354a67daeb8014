"""Language models."""

from tasks._models.causal import CausalNet
from tasks.language._base import LanguageTask, LanguageVictim, detokenize, list_tokens, small_tokenizer, tokenize
from tasks.language._preferences import REJECTED, Pair, PreferenceTask, is_pair, read_pair

__all__ = [
    "REJECTED",
    "CausalNet",
    "LanguageTask",
    "LanguageVictim",
    "Pair",
    "PreferenceTask",
    "detokenize",
    "is_pair",
    "list_tokens",
    "read_pair",
    "small_tokenizer",
    "tokenize",
]
