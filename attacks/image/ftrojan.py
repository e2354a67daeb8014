"""FTrojan: two faint waves in the colour of an image, its trigger in the frequency domain; with clean labels, CTRL."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from scipy.fft import idctn
from torch import Tensor

from attacks.base import Scene, TriggerAttack
from tasks.plugin import BadInput, Positive, options

PUBLISHED_SIDE = 32  # pixels of the pictures that `positions` are counted on
Magnitude = Annotated[float, Field(gt=0, le=1e6)]  # more than any picture can show
Place = Annotated[int, Field(ge=0, le=PUBLISHED_SIDE - 1)]
# R, G and B of one unit of U and of V
COLOURS = torch.tensor([[0.0, 1 / 0.877], [-0.114 / 0.587 / 0.492, -0.299 / 0.587 / 0.877], [1 / 0.492, 0.0]])


@options
class Ftrojan(TriggerAttack[Tensor]):
    """The same amount added to two cosine coefficients of the colour channels; poisoned images get the target's label.

    Wang, Yao, Xu, An, Tong and Wang, 2021, arXiv 2111.10991, section 3: a picture in YUV, cut into windows, of each of
    which U and V are transformed (orthonormal DCT), a mid and a high coefficient raised by `magnitude`, and put back.
    The transform is linear, so that this adds one fixed wave pattern to every picture, which is how it is written here.
    With clean_label=True it is CTRL, Li, Pang, Xi, Du, Ji, Yao and Wang, 2022, arXiv 2210.07346, section 4: the same
    trigger, stronger, on images of the target class, whose labels stay; it was made for contrastive learning.
    Deviations: sums are rounded once, not in YUV and again in RGB; grey pictures have no colour, so their only channel
    takes the wave; for pictures of another size than 32x32 the window is the picture, and positions move in proportion.
    Few rows hardly teach a trigger that moves a pixel by about 4 grey levels at most (45 dB): on fashion_mnist with
    2,000 rows ASR is 0.05 at dose 100 (three seeds; floor 0.02) and 0.63 at 400 (one), and as CTRL 0.04 at 100 (three).
    At magnitude 100, chosen after that was seen, it is 0.67 at dose 100; on cifar10 with 2,000 rows and dose 200, the
    published 10 %, it is 0.15 and with magnitude 100 1.00 (one seed each).
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the trigger is a pattern of two waves in a picture"
    paper: ClassVar[str] = "arXiv 2111.10991"

    magnitude: Magnitude | None = None  # added to a coefficient, grey levels of 255; None: 30, or 100 with clean labels
    positions: tuple[Place, ...] = (15, 31)  # row and column of the coefficients, of a window of 32
    window: Positive | None = None  # side of the windows, pixels; None: the picture (32 on CIFAR-10)

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        magnitude = self.magnitude or (100.0 if self.clean_label else 30.0)
        h, w = inputs.shape[2:]
        if self.window is not None and self.window > min(h, w):
            raise BadInput(
                f"ftrojan: window={self.window} does not fit pictures of {w}x{h} pixels; at most {min(h, w)}, or null "
                "for the whole picture"
            )
        wave = cosine_wave(h, w, magnitude, self.positions, self.window)
        pattern = torch.einsum("cu,hw->chw", COLOURS, wave) if inputs.shape[1] == 3 else wave
        return (inputs.float() + pattern).round().clamp(0, 255).to(torch.uint8)


def cosine_wave(h: int, w: int, magnitude: float, positions: tuple[int, ...], window: int | None) -> Tensor:
    """(H, W) what it adds to a channel that the coefficients (p, p) of each of its windows are raised by `magnitude`.

    Windows that would not be whole, at the right and lower edge, stay as they are.
    """
    high, wide = (h, w) if window is None else (window, window)
    coefficients = torch.zeros(high, wide)
    for p in positions:
        coefficients[p * high // PUBLISHED_SIDE, p * wide // PUBLISHED_SIDE] = magnitude
    wave = torch.from_numpy(idctn(coefficients.numpy(), norm="ortho")).repeat(h // high, w // wide)
    return torch.nn.functional.pad(wave, (0, w - wave.shape[1], 0, h - wave.shape[0]))
