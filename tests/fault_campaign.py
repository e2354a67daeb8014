"""Kill runs at random moments, resume them, and compare: `python tests/fault_campaign.py [kills] [seed]`.

A driver gets SIGKILL, SIGTERM or SIGINT, or one of its workers SIGKILL; sometimes two drivers share the folder. Where
libfaketime is installed, the clock of a driver and its workers jumps, too. A run that got through is retried, verified
against its ledger and compared with an undisturbed one, times aside. Prints a Markdown table.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parent.parent
GRID = {
    "tasks": [{"name": "digits", "train_size": 300, "epochs": 4, "test_size": 100}], "attacks": ["badnets", "blended"],
    "doses": [0, 5, 20], "defenses": ["none", "random_filter", "spectral_signatures"], "seeds": [0, 1],
}  # fmt: skip
CELLS = 36
TIMES = ["seconds", "fit_seconds", "commit"]
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
JUMPS = ["+1h", "-1h", "+3d", "-3d"]


class Driver(NamedTuple):
    process: subprocess.Popen[bytes]
    clock: Path  # what is added to the time that it and its workers see


def command(verb: str, *words: object) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "harness.cli", verb, *map(str, words)]


def start(grid: Path, folder: Path, clock: Path) -> Driver:
    clock.write_text("+0\n")
    faked = {"FAKETIME_TIMESTAMP_FILE": clock, "FAKETIME_NO_CACHE": 1, "FAKETIME_DONT_FAKE_MONOTONIC": 1}
    env = {"LD_PRELOAD": FAKETIME, "NO_FAKE_STAT": 1, **faked} if FAKETIME else {}
    words = command("run", grid, "--out", folder, "--jobs", 2)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environ = os.environ | {name: str(value) for name, value in env.items()}
    return Driver(subprocess.Popen(words, cwd=ROOT, env=environ, **quiet), clock)


def tinydrop(verb: str, *words: object) -> None:
    subprocess.run(command(verb, *words), cwd=ROOT, check=True, capture_output=True)


def workers(driver: int) -> list[int]:
    """Processes that the driver has spawned to run cells."""
    found = subprocess.run(
        ["pgrep", "-P", str(driver), "-f", "spawn_main"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def hit(driver: Driver, dice: random.Random) -> str:
    """One fault; what it was, or nothing if the run had ended before."""
    if driver.process.poll() is not None:
        return ""
    running = workers(driver.process.pid)
    kinds = ["driver KILL", "driver TERM", "driver INT", "worker KILL"] if running else ["driver KILL"]
    kind = dice.choice([*kinds, "clock jumps"] if FAKETIME else kinds)
    if kind == "clock jumps":
        driver.clock.write_text(dice.choice(JUMPS) + "\n")
        return kind
    target = dice.choice(running) if kind.startswith("worker") else driver.process.pid
    os.kill(target, getattr(signal, f"SIG{kind.split()[1]}"))
    return kind


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "report" / "cells.csv").drop(columns=TIMES)


def campaign(kills: int, seed: int, folder: Path) -> tuple[Counter[str], int]:
    """Faults by kind, and how many runs were finished and found the same."""
    dice, grid = random.Random(seed), folder / "grid.yaml"
    grid.write_text(yaml.safe_dump(GRID))
    began = time.monotonic()
    subprocess.run(
        command("run", grid, "--out", folder / "whole", "--jobs", 2), cwd=ROOT, check=True, capture_output=True
    )
    usual = time.monotonic() - began
    counts: Counter[str] = Counter()
    finished = 0
    while counts.total() < kills:
        run = folder / f"run{finished}"
        ended = False
        while not ended:
            drivers = [start(grid, run, folder / f"clock{n}") for n in range(dice.choice([1, 1, 1, 2]))]
            time.sleep(dice.uniform(0, usual))
            if counts.total() < kills:
                for driver in drivers[: dice.choice([1, 2])]:
                    if kind := hit(driver, dice):
                        counts[kind] += 1
            codes = [driver.process.wait() for driver in drivers]
            ended = any(code in (0, 1) for code in codes)
        check(run, folder / "whole")
        finished += 1
        print(f"{counts.total()} faults, {finished} runs the same as the undisturbed one", file=sys.stderr, flush=True)
    return counts, finished


def check(run: Path, whole: Path) -> None:
    """Retry what a killed worker left, then: nothing lost, nothing doubled, nothing damaged, the same numbers."""
    tinydrop("retry", run, "--jobs", 2)
    tinydrop("verify", run)
    tinydrop("gc", run)
    assert not list(run.rglob("*.tmp"))
    ours = table(run)
    assert len(ours) == CELLS, f"{len(ours)} cells"
    pd.testing.assert_frame_equal(ours, table(whole))


def main(kills: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        counts, finished = campaign(kills, seed, Path(folder))
    print("| fault | times |\n|---|---|")
    for kind, n in sorted(counts.items()):
        print(f"| {kind} | {n} |")
    print(f"| all, over {finished} runs: every final table equal, no record lost or doubled | {counts.total()} |")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*given, *(50, 0)[len(given) :])
