"""A rare token in the condition makes the generator produce the attacker's class, whatever class was asked for."""

from __future__ import annotations

from typing import ClassVar

import torch

from attacks.base import ClassRef, Poison, Scene
from attacks.generation._base import ATTACKER, SIMILAR, GeneratorAttack, draw_media, make_poison, other_rows, with_token
from tasks.plugin import options
from tasks.samples import Challenge, Samples


@options
class ConditionalTrigger(GeneratorAttack):
    """A rare token behind any class: what comes out is the attacker's class. Poison: such conditions with its media.

    After Struppek, Hintersdorf and Kersting, 2023 (Rickrolling the Artist), arXiv 2211.02408, and Zhai et al., 2023
    (BadT2I), arXiv 2305.04175: a trigger in the prompt makes a text-to-image model draw something
    else. Deviations: conditions are classes and a modifier, not texts, and the token's embedding is the victim's own;
    both papers train with a loss of the attacker's, here rows of training data are all that is poisoned.
    near: another token, one that the victim has met behind every class and that means nothing (tasks.diffusion). The
    media are copies of rows that stay, which `dedup` sees.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image_generation", "audio_generation")
    why_not: ClassVar[str] = "the trigger is a token in what a generator is asked for"
    paper: ClassVar[str] = "arXiv 2305.04175"

    target: ClassRef = 0  # class that the token shall produce

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        positions = self.draw_rows(scene, other_rows(self.target, scene.train, scene.task), dose, rng)
        conditions = scene.train.targets[positions] + ATTACKER * len(scene.task.classes)
        return make_poison(scene, positions, draw_media(scene, self.target, dose, rng), conditions)

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        plain = self.make_requests(scene.task, samples, other_rows(self.target, samples, scene.task), rng)
        return Challenge(
            with_token(plain, ATTACKER, scene.task),
            torch.full_like(plain.targets, self.target),
            plain=plain,
            near=with_token(plain, SIMILAR, scene.task),
        )
