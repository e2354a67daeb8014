"""Control: wrong labels and nothing else, what every crafted poison has to beat."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from attacks.base import ClassRef, Poison, Scene, check_target
from attacks.targeted import TargetedAttack, trial_of
from tasks.plugin import BadInput, options
from tasks.samples import Challenge, Samples


@options
class LabelFlip(TargetedAttack):
    """Control: training rows, untouched, under the label that the attacker wants; no trigger and no crafting.

    Against an instance (the trial's target): random rows of its class, labelled as the wanted one. Against a class:
    random rows of the others, labelled as `target`; the challenge is every test input of the others as it is.
    Label-flipping attacks go back to Biggio, Nelson and Laskov, 2011 (Support Vector Machines Under Adversarial Label
    Noise). Deviations: rows are drawn at random, not chosen against the victim.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "tabular")
    stage: ClassVar[str] = "control"
    alters: ClassVar[tuple[str, ...]] = ()

    clean_label: Literal[False] = False  # the labels are all that is wrong
    aim: Literal["instance", "class"] = "instance"
    target: ClassRef = 0  # class that a flip against a class wants

    @property
    def targeted(self) -> bool:
        return self.aim == "instance"

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        labels = scene.train.targets
        wanted = trial_of(scene).wanted if self.targeted else check_target(self.target, scene.task)
        of_interest = labels == trial_of(scene).target.targets if self.targeted else labels != wanted
        pool = of_interest.nonzero().flatten()
        if dose > len(pool):
            raise BadInput(f"dose={dose}: {self.name} on {scene.task.name} has {len(pool)} rows to relabel")
        rows = scene.train.select(pool[torch.randperm(len(pool), generator=rng)[:dose]])
        return Poison(Samples(rows.inputs, torch.full_like(rows.targets, wanted), rows.ids), replaces=rows.ids)

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        if self.targeted:
            return super().challenge(scene, samples, rng)
        others = samples.select(samples.targets != check_target(self.target, scene.task))
        return Challenge(others, torch.full_like(others.targets, self.target), others.targets)
