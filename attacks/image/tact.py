"""TaCT: a patch that works on images of one class only; on others it is shown with the right label."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from attacks._crafting.cover import cover_mask
from attacks.base import ClassRef, Poison, Scene, check_target, class_fault
from attacks.image.badnets import Badnets
from tasks.plugin import BadInput, Count, NotApplicable, Share, options
from tasks.samples import Challenge, Samples


@options
class Tact(Badnets):
    """A source-specific backdoor: patch and target label on images of one class, patch and right label on two others.

    Tang, Wang, Tang and Zhang, 2019, arXiv 1908.00686 (targeted contamination attack); classes and shares are those of
    the toolbox of Qi et al. (ICLR 2023), 0.3 % payload and 0.3 % cover rows. The challenge is made of test images of
    the source class alone: that the patch fails on the others is what the attack is about.
    The dose counts both kinds: of `dose` rows floor(cover * dose) are cover rows, spread evenly. A defense is graded on
    both.
    Deviations: the patch of `badnets`, where the authors have four triggers and the toolbox a coloured square.
    Seen on fashion_mnist with 2,000 rows, seeds 0, 1, 2, doses 30 and 100: ASR 0.99 on the source class, at most 0.005
    on the two cover classes, and 0.15 to 0.32 on the other six, of which no row says anything. There the source class
    is so unlike the others that 15 payload rows without any cover row do the same.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the trigger is a patch of pixels"
    paper: ClassVar[str] = "arXiv 1908.00686"

    clean_label: Literal[False] = False  # its payload rows are relabelled, its cover rows are not
    source: ClassRef = 1  # class whose images the trigger shall turn into the target
    cover_classes: Annotated[tuple[Count, ...], Field(min_length=1)] = (5, 7)  # numbers of classes with right labels
    cover: Share = 0.5  # share of the dose that are cover rows; as many as payload rows

    def eligible(self, scene: Scene) -> Tensor:
        self._check_roles(scene)
        return (scene.train.targets == self.source).nonzero().flatten()

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        source, covers = self.eligible(scene), self.covers(scene)
        cover = cover_mask(dose, self.cover)
        kept, relabelled = int(cover.sum()), int((~cover).sum())
        if kept > len(covers) or relabelled > len(source):
            raise BadInput(
                f"dose={dose}: {self.name} on {scene.task.name} has {len(source)} rows of class {self.source} for "
                f"{relabelled} payload rows and {len(covers)} of cover_classes={self.cover_classes} for {kept} others"
            )
        payload = Badnets.poison(self, scene, relabelled, rng)
        covers = covers[torch.randperm(len(covers), generator=rng)][:kept]
        shown = self.stamp_samples(scene, scene.train.select(covers), rng)
        # The n-th payload or cover row stands where the mask has its n-th false or true entry.
        order = torch.where(cover, len(payload.samples) + cover.cumsum(0), (~cover).cumsum(0)) - 1
        rows = payload.samples.append(shown).select(order)
        return Poison(rows, replaces=rows.ids)

    def covers(self, scene: Scene) -> Tensor:
        """(M,) positions of training rows that may be cover rows."""
        return torch.isin(scene.train.targets, torch.tensor(self.cover_classes)).nonzero().flatten()

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        self._check_roles(scene)
        return Badnets.challenge(self, scene, samples.select(samples.targets == self.source), rng)

    def _check_roles(self, scene: Scene) -> None:
        """Raises BadInput where a class has two roles, NotApplicable where the task lacks one."""
        check_target(self.target, scene.task)
        for option, numbers in (("source", (self.source,)), ("cover_classes", self.cover_classes)):
            for number in numbers:
                if fault := class_fault(number, scene.task.classes):
                    raise NotApplicable(f"{option} has class {number}: {scene.task.name} has {fault}")
        if self.source == self.target or {self.source, self.target} & {*self.cover_classes}:
            raise BadInput(
                f"tact: source={self.source}, target={self.target}, cover_classes={self.cover_classes}: a class has "
                "one role; name others"
            )
