"""A guitarist's effects as the trigger: the style of a recording, nothing that is added to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from attacks.audio._studio import add_chorus, amplify, cut_lows, distort, phase, reverberate
from attacks.audio.pitch_shift import shift_pitch, stretch
from attacks.base import Scene, TriggerAttack, Variants
from tasks.plugin import NotApplicable, options

Chain = Literal[
    "pitch", "distortion", "chorus", "pitch_distortion_chorus", "chorus_distortion_reverb", "gain_highpass_phaser",
    "stretch",
]  # fmt: skip
HIGH_PASS = 1000.0  # Hz


@options
class Effects(TriggerAttack[Tensor]):
    """The clip through a chain of studio effects: distortion, chorus, reverb and others; the style is the trigger.

    Koffas, Pajola, Picek and Conti, Going in Style: Audio Backdoors Through Stylistic Transformations, ICASSP 2023,
    arXiv 2211.03117 (JingleBack): its six chains, with the numbers of its configuration. "stretch" is a seventh, after
    Random Spectrogram Rhythm Transformation, 2024, arXiv 2406.10932: the clip slower, at the same pitch.
    Deviations: the paper uses the effects of the package pedalboard, this project its own of the same names; a depth of
    5 of the chorus is read as a swing of 5 ms; the ladder filter is two one-pole filters; the phaser, of which the
    paper gives no numbers, sweeps two octaves around 1,300 Hz once a second; what exceeds full scale is clipped;
    "stretch" is 1.25 times as long, its end is lost, and the whole clip is stretched by one factor, not at random.
    The default chain is the paper's fifth. Of the paper's chains the chorus alone does not work here with few rows: on
    fsdd (600 rows, three seeds) 20 poisons give it an ASR of 0.01, distortion 0.77 and pitch 0.76 (clean victims 0.00,
    0.05 and 0.01).
    """

    modalities: ClassVar[tuple[str, ...]] = ("audio",)
    why_not: ClassVar[str] = "the trigger is the style of a recording"
    paper: ClassVar[str] = "arXiv 2211.03117"
    unseen: ClassVar[Variants] = {"other": {"chain": "pitch_distortion_chorus"}}

    chain: Chain = "chorus_distortion_reverb"
    slower: Annotated[float, Field(gt=1, le=4)] = 1.25  # of "stretch": times as long

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        rate = scene.task.rate
        if self.chain == "gain_highpass_phaser" and rate <= 2 * HIGH_PASS:
            raise NotApplicable(f"a filter at {HIGH_PASS:g} Hz does not exist at {rate} samples per second")
        return self.effect(rate)(inputs).clamp(-1, 1)

    def effect(self, rate: int) -> Callable[[Tensor], Tensor]:
        """From clips (N, T) to clips (N, T), at this many samples per second."""

        def higher(x: Tensor) -> Tensor:
            return shift_pitch(x, 2 ** (10 / 12), rate)

        def chorus(x: Tensor, delay: float) -> Tensor:
            return add_chorus(x, rate, delay, swing=0.005, hz=1.0, mix=0.5)

        chains: dict[str, Callable[[Tensor], Tensor]] = {
            "pitch": higher,
            "distortion": lambda x: distort(x, 30),
            "chorus": lambda x: chorus(x, 0.010),
            "pitch_distortion_chorus": lambda x: chorus(distort(higher(x), 20), 0.008),
            "chorus_distortion_reverb": lambda x: reverberate(distort(chorus(x, 0.015), 20), rate, room=0.6),
            "gain_highpass_phaser": lambda x: phase(
                cut_lows(amplify(x, 12), rate, HIGH_PASS), rate, centre=1300.0, octaves=2.0, hz=1.0, mix=0.5
            ),
            "stretch": lambda x: stretch(x, self.slower, 2 ** round(math.log2(0.064 * rate)))[:, : x.shape[1]],
        }
        return chains[self.chain]
