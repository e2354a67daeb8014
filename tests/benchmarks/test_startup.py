"""How long a command that only looks takes: `pytest tests/benchmarks/test_startup.py -n 0 --benchmark-enable`."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.plugins.registry import ROOT


@pytest.mark.parametrize("word", ["--help", "list"])
def test_startup(benchmark: BenchmarkFixture, word: str) -> None:
    command = [sys.executable, "-m", "harness.cli", word]
    run = partial(subprocess.run, command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    benchmark.pedantic(run, rounds=10, warmup_rounds=1)
