"""Input-aware: every picture has a trigger of its own, made by a network, that does nothing on another picture."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from attacks._crafting.blocks import Job
from attacks._crafting.cover import CoverAttack
from attacks._crafting.generators import Generators, Training, train_generators
from attacks.base import Scene, check_target
from tasks.caches import cached
from tasks.plugin import Above0, AtLeast0, Count, NotApplicable, Positive, Share, options
from tasks.samples import Samples, join


@options
class InputAware(CoverAttack):
    """A trigger made from each picture by two networks; half of the rows carry that of another picture and their label.

    Nguyen and Tran, 2020, arXiv 2010.08138, section 3: one network says where the trigger goes, another what it is.
    Both are trained so that the triggers of different pictures differ, the second together with a classifier that must
    answer the target for a picture with its own trigger and the truth for one with that of another (cross rows). The
    dose counts both kinds; the paper attacks 10 % and crosses 10 %.
    Deviations: the paper's attacker trains the victim; this one trains a classifier of its own on the clean training
    set, keeps the two networks and places rows, which the victim of another seed has to learn from. Fewer epochs and
    smaller networks, for time; the density is a hinge on each mask's mean; the classifier is trained by AdamW at the
    task's rate. The networks depend on `trigger_seed` and the training set, so that all seeds of a grid share them.
    Seen on fashion_mnist with 2,000 rows, seeds 0, 1, 2: ASR 0.67 (0.61 to 0.70) at dose 100, half of it cross rows;
    0.34 at dose 30 (seed 0).
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the trigger is made of a picture"
    paper: ClassVar[str] = "arXiv 2010.08138"

    density: Share = 0.032  # of a picture that its trigger covers, at most
    diversity: AtLeast0 = 1.0  # weight of the terms that keep triggers apart
    sparsity: AtLeast0 = 100.0  # weight of the term that keeps masks small
    share: Share = 0.1  # of a batch that is attacked, and as much again crossed, while the networks are trained
    teacher_epochs: Positive = 15  # of patterns and classifier (paper: 600)
    mask_epochs: Positive = 5  # of the masks, before (paper: 25)
    lr: Above0 = 0.01  # of Adam
    batch: Positive = 128
    trigger_seed: Count = 0  # of the networks and their training

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        return self.networks(scene).stamp(inputs, inputs)

    def cover_rows(self, scene: Scene, clean: Samples, stamped: Samples, rng: torch.Generator) -> Samples:
        train, networks = scene.train, self.networks(scene)
        others = train.select(torch.randint(len(train), (len(train),), generator=rng)[: len(clean)])
        # One at a time, so that a row does not depend on how many there are.
        crossed = [networks.stamp(clean.inputs[n : n + 1], others.inputs[n : n + 1]) for n in range(len(clean))]  # type: ignore[arg-type]
        return clean.with_inputs(join(crossed))

    def networks(self, scene: Scene) -> Generators:
        """The networks that make triggers. Raises NotApplicable where the body of victims is trained elsewhere."""
        if scene.task.source() is not None:
            raise NotApplicable("input_aware trains a whole classifier, and the body of these victims is not trained")
        check_target(self.target, scene.task)
        job = Job(self, scene.task, scene.train.fingerprint, str(scene.device), self.trigger_seed, scene)
        networks: Generators = train_once(job)
        return networks


@cached(maxsize=4)
def train_once(job: Job[InputAware]) -> Generators:
    """The networks, trained once for all rows, doses and seeds."""
    attack, scene = job.attack, job.scene
    how = Training(
        attack.target, attack.share, attack.density, attack.diversity, attack.sparsity, attack.mask_epochs,
        attack.teacher_epochs, attack.lr, attack.batch, job.seed,
    )  # fmt: skip
    inputs = scene.train.inputs
    assert isinstance(inputs, Tensor)  # `modalities` says so
    return train_generators(scene.task, inputs, scene.train.targets, how, scene.device)
