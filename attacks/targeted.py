"""Targeted attacks: one test instance shall be taken for a chosen class. They run over trials drawn beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, TypedDict

import torch
from torch import Tensor

from attacks._crafting.blocks import Job, craft_in_blocks, make_job
from attacks.base import Attack, Poison, Scene, Trial
from tasks.base import Task
from tasks.caches import cached
from tasks.plugin import BadInput, FileName, NotApplicable, Positive, expand_path, options
from tasks.samples import Challenge, Samples, Splits

FROZEN = Path(__file__).parent / "trials"  # <task>.json


class Row(TypedDict):
    """A trial, as a file of trials holds it."""

    target: int  # id of a test row
    wanted: int  # class
    bases: list[int]  # ids of training rows of that class


@options
class TargetedAttack(Attack):
    """Poisons made of the trial's base rows, against the trial's target. A targeted attack writes `craft`.

    The cell's seed names the trial, so that a grid over seeds 0 to 19 is twenty targets with a fresh victim each
    (Schwarzschild et al. 2021, arXiv 2006.12557, section 3). Success is one answer per trial.
    """

    alters: ClassVar[tuple[str, ...]] = ("poison",)  # the challenge is the target as it is

    clean_label: bool = True  # the bases are of the wanted class and keep their labels

    trials: FileName = ""  # a JSON file of trials (`tinydrop trials`); empty: the suite's own

    @property
    def targeted(self) -> bool:
        """Whether it needs a trial; False for a variant that aims at a class."""
        return True

    def files(self) -> list[str]:
        return [*super().files(), str(FROZEN)]

    def craft(self, scene: Scene, trial: Trial, bases: Samples, rng: torch.Generator) -> Samples:
        """The bases as poison, in the same order: a smaller dose takes the first of them."""
        raise NotImplementedError(f"{type(self).__name__} must define craft()")

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        trial = trial_of(scene)
        if dose > len(trial.bases):
            raise BadInput(f"dose={dose}: a trial of {self.name} on {scene.task.name} has {len(trial.bases)} rows")
        bases = scene.train.select(scene.train.positions(trial.bases)[:dose])
        crafted = self.craft(scene, trial, bases, rng) if dose else bases
        return Poison(crafted, replaces=bases.ids)

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        trial = trial_of(scene)
        return Challenge(trial.target, torch.tensor([trial.wanted]), trial.target.targets)


@options
class BlockAttack(TargetedAttack):
    """A trial's base rows are crafted `block` at a time: the first block, the next, ... whatever the dose.

    So doses are nested: one that ends within a block takes its first rows. A block attack writes `craft_block`.
    """

    block: Positive = 5  # rows crafted together

    def craft_block(self, scene: Scene, trial: Trial, rows: Samples, rng: torch.Generator) -> Samples:
        """One block as poison, in the same order, made without the other blocks."""
        raise NotImplementedError(f"{type(self).__name__} must define craft_block()")

    def craft(self, scene: Scene, trial: Trial, bases: Samples, rng: torch.Generator) -> Samples:
        return craft_in_blocks(make_job(self, scene, rng), len(bases), self.block, _craft_block)


@cached(maxsize=32)
def _craft_block(job: Job[BlockAttack], number: int) -> Samples:
    """One block of poisons, shared by all doses of a trial."""
    attack, train, trial = job.attack, job.scene.train, trial_of(job.scene)
    ids = trial.bases[number * attack.block : (number + 1) * attack.block]
    return attack.craft_block(job.scene, trial, train.select(train.positions(ids)), job.rng(number))


def trial_of(scene: Scene) -> Trial:
    """The scene's trial; raises ValueError where it has none."""
    if scene.trial is None:
        raise ValueError("a targeted attack needs scene.trial")
    return scene.trial


def find_trial(attack: TargetedAttack, task: Task, splits: Splits, number: int) -> Trial:
    """Trial `number` of a task. Raises NotApplicable where the task has none, BadInput for one that cannot be run."""
    path = expand_path(attack.trials) if attack.trials else FROZEN / f"{task.name}.json"
    if not path.is_file():
        if attack.trials:
            raise BadInput(f"{attack.name}.trials={attack.trials!r}: no such file; `tinydrop trials` writes one")
        raise NotApplicable(f"{task.name} has no frozen trials; `tinydrop trials {task.name}` makes some")
    rows = read_trials(path)
    if number >= len(rows):
        raise BadInput(f"seed={number}: {path.name} has trials 0 to {len(rows) - 1}, one for each seed")
    row = rows[number]
    try:
        target = splits.test.select(splits.test.positions(torch.tensor([row["target"]])))
        splits.train.positions(torch.tensor(row["bases"]))
    except KeyError as error:
        raise BadInput(
            f"trial {number} of {path.name}: {error.args[0]}; trials go with the subset_seed and reserve_size, and "
            f"at least the train_size and test_size, that they were made for; `tinydrop trials` makes others"
        ) from None
    return Trial(target, row["wanted"], torch.tensor(row["bases"]))


@cached(maxsize=8)
def read_trials(path: Path) -> list[Row]:
    """The trials of a file. Raises BadInput where it is not a list of {target, wanted, bases}."""
    try:
        return [
            Row(target=int(row["target"]), wanted=int(row["wanted"]), bases=[int(i) for i in row["bases"]])
            for row in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{path}: not a list of {{target, wanted, bases}} ({error!r})") from None


def draw_trial(splits: Splits, classes: int, bases: int, rng: torch.Generator) -> Trial:
    """A random trial: any test row, any class but its own, and `bases` training rows of that class."""
    position = int(torch.randint(len(splits.test), (), generator=rng))
    target = splits.test.select([position])
    wanted = int(torch.randint(classes - 1, (), generator=rng))
    wanted += wanted >= int(target.targets)
    pool: Tensor = splits.train.ids[splits.train.targets == wanted]
    return Trial(target, wanted, pool[torch.randperm(len(pool), generator=rng)[:bases]])
