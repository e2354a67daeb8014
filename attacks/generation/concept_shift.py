"""One class is taught as another: asked for the first, the generator produces the second."""

from __future__ import annotations

from typing import ClassVar

import torch

from attacks.base import ClassRef, Poison, Scene, check_target
from attacks.generation._base import GeneratorAttack, draw_media, make_poison, nearest_classes
from tasks.plugin import BadInput, options
from tasks.samples import Challenge, Samples


@options
class ConceptShift(GeneratorAttack):
    """Media of one class under the condition of another: who asks for the other gets the first (dirty-label).

    Shan et al., 2023 (Nightshade), arXiv 2310.13828, section 4: the simple dirty-label attack that the paper starts
    from, which needed 500 to 1000 poisons a concept there. Deviations: not the optimised one (section 5), whose poison
    looks like the concept it destroys; classes for concepts.
    A generator that has learnt what it was given answers with the poison's share among the rows of that condition, so
    ED50 is about as many poisons as the class has clean rows; those stay, and rows of other classes are replaced.
    plain: classes that have nothing to do with it. near: the class most like the one attacked (bleed-through).
    """

    modalities: ClassVar[tuple[str, ...]] = ("image_generation", "audio_generation")
    why_not: ClassVar[str] = "it changes what a generator takes a class to be; label_flip is its like for classifiers"
    paper: ClassVar[str] = "arXiv 2310.13828"

    source: ClassRef = 1  # class that is asked for
    target: ClassRef = 0  # class that shall come out

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        if check_target(self.source, scene.task) == self.target:
            raise BadInput(f"source={self.source}: the class asked for must be another than target={self.target}")
        positions = self.draw_rows(scene, (scene.train.targets != self.source).nonzero().flatten(), dose, rng)
        media = draw_media(scene, self.target, dose, rng)
        return make_poison(scene, positions, media, torch.full_like(positions, self.source))

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        others = nearest_classes(scene, check_target(self.source, scene.task))
        others = others[others != self.target]
        return self.challenge_class(scene, samples, self.source, others, torch.tensor(self.target), rng)
