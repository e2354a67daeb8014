"""What a cell printed: kept where it failed, by whatever way it ended."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ROOT, tinydrop
from typer.testing import CliRunner

from harness.cli.app import app
from harness.grid.grid import expand
from harness.grid.mapping import grid_from_mapping
from harness.run import cell_log
from harness.run.event import Began, CellEvent
from harness.store import maintenance
from harness.store.folder import Store
from harness.store.records import Record, load_all, save

TALKATIVE = '''
"""Says something in every way there is, and ends as it is told."""

import os
import signal
import subprocess
import sys
import time
import warnings
from typing import ClassVar

from defenses.base import Case, Defense
from tasks.plugin import options
from tasks.deployed import Model


@options
class Talkative(Defense):
    """Talks."""

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "training"

    end: str = "well"

    def defend(self, case: Case) -> Model:
        print(f"printed before it ended {self.end}")
        print("to stderr", file=sys.stderr)
        warnings.warn("warned", stacklevel=2)
        os.write(1, b"from native code\\n")
        subprocess.run(["echo", "from a child"], check=True)
        if self.end == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.end == "crashed":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.end == "late":
            signal.setitimer(signal.ITIMER_REAL, 0.1)  # its time is up sooner than the grid says
            time.sleep(60)
        if self.end == "badly":
            raise RuntimeError("a bad end")
        return case.fit(case.train)
'''
GRID = """
tasks: [{name: digits, train_size: 150, epochs: 1, test_size: 60, reserve_size: 60}]
attacks: [badnets]
doses: [3]
defenses: [talkative, {name: talkative, end: badly}, {name: talkative, end: killed},
           {name: talkative, end: crashed}, {name: talkative, end: late}]
seeds: [0]
timeout: 120
"""
SAID = ("to stderr", "UserWarning: warned", "from native code", "from a child")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("logs")
    (folder / "talkative.py").write_text(TALKATIVE)
    (folder / "grid.yaml").write_text(GRID)
    words = ("run", folder / "grid.yaml", "--out", folder / "run", "--jobs", 1, "--plugin", folder / "talkative.py")
    return Store(folder / "run"), tinydrop(*words)


def shown(store: Store, record: Record) -> str:
    return CliRunner().invoke(app, ["show", str(store.root), record.key]).output


def cell(store: Store, end: str) -> Record:
    return next(r for r in load_all(store).values() if r.defense.options["end"] == end)


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        ("badly", "failed", "RuntimeError: a bad end"),
        ("killed", "failed", "the worker process died: signal 9 (out of memory?)"),
        ("crashed", "failed", "the worker process died: signal 11"),
        ("late", "timed out", "more than 120 s (the grid's `timeout`)"),
    ],
)
def test_what_a_failed_cell_said_is_kept(
    ended: tuple[Store, subprocess.CompletedProcess[str]], end: str, status: str, reason: str
) -> None:
    store, done = ended
    record = cell(store, end)
    assert (record.status, record.reason) == (status, reason)
    log = store.log_path(record.key).read_text()
    assert [said for said in (f"printed before it ended {end}", *SAID) if said not in log] == []
    assert log.count("printed before") == 1, "of this cell alone"
    assert f"before it ended {end}" not in done.stdout + done.stderr
    assert f"what it printed: {store.log_path(record.key)}" in shown(store, record)
    if end == "crashed":
        assert "Fatal Python error: Segmentation fault" in log
        assert "talkative.py" in log, "and where it was"


def test_of_a_cell_that_is_done_nothing_is_kept(ended: tuple[Store, subprocess.CompletedProcess[str]]) -> None:
    store, done = ended
    record = cell(store, "well")
    assert record.status == "done"
    assert not store.log_path(record.key).exists()
    assert len(list((store.root / "logs").iterdir())) == 4
    assert [said for said in ("printed before it ended well", *SAID) if said not in done.stderr] == [], "passed on"
    assert "what it printed" not in shown(store, record)


def test_verify_does_not_mind_and_gc_removes_what_is_of_no_use(
    ended: tuple[Store, subprocess.CompletedProcess[str]],
) -> None:
    store, _ = ended
    assert maintenance.verify(store).problems == []
    assert maintenance.find_unreferenced(store) == []
    again = cell(store, "badly")
    kept = store.log_path(again.key)
    save(store, again.model_copy(update={"status": "done", "reason": "", "traceback": ""}))  # as a retry would
    store.log_path("a" * 32).write_text("of a run that was killed")
    assert maintenance.find_unreferenced(store) == sorted([f"logs/{kept.name}", f"logs/{'a' * 32}.txt"])
    assert CliRunner().invoke(app, ["gc", str(store.root)]).exit_code == 0
    assert not kept.exists()
    assert len(list((store.root / "logs").iterdir())) == 3
    assert maintenance.verify(store).problems == []


LOUD = """
import os, sys
from pathlib import Path
from harness.run import cell_log
for i in range(5):
    with cell_log.redirect_output(Path(sys.argv[1])):
        os.write(1, bytes([97 + i]) * cell_log.LIMIT)
        print("the end")
print("after", os.dup(1))
"""


def test_a_log_is_bounded_and_ends_with_the_newest(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    done = subprocess.run([sys.executable, "-c", LOUD, log], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "after 3\n", "what follows goes where it went before, and no descriptor is left open"
    text = log.read_text()
    assert text.startswith("[...]\n")
    assert text.endswith("eeethe end\n")
    assert cell_log.LIMIT // 2 < len(text) < cell_log.LIMIT


def test_a_disk_that_is_full_leaves_no_log(tmp_path: Path) -> None:
    store = Store(tmp_path)
    grid = {"tasks": ["digits"], "attacks": ["badnets"], "doses": [3], "defenses": ["none"], "seeds": [0]}
    (one,) = expand(grid_from_mapping(grid))

    def stopped() -> Iterator[CellEvent]:
        yield Began(one)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        list(cell_log.log_output(stopped(), store))
    assert list((tmp_path / "logs").iterdir()) == []
