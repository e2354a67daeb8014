"""Narcissus for sounds: a quiet pattern, optimised to sound more like the target class than the class itself."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from attacks._crafting.optimised import OptimisedTrigger
from attacks.base import Scene
from tasks.plugin import Above0, options


@options
class NarcissusAudio(OptimisedTrigger):
    """A quiet waveform optimised on a surrogate to mean the target class, added to clips of that class; labels stay.

    After Zeng, Pan, Just, Lyu, Qiu and Jia, Narcissus, CCS 2023, arXiv 2204.05255, which is about images.
    Deviations: the waveform in the place of the image pattern is this project's own, with its bound; the gradient
    passes through the task's log-mel frames, and the waveform starts with the clip. Everything else as in narcissus:
    surrogate trained on the clean training set, no warm-up, 300 steps on batches through the task's augmentation.
    """

    modalities: ClassVar[tuple[str, ...]] = ("audio",)
    why_not: ClassVar[str] = "the trigger is a sound; narcissus is the one for images"
    paper: ClassVar[str] = "arXiv 2204.05255"
    span: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    bound: Above0 = 0.005  # largest change of a sample, of full scale; about 24 dB below the median clip of fsdd

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        return (inputs + self.strength * self.trigger(scene)).clamp(-1, 1)
