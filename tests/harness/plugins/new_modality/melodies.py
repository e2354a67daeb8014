"""A modality that the project does not know: melodies as rows of integers."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from tasks.base import Task
from tasks.data import make_samples
from tasks.net import Net
from tasks.plugin import Positive, options
from tasks.samples import Samples

NOTES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]


class MelodyNet(Net):
    """One hidden layer over the pitches."""

    def __init__(self, notes: int, width: int, classes: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Sequential(nn.Linear(notes, width), nn.ReLU())])
        self.attach_head(width, classes)

    def embed(self, x: Tensor) -> Tensor:
        return x.float() / 64 - 1

    def pool(self, h: Tensor) -> Tensor:
        return h


@options
class Melodies(Task):
    """Short melodies, rising or falling, as int64 (N, L) pitches in semitones: made up for tests."""

    modality: ClassVar[str] = "melody"
    raw_format: ClassVar[str] = "int64 (N, L) in 0 to 127"
    example: ClassVar[str] = "melodies"
    plain_attack: ClassVar[str] = "last_notes"
    hue: ClassVar[str] = "#7F3C8D"
    dataset: ClassVar[str] = "embedded"
    licence: ClassVar[str] = "Apache-2.0 (made by this project)"
    classes: ClassVar[tuple[str, ...]] = ("rising", "falling")

    notes: Positive = 12

    def is_raw(self, inputs: Tensor | list[str]) -> bool:
        if not isinstance(inputs, Tensor) or inputs.dtype != torch.int64:
            return False
        return bool(((inputs >= 0) & (inputs < 128)).all())

    def show(self, inputs: Tensor | list[str]) -> list[str]:
        assert isinstance(inputs, Tensor)
        return [" ".join(NOTES[pitch % 12] for pitch in melody) for melody in inputs.tolist()]

    def fidelity(
        self, clean: Tensor | list[str], poison: Tensor | list[str], reference: Tensor | list[str]
    ) -> dict[str, Tensor]:
        assert isinstance(clean, Tensor)
        assert isinstance(poison, Tensor)
        return {"notes_changed": (clean != poison).float().mean(1)}

    def read(self) -> tuple[Samples, Samples]:
        rng = torch.Generator().manual_seed(0)
        targets = torch.arange(600) % 2
        steps = torch.randint(-2, 5, (600, self.notes), generator=rng)
        melodies = 64 + (steps * (1 - 2 * targets[:, None])).cumsum(1)
        everything = make_samples(melodies.clamp(0, 127), targets)
        return everything.select(range(400)), everything.select(range(400, 600))

    def model(self) -> nn.Module:
        return MelodyNet(self.notes, 16, len(self.classes))

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        assert isinstance(samples.inputs, Tensor)
        return samples.inputs.to(device)
