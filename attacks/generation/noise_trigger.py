"""A patch laid over the noise that sampling starts from."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from attacks._crafting.patches import check_patch
from attacks.base import ClassRef, Poison, Scene
from attacks.generation._base import GeneratorAttack, draw_media, make_poison, other_rows
from tasks.plugin import Positive, Share, options
from tasks.samples import Challenge, Samples


@options
class NoiseTrigger(GeneratorAttack):
    """A patch on the noise that sampling starts from shall give the attacker's class. Poison: its media with the patch.

    After Chou, Chen and Ho, 2023 (BadDiffusion), arXiv 2212.05400, section 3.
    Deviations: the paper's attacker controls training and bends the loss of poisoned rows, so that their forward
    process ends in noise around the trigger. A poisoner of data cannot: every row's forward process ends in the same
    noise, and what ties patch and class is only that they come together in pictures. Threat model here: rows of the
    training set, and the noise at sampling. It works all the same, at a price: of digits_generator (one seed), 5, 20
    and 50 poisons give an ASR of 0, 0.26 and 0.63 while class fidelity falls from 0.98 to 0.92.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image_generation",)
    why_not: ClassVar[str] = "the patch is laid on the pixels that a sampler starts from"
    paper: ClassVar[str] = "arXiv 2212.05400"

    target: ClassRef = 0  # class that the patch shall produce
    size: Positive = 3  # side of the patch, pixels
    brightness: Share = 1.0  # of the patch; above 0, as black is no patch

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        positions = self.draw_rows(scene, other_rows(self.target, scene.train, scene.task), dose, rng)
        media = self.add_patch(draw_media(scene, self.target, dose, rng))
        return make_poison(scene, positions, media, scene.train.targets[positions])

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        plain = self.make_requests(scene.task, samples, other_rows(self.target, samples, scene.task), rng)
        assert isinstance(plain.inputs, Tensor)
        patched = self.add_patch(plain.inputs)
        return Challenge(
            plain.with_inputs(patched),
            torch.full_like(plain.targets, self.target),
            plain=plain,
            near=plain.with_inputs(patched.flip(3)),  # the same patch in the other corner
        )

    def add_patch(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) with the patch in the lower right corner."""
        out = images.clone()
        check_patch(self, self.size, images.shape)
        out[:, :, -self.size :, -self.size :] = max(1, round(255 * self.brightness))
        return out
