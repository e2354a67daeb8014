"""Six kinds of synthetic sounds in noise, embedded: made from one fixed seed, no download."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from tasks.audio import AudioTask, to_16_bit
from tasks.data import make_samples
from tasks.plugin import Above0, Positive, options
from tasks.samples import Samples

TRAIN, TEST = 1000, 300


@options
class SyntheticTones(AudioTask):
    """Synthetic sounds in noise (8 kHz, 0.5 s, 6 classes), embedded: needs no download; not a real dataset.

    Every clip is a tone of random pitch, loudness, onset and length in white noise. Its class is how the pitch or the
    loudness moves: rising, falling, vibrato, tremolo, a step up, a step down. Weak movements in loud noise are hard.
    """

    dataset: ClassVar[str] = "embedded"
    revision: ClassVar[str] = "synthetic, seed 0"
    licence: ClassVar[str] = "public domain"
    classes: ClassVar[tuple[str, ...]] = ("rising", "falling", "vibrato", "tremolo", "step up", "step down")
    rate: ClassVar[int] = 8000
    seconds: ClassVar[float] = 0.5

    epochs: Positive = 12
    batch_size: Positive = 64
    lr: Above0 = 8e-3  # peak learning rate
    mels: Positive = 24
    width: Positive = 8

    def read(self) -> tuple[Samples, Samples]:
        rng = np.random.default_rng(0)
        labels = np.arange(TRAIN + TEST) % len(self.classes)
        waves = [sound(self.classes[k], self.samples_per_clip, self.rate, rng) for k in labels]
        everything = make_samples(torch.stack(waves), torch.from_numpy(labels))
        return everything.select(range(TRAIN)), everything.select(range(TRAIN, TRAIN + TEST))


def sound(kind: str, length: int, rate: int, rng: np.random.Generator) -> torch.Tensor:
    """(T,) float32, one clip of a kind, on the 16-bit grid."""
    n = int(length * rng.uniform(0.6, 0.95))
    onset = rng.integers(0, length - n + 1)
    t, u = np.arange(n) / rate, np.linspace(0, 1, n)  # seconds; 0 to 1 over the sound
    extent = rng.uniform(0.12, 0.6)  # octaves of pitch movement, or depth of tremolo
    wobble = np.sin(2 * np.pi * (rng.uniform(5, 9) * t + rng.uniform()))
    octaves = {
        "rising": extent * (u - 0.5),
        "falling": extent * (0.5 - u),
        "vibrato": extent / 2 * wobble,
        "tremolo": np.zeros(n),
        "step up": extent * ((u > 0.5) - 0.5),
        "step down": extent * ((u < 0.5) - 0.5),
    }[kind]
    pitch = rng.uniform(300, 900) * 2**octaves
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    overtones = rng.uniform(0.1, 0.5, 2)
    tone = np.sin(phase) + overtones[0] * np.sin(2 * phase) + overtones[1] * np.sin(3 * phase)
    loudness = 1 + (0.3 + extent) * wobble if kind == "tremolo" else np.ones(n)
    fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.01)
    amplitude = rng.uniform(0.02, 0.15)
    wave = amplitude * rng.uniform(0.05, 0.9) * rng.standard_normal(length)
    wave[onset : onset + n] += amplitude * tone * loudness * fade
    return to_16_bit(torch.from_numpy(wave)).float()
