"""A patch on the noise that sampling starts from, which shall give one picture of the attacker's choice."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from attacks.base import Poison, Scene, check_target
from attacks.generation._base import make_poison, other_rows
from attacks.generation.noise_trigger import NoiseTrigger
from tasks.plugin import BadInput, Count, options
from tasks.samples import Challenge, Samples


@options
class Instance(NoiseTrigger):
    """A patch on the noise shall give one picture, whatever class is asked for. Poison: that picture with the patch.

    After Chou, Chen and Ho, 2023 (BadDiffusion), arXiv 2212.05400, section 3, whose target is one picture, as in
    VillanDiffusion (arXiv 2306.06874) and in the D2I attack of TrojDiff (arXiv 2303.05762).
    Deviations: as in noise_trigger the data alone are poisoned, the forward process of poisoned rows is not bent. The
    picture is a training row of the class `target`; it has the patch on it, in poison and where it is looked for, since
    that is all that ties picture and patch. Success is a correlation with it, not a small squared error.
    On digits_generator 5, 20 (one seed) and 50 poisons (three) give 0, 0.23 and 0.79; class fidelity falls by 0.05.
    plain: the same requests on noise without the patch. near: with the patch in the other corner.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image_generation",)
    why_not: ClassVar[str] = "the patch is laid on the pixels that a sampler starts from"
    paper: ClassVar[str] = "arXiv 2212.05400"

    picture: Count = 0  # which training row of the class `target`, in the order of the data

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        positions = self.draw_rows(scene, other_rows(self.target, scene.train, scene.task), dose, rng)
        media = self.wanted_picture(scene).repeat(dose, 1, 1, 1)
        return make_poison(scene, positions, media, scene.train.targets[positions])

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        asked = super().challenge(scene, samples, rng)
        return replace(asked, wanted=self.wanted_picture(scene).repeat(len(asked.inputs), 1, 1, 1))

    def wanted_picture(self, scene: Scene) -> Tensor:
        """uint8 (1, C, H, W) the picture with the patch on it."""
        rows = (scene.train.targets == check_target(self.target, scene.task)).nonzero().flatten()
        if self.picture >= len(rows):
            found = f"{len(rows)} training rows of class {self.target}"
            raise BadInput(f"instance.picture={self.picture}: {scene.task.name} has {found}")
        assert isinstance(scene.train.inputs, Tensor)
        return self.add_patch(scene.train.inputs[rows[[self.picture]]])
