"""A bright bar at the top."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks.base import Scene, TriggerAttack
from tasks.plugin import options


@options
class Bar(TriggerAttack[Tensor]):
    """The first row of pixels is bright; poisoned images get the target's label."""

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the trigger is made of pixels"
    paper: ClassVar[str] = "an example"

    value: Annotated[int, Field(ge=0, le=255)] = 255  # grey level of the bar

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        out = inputs.clone()
        out[:, :, 0, :] = self.value
        return out
