"""Break runs at random moments, resume them, and compare:
`PYTHONPATH=. python tests/campaigns/fault_campaign.py [faults] [seed] [place]`.

place: folder (the default), url (every driver is a machine of its own at one URL) or ray (nodes of a cluster are lost).
A driver gets SIGKILL, SIGTERM or SIGINT once or twice, a worker SIGKILL; a record or an artefact is cut or a bit of it
falls over; the disk is full (as root: of a file system of its own); the clock jumps (with libfaketime); sometimes two
drivers share the run. It is started again until it ends, what a killed worker left is retried, what `tinydrop verify`
finds damaged is removed and run again, and the table is compared with that of an undisturbed run, times aside. Prints a
Markdown table.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[2]
GRID = {
    "tasks": [{"name": "digits", "train_size": 300, "epochs": 4, "test_size": 100}], "attacks": ["badnets", "blended"],
    "doses": [0, 5, 20], "defenses": ["none", "random_filter", "spectral_signatures"], "seeds": [0, 1],
}  # fmt: skip
CELLS = 36
COSTS = ["seconds", "fit_seconds", "peak_memory_bytes", "commit"]
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
JUMPS = ["+1h", "-1h", "+3d", "-3d"]
DISK = "256m"  # size of the file system that gets full


class Driver(NamedTuple):
    process: subprocess.Popen[bytes]
    clock: Path  # what is added to the time that it and its workers see
    folder: Path  # where it keeps files


class Place:
    """A folder; drivers work on it directly."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, 0

    def begin(self) -> None:
        self.runs += 1
        self.run = self.folder / f"run{self.runs}"

    def words(self) -> list[object]:
        return ["--out", self.run, "--jobs", 2]

    def environment(self, driver: int) -> dict[str, str]:
        return {}

    def files(self, driver: int) -> Path:
        return self.run

    def faults(self, driver: Driver, dice: random.Random) -> dict[str, Callable[[], Any]]:
        """What may happen now, by name."""
        found = {
            "driver, SIGKILL": lambda: driver.process.kill(),
            "driver, SIGTERM": lambda: driver.process.terminate(),
            "driver, Ctrl-C": lambda: driver.process.send_signal(signal.SIGINT),
            "driver, Ctrl-C twice": lambda: twice(driver.process),
        }
        if running := workers(driver.process.pid):
            found["worker, SIGKILL"] = lambda: os.kill(dice.choice(running), signal.SIGKILL)
        if FAKETIME:
            found["clock jumps by an hour or three days"] = lambda: driver.clock.write_text(dice.choice(JUMPS) + "\n")
        for what, pattern in (("record", "records/*.json"), ("artefact", "artefacts/*/*.safetensors")):
            if files := sorted(driver.folder.glob(pattern)):
                found[f"{what} cut short"] = lambda files=files: damage(dice.choice(files), lambda d: d[: len(d) // 2])
                found[f"{what}, a bit falls over"] = lambda files=files: damage(dice.choice(files), partly(dice))
        if os.path.ismount(self.folder):
            found["disk full"] = lambda: fill(self.folder / "ballast", driver.process)
        return found


class Url(Place):
    """A URL; every driver has a working copy of its own, as another machine would."""

    def words(self) -> list[object]:
        return ["--out", f"file://{self.run}/url", "--jobs", 2]  # threads a worker, so the same bits

    def environment(self, driver: int) -> dict[str, str]:
        return {"TINYDROP_CACHE": str(self.run / f"machine{driver}"), "TINYDROP_LEASE": "8"}

    def files(self, driver: int) -> Path:
        (copy,) = list((self.run / f"machine{driver}").glob("*")) or [self.run]
        return copy


class Cluster(Place):
    """A folder, and a Ray cluster of three nodes on this machine, two of which are lost and come again."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        super().__init__(folder)
        self.ray = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.nodes = [self.ray.add_node(num_cpus=1) for _ in range(2)]
        self.ray.wait_for_nodes()

    def words(self) -> list[object]:
        return ["--out", self.run, "--executor", "ray", "--address", self.ray.address, "--device", "cpu"]

    def faults(self, driver: Driver, dice: random.Random) -> dict[str, Callable[[], Any]]:
        def lose() -> None:
            self.ray.remove_node(self.nodes.pop(dice.randrange(2)), allow_graceful=False)
            self.nodes.append(self.ray.add_node(num_cpus=1))

        return {"Ray node lost": lose, "Ray driver, SIGKILL": lambda: driver.process.kill()}


PLACES = {"folder": Place, "url": Url, "ray": Cluster}


def twice(process: subprocess.Popen[bytes]) -> None:
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)


def damage(file: Path, change: Callable[[bytes], bytes]) -> None:
    with suppress(FileNotFoundError):
        file.write_bytes(change(file.read_bytes()))


def partly(dice: random.Random) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        at = dice.randrange(len(data)) if data else 0
        return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :] if data else data

    return change


def fill(ballast: Path, process: subprocess.Popen[bytes]) -> None:
    """Leave no room until the driver has noticed."""
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    with suppress(subprocess.TimeoutExpired):
        process.wait(60)
    ballast.unlink()


def command(verb: str, *words: object) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "harness.cli", verb, *map(str, words)]


def start(grid: Path, place: Place, n: int) -> Driver:
    clock = place.folder / f"clock{n}"
    clock.write_text("+0\n")
    faked = {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    clocks = {"LD_PRELOAD": str(FAKETIME), "NO_FAKE_STAT": "1", **faked} if FAKETIME else {}
    environment = {**os.environ, **(clocks if not isinstance(place, Cluster) else {}), **place.environment(n)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command("run", grid, *place.words()), cwd=ROOT, env=environment, **quiet)
    return Driver(process, clock, place.files(n))


def tinydrop(verb: str, *words: object, environment: dict[str, str] | None = None) -> int:
    done = subprocess.run(command(verb, *words), cwd=ROOT, env={**os.environ, **(environment or {})},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def workers(driver: int) -> list[int]:
    """Processes that the driver has spawned to run cells."""
    found = subprocess.run(
        ["pgrep", "-P", str(driver), "-f", "spawn_main"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "report" / "cells.csv").drop(columns=COSTS)


def campaign(faults: int, dice: random.Random, place: Place) -> tuple[Counter[str], int]:
    """Faults by kind, and how many runs were finished and found the same."""
    grid, whole = place.folder / "grid.yaml", place.folder / "whole"
    grid.write_text(yaml.safe_dump(GRID))
    began = time.monotonic()
    assert tinydrop("run", grid, "--out", whole, "--jobs", 2) == 0
    usual = time.monotonic() - began
    counts: Counter[str] = Counter()
    while counts.total() < faults:
        place.begin()
        ended = False
        while not ended:
            drivers = [start(grid, place, n) for n in range(dice.choice([1, 1, 1, 2]))]
            while alive := [driver for driver in drivers if driver.process.poll() is None]:
                if counts.total() < faults:
                    time.sleep(dice.uniform(0, usual / 2))
                    driver = dice.choice(alive)
                    possible = place.faults(driver, dice)
                    kind = dice.choice(sorted(possible))
                    if driver.process.poll() is None:
                        possible[kind]()
                        counts[kind] += 1
                else:
                    alive[0].process.wait()
            codes = [driver.process.wait() for driver in drivers]
            ended = any(code in (0, 1) for code in codes)
        check(grid, place, whole)
        print(
            f"{counts.total()} faults, {place.runs} runs the same as the undisturbed one", file=sys.stderr, flush=True
        )
    return counts, place.runs


def check(grid: Path, place: Place, whole: Path) -> None:
    """Retry what a killed worker left, make damaged files anew, and then: nothing lost, nothing doubled, the same."""
    words, here = place.words(), place.environment(0)
    out = words[1]
    tinydrop("retry", out, *words[2:], environment=here)
    if tinydrop("verify", out, environment=here):
        tinydrop("verify", out, "--repair", environment=here)
        assert tinydrop("run", grid, *words, environment=here) == 0
    assert tinydrop("verify", out, environment=here) == 0
    tinydrop("gc", out, environment=here)
    tinydrop("report", out, environment=here)
    assert not list(place.run.rglob("*.tmp"))
    ours = table(place.files(0))
    assert len(ours) == CELLS, f"{len(ours)} cells"
    pd.testing.assert_frame_equal(ours, table(whole))


@contextmanager
def room() -> Iterator[Path]:
    """A folder, on a small file system of its own where one may be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], capture_output=True, check=False
        )
        try:
            yield Path(folder)
        finally:
            if mounted.returncode == 0:
                subprocess.run(["umount", "-l", folder], check=True)


def main(faults: int, seed: int, where: str) -> None:
    with room() as folder:
        counts, runs = campaign(faults, random.Random(seed), PLACES[where](folder))
    print(f"| fault ({where}) | times |\n|---|---|")
    for kind, n in sorted(counts.items()):
        print(f"| {kind} | {n} |")
    print(f"| all, over {runs} runs: every final table equal, no record lost or doubled | {counts.total()} |")


if __name__ == "__main__":
    given = dict(enumerate(sys.argv[1:]))
    main(int(given.get(0, 50)), int(given.get(1, 0)), given.get(2, "folder"))
