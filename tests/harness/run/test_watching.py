"""What a run shows on a terminal, and what it shows elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml
from helpers import ROOT, command, invoke
from rich.console import Console

from harness.grid.grid import expand
from harness.grid.mapping import grid_from_mapping
from harness.run import memory
from harness.run.event import Began, Deferred, Ended
from harness.run.execute import execute
from harness.run.live import ROWS, LiveView, show_progress
from harness.run.plan import make_plan
from harness.run.progress import Progress
from harness.run.record_cell import blank_record
from harness.run.settings import Settings
from harness.store.folder import Store

TASK = {"name": "digits", "train_size": 150, "epochs": 1, "test_size": 60, "reserve_size": 60}
GRID = {"tasks": [TASK], "attacks": ["badnets"], "doses": [0, 4], "defenses": ["none", "oracle"], "seeds": [0]}


def drawn(progress: Progress, width: int = 100) -> str:
    page = StringIO()
    Console(force_terminal=True, width=width, file=page, color_system=None).print(LiveView(progress))
    return page.getvalue()


def test_a_run_is_drawn_while_it_goes_on(tmp_path: Path) -> None:
    plan = make_plan(grid_from_mapping(GRID), Store(tmp_path))
    page = StringIO()
    seen = []
    with show_progress(Console(force_terminal=True, width=100, file=page), len(plan.missing)) as progress:
        for event in execute(plan, Settings(store=str(tmp_path), threads=1), jobs=0):
            progress.update(event)
            seen.append(drawn(progress))
    assert "0/4 cells, 0 done, 1 running, 0 failed" in seen[0]
    assert f"{os.getpid()}" in seen[0], "its worker"
    assert "/badnets/0/none/0" in seen[0].replace("\n", "").replace(" ", ""), "its cell"
    assert "time left unknown" in seen[0]
    assert "4/4 cells, 4 done, 0 running, 0 failed" in seen[-1]
    assert "cells a minute" in seen[-1]
    assert "about 0 s left" in seen[-1]
    assert "memory: driver " in seen[-1]
    assert "4/4 cells" in page.getvalue()
    assert all(len(line) <= 100 for text in seen for line in text.splitlines())


def test_workers_are_listed_and_what_failed_is_said() -> None:
    cells = expand(grid_from_mapping({**GRID, "seeds": list(range(10))}))
    page = StringIO()
    progress = Progress(Console(width=200, file=page), len(cells), live=True)
    for i, cell in enumerate(cells[: ROWS + 3]):
        progress.update(Began(cell, worker=70000 + i))
    text = drawn(progress, 200)
    assert "70000" in text
    assert cells[0].label in text
    assert f"{70000 + ROWS}" not in text
    assert "and 3 more workers" in text
    record = blank_record(cells[0])
    record.reason = "[/red] is no colour"
    progress.update(Ended(cells[0], record))
    progress.update(Deferred(cells[1]))
    assert page.getvalue().splitlines() == [
        f"failed {cells[0].label}: [/red] is no colour",
        f"{cells[1].label}: out of memory beside others, runs again alone",
    ]
    text = drawn(progress, 200)
    assert "70000" not in text
    assert "70001" not in text
    assert f"1/{len(cells)} cells, 0 done, {ROWS + 1} running, 1 failed" in text


def test_memory_is_measured() -> None:
    source, pipe = "print(flush=True); input()", subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", source], stdin=pipe, stdout=pipe)
    assert child.stdout is not None
    child.stdout.readline()  # it has started
    try:
        found = memory.process_memory()
    finally:
        child.communicate(b"\n")
    assert found[child.pid] > 1 << 20
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    assert found[os.getpid()] == pytest.approx(resident, rel=0.05)  # what the kernel itself says
    assert not torch.cuda.is_initialized()


def test_gpus_are_read_without_a_context_of_our_own() -> None:
    found = memory.gpu_memory()
    assert all(0 <= gpu.used <= gpu.total for gpu in found)
    assert bool(found) >= torch.cuda.is_available()
    assert not torch.cuda.is_initialized()
    said = "1024, 143771\n0, 143771\n[N/A], [N/A]\n"  # nvidia-smi's words
    assert memory.parse_gpu_memory(said) == [memory.Gpu(1 << 30, 143771 << 20), memory.Gpu(0, 143771 << 20)]
    assert memory.parse_gpu_memory("") == []


def test_the_command_on_a_terminal_and_off_it(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump({**GRID, "doses": [4]}))
    words = ("run", file, "--jobs", 1, "--out")
    driver, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    seen = command(*words, tmp_path / "seen")
    process = subprocess.Popen(seen, cwd=ROOT, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    while chunk := read(driver):
        shown += chunk
    os.close(driver)
    assert process.wait() == 0
    text = shown.decode()
    assert "\x1b[" in text
    assert "2/2 cells, 2 done, 0 running, 0 failed" in text
    assert "workers " in text
    assert "about 0 s left" in text
    plain = invoke("run", file, "--jobs", 0, "--out", tmp_path / "plain")
    assert plain.exit_code == 0
    assert "2/2 cells, 2 done, 0 running, 0 failed, about 0 s left\n" in plain.stdout
    assert "\x1b[" not in plain.stdout
    assert "cells a minute" not in plain.stdout


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""
