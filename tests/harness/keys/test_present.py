"""A victim's key counts what is in memory when it is asked for: rows, and the values that a loss reads."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module, invalidate_caches
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.cell.case import Fitter
from harness.keys.content import digest
from harness.plugins.registry import create
from harness.store.folder import Store
from tasks.samples import Samples

NUMBERS = count()
LOSSES = """
import logging
import threading
from typing import Any

import torch
from defenses.base import Defense
from tasks.plugin import options

LAM = {"v": 0.0}
NESTED = [1, (2.0, {"lock": threading.Lock()})]
NESTED.append(NESTED)
LOG = logging.getLogger("losses")


class Settings:
    rate = 1


def plain(module: Any, batch: Any) -> Any:
    LOG.info("called")
    return LAM["v"], NESTED, Settings.rate


def through_another(module: Any, batch: Any) -> Any:
    return plain(module, batch)


@options
class WithLoss(Defense):
    share: float = 0.5

    def loss(self, module: Any, batch: Any) -> Any:
        return self._inner() * self.share

    def _inner(self) -> Any:
        return LAM["v"]
"""


@pytest.fixture
def losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    name = f"losses_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(LOSSES)
    monkeypatch.syspath_prepend(str(tmp_path))
    invalidate_caches()
    yield import_module(name)
    del sys.modules[name]


def test_rows_that_were_changed_in_place_have_another_key() -> None:
    rows = Samples(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.arange(3), torch.arange(3))
    before = digest(rows)
    assert digest(rows) == before
    rows.targets[:] = 0
    changed = digest(rows)
    assert changed != before
    rows.inputs[0] += 1  # type: ignore[index, operator]
    assert digest(rows) not in (before, changed)


def test_a_defense_that_changes_rows_in_place_gets_another_victim(tmp_path: Path) -> None:
    task: Any = create("tasks", "digits", {"train_size": 60, "epochs": 1})
    fit = Fitter(task, Store(tmp_path), torch.device("cpu"), 0)
    rows = task.load().reserve.select(range(20))
    before = fit(rows)
    rows.targets[:] = 0
    after = fit(rows)
    assert not torch.equal(before.predict(rows).scores, after.predict(rows).scores)  # type: ignore[arg-type]
    assert len(fit.used) == 2


@pytest.mark.parametrize("of", ["plain", "through_another", "partial", "method"])
def test_globals_that_a_loss_reads_count(of: str, losses: Any) -> None:
    loss = {"partial": partial(losses.plain, 3), "method": losses.WithLoss().loss}.get(of) or getattr(losses, of)
    before = digest(loss)
    assert digest(loss) == before
    losses.LAM["v"] = 5.0
    assert digest(loss) != before
    losses.LAM["v"] = 0.0
    assert digest(loss) == before


def test_data_inside_lists_counts_and_locks_and_loggers_do_not(losses: Any) -> None:
    before = digest(losses.plain)
    losses.LOG = logging.getLogger("another")
    assert digest(losses.plain) == before
    losses.NESTED[0] = 2
    changed = digest(losses.plain)
    losses.Settings.rate = 3
    assert len({before, changed, digest(losses.plain)}) == 3


def test_what_a_method_s_object_holds_beyond_its_options_counts(losses: Any) -> None:
    plugin = losses.WithLoss()
    found = [digest(plugin.loss)]
    for value in (0.0, 5.0, torch.ones(2), np.ones(2), np.zeros(2)):
        object.__setattr__(plugin, "lam", value)
        found.append(digest(plugin.loss))
    assert len(set(found)) == 6
    assert digest(plugin) == digest(losses.WithLoss()), "a cell's key counts options alone"
