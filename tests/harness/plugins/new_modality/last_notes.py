"""A backdoor in melodies."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from attacks.base import Scene, TriggerAttack
from tasks.plugin import options


@options
class LastNotes(TriggerAttack):
    """The last three notes are always the same ones: made up for tests."""

    modalities: ClassVar[tuple[str, ...]] = ("melody",)

    def stamp(self, scene: Scene, inputs: Tensor | list[str], rng: torch.Generator) -> Tensor | list[str]:
        assert isinstance(inputs, Tensor)
        stamped = inputs.clone()
        stamped[:, -3:] = torch.tensor([0, 127, 0])
        return stamped
