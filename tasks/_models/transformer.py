"""A small transformer encoder for text, trained from scratch."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from tasks.net import Net
from tasks.plugin import BadInput

HEADS = 4


def token_mask(e: Tensor) -> Tensor:
    """(N, L, 1) bool: which tokens are there. A row with none counts as full, so that no softmax is empty.

    The mask channel is compared with 0.25, so a half-and-half mix of two texts has the tokens of both and a small
    perturbation of it changes nothing.
    """
    mask = e[..., -1:] > 0.25
    return mask | ~mask.any(1, keepdim=True)


def crop_padding(e: Tensor) -> Tensor:
    """The batch without columns that are padding in every row, which cost time and change nothing.

    A GPU keeps them: to count them it would have to end all earlier work first, and graphs need fixed shapes.
    """
    if e.is_cuda:
        return e
    used = int(token_mask(e).any(0).flatten().nonzero()[-1]) + 1
    return e[:, : -(-used // 8) * 8]  # multiples of 8 keep the shapes few


class Layer(nn.Module):
    """Pre-norm attention and MLP over (N, L, E + 1); the last channel, the mask, passes through.

    Attention is written out: fused kernels have no second derivative, which gradient-matching methods need.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, e: Tensor) -> Tensor:
        h = e[..., :-1]
        h = h + self.attend(self.before_attention(h), token_mask(e))
        h = h + self.mlp(self.before_mlp(h))
        return torch.cat([h, e[..., -1:].to(h.dtype)], -1)

    def attend(self, h: Tensor, there: Tensor) -> Tensor:
        n, length, width = h.shape
        q, k, v = (
            self.qkv(h).reshape(n, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        )  # (N, heads, L, E/heads)
        weights = (q @ k.transpose(-2, -1)) * (width // HEADS) ** -0.5
        weights = weights.masked_fill(~there.reshape(n, 1, 1, length), float("-inf")).softmax(-1).to(v.dtype)
        mixed: Tensor = self.out((weights @ v).transpose(1, 2).reshape(n, length, width))
        return mixed


class Transformer(Net):
    """Token and position embeddings, `depth` layers, then the largest and the mean value of each feature; D = 2E.

    Max pooling lets a single token decide, which is what a keyword (or a trigger) is.
    """

    masked: ClassVar[bool] = True

    def __init__(self, vocabulary: int, max_length: int, classes: int, width: int = 64, depth: int = 1) -> None:
        super().__init__()
        if width % HEADS:
            raise BadInput(f"width={width}: must be a multiple of {HEADS}, the number of attention heads")
        self.tokens = nn.Embedding(vocabulary + 1, width)  # 0 is padding
        self.positions = nn.Embedding(max_length, width)
        nn.init.normal_(self.tokens.weight, std=0.1)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.stages = nn.ModuleList([Layer(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.attach_head(2 * width, classes)

    def embed(self, x: Tensor) -> Tensor:
        """int64 (N, L) to (N, L, E + 1); the last channel is 1 for a token and 0 for padding."""
        at = torch.arange(x.shape[1], device=x.device).expand_as(x)  # per row: opacus wants the batch dimension
        return torch.cat([self.tokens(x) + self.positions(at), (x > 0).float()[..., None]], -1)

    def body(self, e: Tensor) -> Tensor:
        return super().body(crop_padding(e))

    def pool(self, h: Tensor) -> Tensor:
        there, h = token_mask(h), self.norm(h[..., :-1])
        largest = h.masked_fill(~there, float("-inf")).amax(1)
        mean = h.masked_fill(~there, 0).sum(1) / there.sum(1)
        return torch.cat([largest, mean], -1)
