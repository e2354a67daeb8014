"""A tone above what people hear."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from attacks.audio._level import Place, place_sound, sine
from attacks.base import Scene, TriggerAttack
from tasks.plugin import Above0, NotApplicable, Share, options


@options
class Ultrasonic(TriggerAttack[Tensor]):
    """A 21 kHz sine mixed into the clip: for recordings of 44,100 samples a second and more.

    Koffas, Xu, Conti and Picek, 2021, arXiv 2107.14569: a sine of 21 kHz and -10 dB at 44.1 kHz, lasting 15 to 60 % of
    a second, at the start, middle or end, or in five parts; tone and level are those of the authors' code (trigger.py).
    Deviations: the defaults for length and position are our choice among theirs; the parts are spread over the clip's
    length instead of over one second. At lower rates there is no such tone: `near_nyquist` is what can be done there.
    """

    modalities: ClassVar[tuple[str, ...]] = ("audio",)
    why_not: ClassVar[str] = "the trigger is a sound"
    paper: ClassVar[str] = "arXiv 2107.14569"

    frequency: Above0 = 21000.0  # Hz
    amplitude: Share = 0.316  # of full scale: -10 dB
    seconds: Above0 = 0.15  # all parts together
    position: Place = "spread"  # spread: five parts, the paper's "non-continuous"

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        rate = scene.task.rate
        if self.frequency >= rate / 2:
            raise NotApplicable(
                f"a tone of {self.frequency:g} Hz does not exist at {rate} samples per second; use near_nyquist"
            )
        sound = place_sound(inputs, sine(self.frequency, self.seconds, inputs.shape[1], rate), self.position)
        return (inputs + self.amplitude * sound).clamp(-1, 1)
