"""A tone above what most people hear, or as high as the recording can carry."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from attacks.base import Scene, TriggerAttack
from tasks.plugin import Above0, Share, options

PARTS = 5  # of a trigger that is not continuous
NEAR_NYQUIST = 0.95  # of half the sample rate


@options
class Ultrasonic(TriggerAttack[Tensor]):
    """A 21 kHz sine mixed into the clip; at low sample rates, a sine just below half the rate.

    Koffas, Xu, Conti and Picek, 2021, arXiv 2107.14569: a sine of 21 kHz and -10 dB at 44.1 kHz, lasting 15 to 60 % of
    a second, at the start, middle or end, or in five parts; tone and level are those of the authors' code (trigger.py).
    Deviations: the defaults for length and position are our choice among theirs; where the published tone does not
    exist, it becomes 0.95 of half the sample rate ("near-ultrasonic": 3.8 kHz at 8 kHz, which people do hear); the
    parts are spread over the clip's length instead of over one second.
    """

    modalities: ClassVar[tuple[str, ...]] = ("audio",)
    why_not: ClassVar[str] = "the trigger is a sound"
    paper: ClassVar[str] = "arXiv 2107.14569"

    frequency: Above0 = 21000.0  # Hz
    amplitude: Share = 0.316  # of full scale: -10 dB
    seconds: Above0 = 0.15  # all parts together
    position: Literal["start", "middle", "end", "spread"] = "spread"  # spread: five parts, the paper's "non-continuous"

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        rate, length = scene.task.rate, inputs.shape[1]
        hz = self.frequency if self.frequency < rate / 2 else NEAR_NYQUIST * rate / 2
        t = torch.arange(length, dtype=torch.float64) / rate
        tone = torch.sin(2 * math.pi * hz * t).float()
        on = envelope(length, round(min(self.seconds, length / rate) * rate), self.position)
        return (inputs + self.amplitude * tone * on).clamp(-1, 1)


def envelope(length: int, total: int, position: str) -> Tensor:
    """(T,) 1 where the trigger sounds, for `total` samples in all, 0 elsewhere."""
    total = min(total, length)
    sample = torch.arange(length)
    if position == "spread":
        on = sample % math.ceil(length / PARTS) < total // PARTS
    else:
        first = {"start": 0, "middle": (length - total) // 2, "end": length - total}[position]
        on = (sample >= first) & (sample < first + total)
    return on.float()
