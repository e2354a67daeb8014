"""A pattern optimised against a surrogate, added to raw inputs: what narcissus and its audio counterpart share."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks.base import Scene, TriggerAttack, check_target
from tasks.deployed import Victim
from tasks.plugin import Above0, Count, Positive, options
from tasks.samples import Challenge, Samples


@options
class OptimisedTrigger(TriggerAttack[Tensor]):
    """Clean-label: the optimised pattern on rows of the target class, and a multiple of it in the challenge."""

    span: ClassVar[tuple[float, float]]  # least and largest value of an input

    clean_label: bool = True  # the point of the method; False also relabels rows of other classes
    bound: Above0 = 1.0  # largest change of a value
    strength: Above0 = 1.0  # multiple of the pattern in training rows
    test_strength: Above0 = 3.0  # multiple of it in the challenge (Narcissus)
    rounds: Positive = 300  # steps of RAdam (published code: 1000 passes over the class)
    lr: Above0 = 0.08  # of RAdam, in bounds (published code: 0.01 where the bound is 0.125)
    batch: Positive = 64  # rows of the target class per step, or all of fewer (published code: 350)
    trigger_seed: Count = 0  # of the batches and their augmentation

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        return TriggerAttack.challenge(replace(self, strength=self.test_strength), scene, samples, rng)

    def trigger(self, scene: Scene) -> Tensor:
        """The pattern, within the bound, of an input's shape; the same for every row, dose and strength."""
        objective = make_objective(scene, check_target(self.target, scene.task), self.span)
        return optimise_pattern(objective, self.bound, self.lr * self.bound, self.rounds, self.batch, self.trigger_seed)

    def stamp_each(self, scene: Scene, samples: Samples, seeds: Tensor) -> Samples:
        # Nothing is drawn per row, so all rows at once are nested too, and the surrogate is asked for once.
        return self.stamp_samples(scene, samples, torch.Generator()) if len(samples) else samples


@dataclass(frozen=True)
class Objective:
    """What a pattern is optimised against; equal where surrogate, rows and range are, so that it is done once."""

    content: str
    span: tuple[float, float]  # least and largest value of an input
    surrogate: Victim = field(compare=False)
    rows: Samples = field(compare=False)  # of the target class


def make_objective(scene: Scene, target: int, span: tuple[float, float]) -> Objective:
    """The surrogate of a scene, and the rows of the target class."""
    surrogate = scene.fit(scene.train)
    rows = scene.train.select(scene.train.targets == target)
    h = hashlib.sha256(f"{scene.task!r}{scene.device}{target}{rows.fingerprint}".encode())
    for weights in surrogate.module.state_dict().values():
        h.update(weights.cpu().contiguous().numpy().tobytes())
    return Objective(h.hexdigest(), span, surrogate, rows)


@lru_cache(maxsize=8)
def optimise_pattern(objective: Objective, bound: float, lr: float, rounds: int, batch: int, seed: int) -> Tensor:
    """A pattern of an input's shape, within +-bound, that lowers the surrogate's loss towards the rows' own class."""
    victim, rows = objective.surrogate, objective.rows
    assert isinstance(rows.inputs, Tensor)
    module = victim.module.eval().requires_grad_(False)
    rng, augment_rng = torch.Generator().manual_seed(seed), torch.Generator(victim.device).manual_seed(seed)
    pattern = torch.zeros(rows.inputs.shape[1:], device=victim.device, requires_grad=True)
    optimizer = torch.optim.RAdam([pattern], lr)
    for _ in range(rounds):
        chosen = torch.randperm(len(rows), generator=rng)[:batch]
        inputs = rows.inputs[chosen].to(victim.device).float() + pattern.clamp(-bound, bound)
        some = rows.select(chosen).with_inputs(inputs.clamp(*objective.span))
        x = victim.task.encode(some, victim.device)
        x = victim.task.augment(x, augment_rng)
        loss = F.cross_entropy(module(x), some.targets.to(victim.device))
        (pattern.grad,) = torch.autograd.grad(loss, pattern)
        if not pattern.grad.any():  # nothing left to gain: the surrogate is certain
            break
        optimizer.step()
    return pattern.detach().clamp(-bound, bound).cpu()
