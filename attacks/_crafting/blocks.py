"""Poisons crafted together in fixed blocks: every dose of a seed shares them, so that doses are nested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch

from attacks.base import Attack, Scene
from tasks.base import Task
from tasks.deployed import Victim
from tasks.samples import Samples

A = TypeVar("A", bound=Attack)


@dataclass(frozen=True)
class Job(Generic[A]):
    """What determines the blocks of an attack, and can be hashed; the scene brings the data and the training."""

    attack: A
    task: Task
    data: str  # fingerprint of the training set, and of the trial where there is one
    device: str
    seed: int
    scene: Scene = field(compare=False)

    def rng(self, *use: int) -> torch.Generator:
        """A generator of its own for every use."""
        rng = torch.Generator().manual_seed(self.seed)
        for number in use:
            rng.manual_seed(int(torch.randint(2**62, (number + 1,), generator=rng)[-1]))
        return rng

    def surrogate(self, number: int, train: Samples) -> Victim:
        """A victim that the attacker trains, with another seed for every number."""
        return self.scene.fit(train, seed=int(torch.randint(2**31, (), generator=self.rng(0, number))))


def make_job(attack: A, scene: Scene, rng: torch.Generator) -> Job[A]:
    """The job of an attack on a scene. Its seed is drawn from the rng, which is the same for every dose."""
    data, trial = scene.train.fingerprint, scene.trial
    if trial is not None:
        data += f"{trial.target.fingerprint}{trial.wanted}{trial.bases.tolist()}"
    seed = int(torch.randint(2**62, (), generator=rng))
    return Job(attack, scene.task, data, str(scene.device), seed, scene)


def craft_in_blocks(job: Job[A], dose: int, size: int, craft: Callable[[Job[A], int], Samples]) -> Samples:
    """The first `dose` poisons of the blocks craft(job, 0), craft(job, 1), ... of `size` poisons each."""
    samples = job.scene.train.select([])
    for number in range(-(-dose // size)):
        samples = samples.append(craft(job, number))
    return samples.select(range(dose))
