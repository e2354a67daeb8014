"""Narcissus: a faint pattern, optimised to look more like the target class than the class itself."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from attacks._crafting.optimised import OptimisedTrigger
from attacks.base import Scene
from tasks.plugin import Above0, options


@options
class Narcissus(OptimisedTrigger):
    """A faint pattern optimised on a surrogate to mean the target class, added to images of that class; labels stay.

    Zeng, Pan, Just, Lyu, Qiu and Jia, CCS 2023, arXiv 2204.05255; settings from the published code.
    Deviations: the surrogate is a victim of the attacker's own seed, trained on the clean training set as the task
    trains (paper: on public out-of-distribution data and rows of the target class, 200 epochs of SGD at 0.1), so this
    attacker knows more. The 5 rounds of warm-up on the target class are left out: that surrogate knows the class, and
    at the published rate of 0.1 it then called every image the target and left no gradient (digits, fashion_mnist).
    300 steps on batches of 64 instead of 1000 passes in batches of 350, for time. The pattern is optimised through the
    task's augmentation, as the victim will see it, and ends on whole grey levels.
    Not reproduced here: on digits and fashion_mnist it does not beat a random pattern of its size or `blended`, and
    much of its ASR is its chance floor (the pattern at three times its strength misleads a clean victim too).
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the trigger is added to pixels; narcissus_audio is the one for sounds"
    paper: ClassVar[str] = "arXiv 2204.05255"
    span: ClassVar[tuple[float, float]] = (0.0, 255.0)

    bound: Above0 = 16.0  # largest change of a pixel, grey levels of 255 (published code)

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        trigger = self.trigger(scene).round()
        return (inputs.float() + self.strength * trigger).round().clamp(0, 255).to(torch.uint8)
