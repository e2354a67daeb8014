"""Every stage of the GPU campaign runs on the CPU at the smallest sizes, so that none fails first on a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from gpu_campaign import STAGES
from helpers import ROOT

from gpu.stage import read_lines


def campaign(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tests/gpu_campaign.py", "--out", str(out), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("stage", [planned.name for planned in STAGES])
def test_dry_run(stage: str, tmp_path: Path) -> None:
    done = campaign(tmp_path, "--device", "cpu", "--shrink", "--only", stage)
    log = (tmp_path / "campaign.log").read_text()
    assert done.returncode == 0, log
    lines = read_lines(tmp_path / "figures.jsonl")
    ended = [line["event"] for line in lines if line["stage"] == stage and "event" in line]
    assert ended == ["done"], log
    figures = [line for line in lines if "name" in line]
    assert figures, log
    assert all(line["shrink"] and line["device"] == "cpu" and line["value"] >= 0 for line in figures)
    assert "left out" not in log
    assert f"## {stage}, done after" in done.stdout
    assert "these numbers say nothing about speed" in done.stdout
