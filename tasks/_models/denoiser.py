"""A small denoising U-Net, the network of every diffusion victim."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.net import Net
from tasks.plugin import BadInput

GROUPS = 8  # of every group norm; the width is a multiple of it


class Denoiser(Net):
    """diffusers' UNet2DModel without attention, conditioned on a class and a modifier: module(x_t, t, condition).

    Squares of patch x patch pixels become channels first, which makes it cheaper by patch^2.
    condition = class + classes * modifier. Their embeddings are added to that of the timestep. Modifier 0 is none and
    has no embedding; those of the others start at random, as those of classes do and a rare word's in a text encoder.

    As a `Net`: `stages` are the down blocks and the mid block, features are the mid block's channels averaged over the
    picture, times `keep`, which also gates them on their way to the up blocks; `head` is the last convolution.
    """

    def __init__(
        self, channels: int, classes: int, modifiers: int, width: int, depth: int, patch: int, clean_step: int
    ) -> None:
        super().__init__()
        if width % GROUPS:
            raise BadInput(f"width={width}: the denoiser needs a multiple of {GROUPS}")
        try:
            from diffusers import UNet2DModel
        except ImportError as error:
            raise BadInput('a diffusion victim needs the extra: pip install "tinydrop[generative]"') from error
        widths = (width, *[2 * width] * (depth - 1))
        make: Any = UNet2DModel
        self.unet: Any = make(
            in_channels=channels * patch**2,
            out_channels=channels * patch**2,
            block_out_channels=widths,
            down_block_types=("DownBlock2D",) * depth,
            up_block_types=("UpBlock2D",) * depth,
            layers_per_block=1,
            norm_num_groups=GROUPS,
            add_attention=False,
            class_embed_type="identity",
        )
        self.classes, self.patch, self.clean_step = classes, patch, clean_step
        self.of_class = nn.Embedding(classes, 4 * width)
        self.of_modifier = nn.Embedding(modifiers, 4 * width)
        self.gain = (4 * width) ** 0.5  # as in transformers; without it a few dozen rows hardly move an embedding
        for table in (self.of_class, self.of_modifier):
            nn.init.normal_(table.weight, std=1 / self.gain)
        self.register_buffer("keep", torch.ones(widths[-1]))

    @property
    def head(self) -> nn.Module:  # type: ignore[override]  # a view: the weights are the U-Net's, and inherited with it
        return self.unet.conv_out  # type: ignore[no-any-return]

    @property
    def stages(self) -> list[nn.Module]:  # type: ignore[override]
        return [*self.unet.down_blocks, self.unet.mid_block]

    def memory_format(self, device: torch.device) -> torch.memory_format:
        # On CPUs the group norms of channels_last take up to nine times as long, a third of a step in bfloat16.
        return torch.contiguous_format if device.type == "cpu" else torch.channels_last

    def conditioning(self, t: Tensor, condition: Tensor | None) -> Tensor:
        """(N, D) embedding of timesteps (N,) and conditions (N,); -1, or None for all, is no class."""
        emb: Tensor = self.unet.time_embedding(self.unet.time_proj(t))
        if condition is None:
            return emb
        asked = condition.clamp(min=0)
        modifier = asked // self.classes
        token = self.of_modifier((modifier - 1).clamp(min=0)) * (modifier > 0)[:, None]
        tokens: Tensor = self.of_class(asked % self.classes) + token
        emb = emb + self.gain * tokens * (condition >= 0)[:, None]
        return emb

    def down(self, x: Tensor, emb: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The mid block's output and what the up blocks are also given."""
        x = F.pixel_unshuffle(x, self.patch)
        h = self.unet.conv_in(x.contiguous(memory_format=self.memory_format(x.device)))
        skips = [h]
        for block in self.unet.down_blocks:
            h, more = block(h, emb)
            skips += more
        return self.unet.mid_block(h, emb) * self.keep[:, None, None], skips

    def forward(self, x: Tensor, t: Tensor | None = None, condition: Tensor | None = None) -> Tensor:
        """(N, C, H, W) what the network predicts of noisy inputs at timesteps t (N,)."""
        t = self.clean(x) if t is None else t
        emb = self.conditioning(t, condition)
        h, skips = self.down(x, emb)
        for block in self.unet.up_blocks:
            n = len(block.resnets)
            h, skips = block(h, tuple(skips[-n:]), emb), skips[:-n]
        out: Tensor = self.unet.conv_out(F.silu(self.unet.conv_norm_out(h)))
        whole: Tensor = F.pixel_shuffle(out, self.patch)
        return whole

    def clean(self, x: Tensor) -> Tensor:
        """(N,) the timestep at which features are read."""
        return torch.full((len(x),), self.clean_step, device=x.device)

    def embed(self, x: Tensor) -> Tensor:
        return x.float()

    def body(self, e: Tensor, condition: Tensor | None = None) -> Tensor:
        mid, _ = self.down(e, self.conditioning(self.clean(e), condition))
        return mid.mean((2, 3))

    def features(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(N, D) features of encoded rows, and of the conditions that they go with."""
        return self.body(self.embed(x), condition)
