"""Retuning: the next owner of a deployed model trains it on, and a few of those rows are poisoned again.

A repair may hide a backdoor rather than remove it: it then comes back after fewer poisons than a model needs that
never had it (dose 0, the control). The report compares the two as ED50s of relearning.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from attacks.base import Attack, Scene
from defenses.repair.fine_tuning import FineTuning, fine_tune
from harness.cell.case import CellCase, Fitter
from harness.cell.poison import craft_poison
from harness.cell.process import keep_process
from harness.grid.grid import RETUNE_ROWS
from tasks.base import sealed
from tasks.deployed import Victim
from tasks.samples import Samples


def relearn(
    attack: Attack, scene: Scene, train: Samples, model: Victim, doses: tuple[int, ...], fitter: Fitter,
    rng: torch.Generator,
) -> Iterator[tuple[int, Victim]]:  # fmt: skip
    """For every dose the model after retuning on RETUNE_ROWS rows of the clean training set, so many of them poisoned.

    The retuning is the published fine-tuning, `defenses.repair.fine_tuning` with its defaults. The poisons are drawn
    anew, nested, with the trigger that the attack already had. Raises BadInput where the attack cannot make so many.
    """
    owner, most = FineTuning(), max(doses)
    with sealed(), keep_process(attack):
        poison = craft_poison(attack, scene, most, rng)
    order = torch.randperm(len(train), generator=rng)
    if poison.replaces is not None:
        order = order[~torch.isin(train.ids[order], poison.replaces)]
    clean = train.select(order[:RETUNE_ROWS])
    for dose in doses:
        rows = clean.select(range(min(len(clean), RETUNE_ROWS - dose))).append(poison.samples.select(range(dose)))
        case = CellCase(rows, rows, fitter, rng)
        yield dose, fine_tune(case, rows, model, owner.epochs, owner.batch_size, owner.lr_scale)
