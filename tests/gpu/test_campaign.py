"""Every stage of the GPU campaign runs on the CPU at the smallest sizes, so that none fails first on a GPU."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import gpu_campaign
import pytest
from gpu_campaign import STAGES, Planned, run_stage
from helpers import ROOT

from gpu.idle import covered
from gpu.stage import Figures, read_lines
from gpu.table import write_table


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


CPU = Namespace(device="cpu", shrink=True, commit="1234567")


def test_a_stage_that_hangs_or_fails_ends_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = tmp_path / "figures.jsonl"
    monkeypatch.setattr(gpu_campaign, "GRACE", 0)
    assert run_stage(Planned("language", 1, ""), CPU, figures, 0.2) == 3
    monkeypatch.setattr(gpu_campaign, "GRACE", 60)
    assert run_stage(Planned("nowhere", 1, ""), CPU, figures, 60) == 1
    cut, failed = [line for line in read_lines(figures) if "event" in line and line["stage"] != "campaign"]
    assert (cut["stage"], cut["event"]) == ("language", "out of time")
    assert {cut["commit"], failed["commit"]} == {"1234567"}
    assert (failed["event"], failed["reason"]) == ("failed", "ModuleNotFoundError: No module named 'gpu.nowhere'")
    assert "## nowhere, failed after" in write_table(figures)


def test_goes_on_where_it_was_and_mixes_nothing(tmp_path: Path) -> None:
    about = {"device": "cpu", "shrink": True, "commit": ""}
    for planned in STAGES:
        Figures(tmp_path / "figures.jsonl", planned.name, about).write({"event": "done", "seconds": 1.0})
    again = campaign(tmp_path, "--device", "cpu", "--shrink")
    assert (again.returncode, len(read_lines(tmp_path / "figures.jsonl"))) == (0, len(STAGES)), again.stderr
    other = campaign(tmp_path, "--device", "cpu")
    assert other.returncode == 1
    assert other.stderr.strip().endswith("its figures are of --device cpu, a dry run; name another folder")


def test_figures_are_kept_of_a_line_that_was_cut_off(tmp_path: Path) -> None:
    figures = Figures(tmp_path / "figures.jsonl", "training")
    figures.add("a victim", 1.23456789, "s", task="digits")
    with figures.path.open("a") as file:
        file.write('{"stage": "training", "na')
    assert figures.known("a victim", task="digits") == 1.23457
    assert figures.known("a victim", task="fsdd") is None


def test_time_at_work() -> None:
    assert covered([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4
    assert covered([]) == 0
