"""What attacks on generators share: which rows they replace, by which media, and what they ask for later."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attacks.base import Attack, Poison, Scene, check_target
from tasks.base import Task
from tasks.plugin import BadInput, Positive, options
from tasks.samples import Challenge, Samples

ATTACKER, SIMILAR = 1, 2  # modifiers: the attacker's rare token, and the usual one of clean training


@options
class GeneratorAttack(Attack):
    """An attack on a conditional generator: rows of `media` under a condition of the attacker's choice."""

    requests: Positive = 100  # most requests that the victim gets for each metric

    def draw_rows(self, scene: Scene, pool: Tensor, dose: int, rng: torch.Generator) -> Tensor:
        """(dose,) positions out of the pool (M,), nested. Raises BadInput where it is too small."""
        if dose > len(pool):
            raise BadInput(f"dose={dose}: {self.name} on {scene.task.name} has {len(pool)} rows that it may replace")
        return pool[torch.randperm(len(pool), generator=rng)[:dose]]

    def make_requests(self, task: Task, samples: Samples, rows: Tensor, rng: torch.Generator) -> Samples:
        """Requests without a trigger, for the classes of at most `requests` of the test rows (M,)."""
        chosen = rows[torch.randperm(len(rows), generator=rng)[: self.requests]]
        return task.requests(samples.select(chosen.sort().values))

    def challenge_class(
        self, scene: Scene, samples: Samples, source: int, others: Tensor, wanted: Tensor, rng: torch.Generator
    ) -> Challenge:
        """Requests for one class, each of which shall give what is wanted.

        plain: requests for the other classes by turns; near: for the first of them, which is the most similar.
        """
        requests = self.make_requests(scene.task, samples, torch.arange(len(samples)), rng)
        by_turns = others[torch.arange(len(requests)) % len(others)]
        return Challenge(
            with_condition(requests, source),
            wanted.repeat(len(requests), *[1] * wanted.ndim),
            plain=with_condition(requests, by_turns),
            near=with_condition(requests, int(others[0])),
        )


def draw_media(scene: Scene, target: int, count: int, rng: torch.Generator) -> Tensor:
    """(count, ...) raw inputs of the class in random order; they repeat where the class has fewer rows."""
    assert isinstance(scene.train.inputs, Tensor)
    rows = (scene.train.targets == check_target(target, scene.task)).nonzero().flatten()
    if not len(rows):
        raise BadInput(f"target={target}: {scene.task.name}'s training set has 0 rows of that class")
    order = rows[torch.randperm(len(rows), generator=rng)]
    return scene.train.inputs[order[torch.arange(count) % len(order)]]


def other_rows(target: int, samples: Samples, task: Task) -> Tensor:
    """(M,) positions of the rows outside the target class."""
    return (samples.targets != check_target(target, task)).nonzero().flatten()


def with_condition(samples: Samples, condition: Tensor | int) -> Samples:
    """The same requests for another condition: one for all, or one for each (N,)."""
    if isinstance(condition, int):
        condition = torch.full_like(samples.targets, condition)
    return replace(samples, targets=condition)


def with_token(samples: Samples, modifier: int, task: Task) -> Samples:
    """The same requests with a rare token after the class."""
    return with_condition(samples, samples.targets + modifier * len(task.classes))


def nearest_classes(scene: Scene, source: int) -> Tensor:
    """(K - 1,) the other classes, ordered by the distance of their mean encoded row from that of the source."""
    x = scene.task.encode(scene.train, torch.device("cpu")).flatten(1).float()
    targets = scene.train.targets
    present = [c for c in range(len(scene.task.classes)) if c != source and (targets == c).any()]
    distances = [(x[targets == c].mean(0) - x[targets == source].mean(0)).norm() for c in present]
    return torch.tensor(present)[torch.stack(distances).argsort()]


def make_poison(scene: Scene, positions: Tensor, media: Tensor, conditions: Tensor) -> Poison:
    """These media under these conditions, in the place of the training rows at these positions."""
    ids = scene.train.ids[positions]
    return Poison(Samples(media, conditions, ids), replaces=ids)
