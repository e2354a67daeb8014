"""The control: no poison, no challenge."""

from __future__ import annotations

from typing import ClassVar

import torch

from attacks.base import Attack, Poison, Scene
from tasks.plugin import BadInput, options
from tasks.samples import Samples


@options
class None_(Attack):
    """Control: poisons nothing and asks for nothing; its cells give the clean metrics of every defense."""

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "control"
    alters: ClassVar[tuple[str, ...]] = ()

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        if dose:
            raise BadInput(f"dose={dose}: attack none has no poison, its only dose is 0")
        return Poison(scene.train.select([]))

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> None:
        return None
