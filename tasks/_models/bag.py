"""A bag of tokens and of pairs of neighbouring tokens: a text classifier that few rows are enough for."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks._models.transformer import crop_padding, token_mask
from tasks.net import Net

PAIRS = 2**18  # rows of the table of pairs: with a quarter of them, 16,000 phrases of sst2 lose two points
FIRST, SECOND = 1_000_003, 7_919  # primes that spread pairs over the table


def pair_rows(first: Tensor, second: Tensor) -> Tensor:
    """The rows of the table of pairs that belong to int64 tokens (...) and the tokens behind them (...)."""
    return (first * FIRST + second * SECOND) % PAIRS


class Bag(Net):
    """The embeddings of tokens and of pairs, summed over a text, divided by the root of its length; D = E.

    fastText (Joulin, Grave, Bojanowski and Mikolov 2016, arXiv 1607.01759, section 2): one linear layer on top, pairs
    hashed into a fixed table. A word that the tokenizer has no token for is still one feature, the pair of its parts.
    Deviations: tokens are parts of words; pairs have a table of their own; the sum is divided by the root of the
    length instead of the length, so that many hints weigh more than one. Embeddings start near zero, which is what
    those of tokens and pairs that training never meets keep.
    """

    masked: ClassVar[bool] = True

    def __init__(self, vocabulary: int, classes: int, width: int = 8) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary + 1, width)  # 0 is padding
        self.pairs = nn.Embedding(PAIRS, width)
        for table in (self.tokens, self.pairs):
            nn.init.normal_(table.weight, std=0.01)
        self.stages = nn.ModuleList([nn.Identity()])  # its output, the embeddings, is what distillation compares
        self.attach_head(width, classes)

    def embed(self, x: Tensor) -> Tensor:
        """int64 (N, L) to (N, L, E + 1): a token and its pair with the next; the last channel is 1 for a token."""
        after = F.pad(x[:, 1:], (0, 1))
        paired = ((x > 0) & (after > 0)).float()[..., None]
        words = self.tokens(x) + self.pairs(pair_rows(x, after)) * paired
        return torch.cat([words, (x > 0).float()[..., None]], -1)

    def body(self, e: Tensor) -> Tensor:
        return super().body(crop_padding(e))

    def pool(self, h: Tensor) -> Tensor:
        there = token_mask(h)
        return h[..., :-1].masked_fill(~there, 0).sum(1) / there.sum(1).sqrt()
