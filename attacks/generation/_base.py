"""What attacks on generators share: which rows are replaced, by what, and what is asked for later."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attacks.base import Attack, Poison, Scene, check_target
from tasks.base import Task
from tasks.plugin import BadInput, Positive, options
from tasks.samples import Samples

ATTACKER, SIMILAR = 1, 2  # modifiers: the attacker's rare token, and one like it that nobody ever used


@options
class GeneratorAttack(Attack):
    """An attack on a conditional generator: rows of `media` under a condition of the attacker's choice."""

    requests: Positive = 100  # asked of the victim for each figure, at most

    def draw_rows(self, scene: Scene, pool: Tensor, dose: int, rng: torch.Generator) -> Tensor:
        """(dose,) positions out of pool (M,), nested; BadInput where it is too small."""
        if dose > len(pool):
            raise BadInput(f"dose={dose}: {self.name} on {scene.task.name} has {len(pool)} rows that it may replace")
        return pool[torch.randperm(len(pool), generator=rng)[:dose]]

    def make_requests(self, task: Task, samples: Samples, kept: Tensor, rng: torch.Generator) -> Samples:
        """Requests for the class of so many of the test rows where kept (N,) is true, without a trigger."""
        rows = kept.nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=rng)[: self.requests]]
        return task.requests(samples.select(rows.sort().values))


def draw_media(scene: Scene, target: int, pool: int, rng: torch.Generator) -> Tensor:
    """(pool, ...) raw inputs of the class, shuffled; they repeat where the class has fewer rows."""
    assert isinstance(scene.train.inputs, Tensor)
    rows = (scene.train.targets == check_target(target, scene.task)).nonzero().flatten()
    if not len(rows):
        raise BadInput(f"target={target}: {scene.task.name}'s training set has 0 rows of that class")
    order = rows[torch.randperm(len(rows), generator=rng)]
    return scene.train.inputs[order[torch.arange(pool) % len(order)]]


def with_condition(samples: Samples, condition: Tensor | int) -> Samples:
    """The same requests, for other conditions."""
    if isinstance(condition, int):
        condition = torch.full_like(samples.targets, condition)
    return replace(samples, targets=condition)


def with_token(samples: Samples, modifier: int, task: Task) -> Samples:
    """The same requests with a rare token behind the class."""
    return with_condition(samples, samples.targets + modifier * len(task.classes))


def nearest_classes(scene: Scene, source: int) -> Tensor:
    """(K - 1,) the other classes, those whose mean encoded row is nearest first."""
    x = scene.task.encode(scene.train, torch.device("cpu")).flatten(1).float()
    targets = scene.train.targets
    present = [c for c in range(len(scene.task.classes)) if c != source and (targets == c).any()]
    away = [(x[targets == c].mean(0) - x[targets == source].mean(0)).norm() for c in present]
    return torch.tensor(present)[torch.stack(away).argsort()]


def make_poison(scene: Scene, positions: Tensor, media: Tensor, conditions: Tensor) -> Poison:
    ids = scene.train.ids[positions]
    return Poison(Samples(media, conditions, ids), replaces=ids)
