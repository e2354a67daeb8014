"""Runs from the command line: resume after a kill, workers that die, exit codes, and what is printed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from helpers import ROOT, command, grid_file, invoke, table, tinydrop

from harness.errors import NewerSchema
from harness.grid.read import read_grid
from harness.run.plan import make_plan
from harness.store import records
from harness.store.folder import Store


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert invoke("run", grid_file(folder), "--out", folder / "run", "--jobs", 0).exit_code == 0
    return folder / "run"


def test_a_run_prints_the_table_and_says_where_things_are(undisturbed: Path) -> None:
    again = invoke("run", undisturbed.parent / "grid.yaml", "--out", undisturbed)
    assert again.exit_code == 0
    assert "12 already recorded, 0 to run" in again.stdout
    for words in ("badnets", "random_filter", "ASR by dose", "records:", "summary.csv", "figures:"):
        assert words in again.stdout
    assert {p.name for p in (undisturbed / "report").iterdir()} >= {
        "cells.csv", "summary.csv", "summary.json", "digits_train_size_150_epochs_2_test_size_60_-dose.png",
    } or len(list((undisturbed / "report").glob("*-dose.png"))) == 1  # fmt: skip


def test_dry_run_prints_the_plan_and_an_estimate(undisturbed: Path, tmp_path: Path) -> None:
    fresh = invoke("run", undisturbed.parent / "grid.yaml", "--out", tmp_path / "new", "--dry-run")
    assert "12 cells" in fresh.stdout
    assert "12 to run on 4 undefended victims" in fresh.stdout
    assert "no time estimate" in fresh.stdout
    assert not (tmp_path / "new").exists(), "a dry run writes nothing"
    more = invoke("run", undisturbed.parent / "grid.yaml", "--out", undisturbed, "--set", "seeds=[0,1,2]", "--dry-run")
    assert "12 already recorded, 6 to run on 2 undefended victims" in more.stdout
    assert "of work left" in more.stdout


def test_two_workers_give_the_same_table(undisturbed: Path, tmp_path: Path) -> None:
    done = tinydrop("run", grid_file(tmp_path), "--out", tmp_path / "run", "--jobs", 2, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    ours = table(tmp_path / "run")
    assert len(ours) == 12
    assert list(ours.status.unique()) == ["done"]
    trained = [
        fit["key"]
        for path in (tmp_path / "run" / "records").iterdir()
        for fit in json.loads(path.read_text())["fits"]
        if fit["trained"]
    ]
    assert len(trained) == len(set(trained)), "no victim is trained twice"


def test_kill_and_resume(undisturbed: Path, tmp_path: Path) -> None:
    """Killed in the middle and started again: the same table as an undisturbed run. More of it: fault_campaign.py."""
    killed = tmp_path / "killed"
    words = ("run", grid_file(tmp_path), "--jobs", 0, "--out", killed)
    process = subprocess.Popen(command(*words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while len(list(killed.glob("records/*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {p.name: p.read_bytes() for p in killed.glob("records/*.json")}
    assert 3 <= len(before) < 12
    done = tinydrop(*words)
    assert done.returncode == 0, done.stderr
    after = {p.name: p.read_bytes() for p in killed.glob("records/*.json")}
    assert len(after) == 12, "no record lost or doubled"
    assert all(after[name] == data for name, data in before.items()), "finished cells are not run again"
    pd.testing.assert_frame_equal(table(killed), table(undisturbed))


def test_failures_are_kept_and_the_run_goes_on(tmp_path: Path) -> None:
    file = grid_file(tmp_path, doses=[0, 4, 99999], seeds=[0], defenses=["none", "oracle"])
    done = invoke("run", file, "--out", tmp_path / "run", "--jobs", 0)
    assert done.exit_code == 1, "some cells failed, the others are kept"
    assert "the eligible pool of badnets" in done.stdout
    counts = json.loads(invoke("status", tmp_path / "run", "--json").stdout)
    assert (counts["done"], counts["failed"], counts["pending"], counts["total"]) == (4, 2, 0, 6)
    assert counts["reasons"][0]["cells"] == 2
    assert "2 failed" in invoke("status", tmp_path / "run").stdout
    again = invoke("run", file, "--out", tmp_path / "run", "--dry-run")
    assert "0 to run" in again.stdout, "a recorded failure is not repeated unasked"
    retry = invoke("run", file, "--out", tmp_path / "run", "--retry", "--dry-run")
    assert "2 to run" in retry.stdout


def test_a_run_without_any_cell_that_can_be_run_says_so(tmp_path: Path) -> None:
    file = grid_file(tmp_path, defenses=["onion"], seeds=[0])
    done = invoke("run", file, "--out", tmp_path / "run", "--jobs", 0)
    assert done.exit_code == 1
    assert done.stderr.startswith("no cell could be run: onion is for text")


def test_show(undisturbed: Path) -> None:
    record = json.loads(next((undisturbed / "records").iterdir()).read_text())
    short = "/".join(re.sub(r"\(.*\)", "", part) for part in record["label"].split("/"))
    assert short != record["label"]
    for name in (record["key"][:10], record["label"], short):
        shown = invoke("show", undisturbed, name)
        assert shown.exit_code == 0
        assert record["label"] in shown.stdout
        assert "utility" in shown.stdout
        assert "libraries" in shown.stdout
    missing = tinydrop("show", undisturbed, "digits/badnet/4/none/0")
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: CELL: unknown 'digits/badnet/4/none/0'; did you mean: digits(")
    assert missing.stderr.count("/badnets/") <= 3, "the nearest, not all of them"
    many = tinydrop("show", undisturbed, "")
    assert many.stderr.startswith("error: CELL: '' fits 12 cells; give one of them: digits(")


def test_report_writes_where_asked(undisturbed: Path, tmp_path: Path) -> None:
    done = invoke("report", undisturbed, "--csv", tmp_path / "t.csv", "--json", tmp_path / "t.json")
    assert done.exit_code == 0, done.output
    summary = pd.read_csv(tmp_path / "t.csv")
    assert len(summary) == 6
    assert list(summary.n_done) == [2] * 6
    assert (summary.asr_low <= summary.asr).all()
    assert len(json.loads((tmp_path / "t.json").read_text())) == 6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "quickstrat"], "error: GRID: unknown 'quickstrat'; did you mean 'quickstart'?"),
        (["run", "quickstart", "--set", "doses=[-1]"], "error: doses: -1 is not a whole number"),
        (["status", "no/such/dir"], "error: DIR: 'no/such/dir' holds no run"),
        (["report", "no/such/dir"], "error: DIR: 'no/such/dir' holds no run"),
    ],
)
def test_unusable_input_exits_with_2_and_one_line(words: list[str], message: str) -> None:
    done = tinydrop(*words)
    assert done.returncode == 2
    assert done.stderr.startswith(message), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_names_and_reasons_are_shown_as_they_are(tmp_path: Path) -> None:
    """What a console library would take for its markup is part of a path here."""
    table = tmp_path / "[/red]nowhere[bold]" / "a.csv"
    table.parent.mkdir(parents=True)
    table.write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(40)))
    task = {"name": "csv_text", "path": str(table)}
    path = grid_file(tmp_path, tasks=[task], attacks=["badwords"], doses=[1000], defenses=["none"], seeds=[0])
    done = invoke("run", path, "--out", tmp_path / "[/x]", "--jobs", 0)
    assert done.exit_code == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "[/red]nowhere[bold]" in done.stdout
    assert f"records: {tmp_path / '[/x]' / 'records'}" in done.stdout
    assert "[/red]nowhere[bold]" in invoke("report", tmp_path / "[/x]").output


def test_a_store_of_a_newer_schema_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(undisturbed, tmp_path / "copy")
    tree = json.loads(next((copy / "records").iterdir()).read_text())
    (copy / "records" / f"{tree['key']}.2.json").write_text(json.dumps({**tree, "schema_version": 99}))
    with pytest.raises(NewerSchema, match="schema 99"):
        invoke("report", copy)


def test_a_worker_that_dies_costs_one_cell(tmp_path: Path) -> None:
    """A plug-in that kills its process, as an out-of-memory killer would."""
    script = tmp_path / "driver.py"
    script.write_text(
        """
import os, sys, signal
from pathlib import Path
from dataclasses import replace
from harness.errors import NewerSchema
from harness.grid.read import read_grid
from harness.run import record_cell, workers
from harness.run.execute import execute
from harness.run.plan import make_plan
from harness.store import Store, records
from harness.run.settings import Settings
real = record_cell.run_cell
def deadly(cell, settings, device):
    if cell.defense.name == "oracle":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(cell, settings, device)
workers.run_cell = deadly
if __name__ == "__main__":
    store = Store(Path(sys.argv[2]))
    plan = make_plan(read_grid(sys.argv[1]), store)
    for event in execute(plan, Settings(store=sys.argv[2]), 1):
        pass
    print(sorted((r.defense.name, r.status, r.reason) for r in records.load_all(store).values()))
"""
    )
    file = grid_file(tmp_path, doses=[0], seeds=[0])
    done = subprocess.run(
        [sys.executable, str(script), str(file), str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert "('oracle', 'failed', 'the worker process died: signal 9 (out of memory?)')" in done.stdout, done.stderr
    assert "('none', 'done', '')" in done.stdout
    assert "('random_filter', 'done', '')" in done.stdout


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path: Path) -> None:
    import resource

    file, folder = grid_file(tmp_path, seeds=[0], doses=[0]), tmp_path / "run"
    done = subprocess.run(
        command("run", file, "--out", folder, "--jobs", 1),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),  # smaller than a victim
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "error: the disk is full" in done.stderr
    assert "free some space" in done.stderr
    assert not list(folder.rglob("*.tmp")), "nothing half-written"
    assert not list(folder.glob("records/*")), "the cell is pending, not failed"
    assert invoke("run", file, "--out", folder, "--jobs", 0).exit_code == 0


def test_list() -> None:
    for kind in ("tasks", "attacks", "defenses"):
        rows = json.loads(invoke("list", kind, "--json").stdout)
        assert rows
        assert all(row["name"] and row["modalities"] and row["stage"] for row in rows)
    text = invoke("list").stdout
    assert "badnets" in text
    assert "oracle" in text
    assert "digits" in text


@pytest.mark.parametrize("word", ["--help", "list"])
def test_looking_does_not_import_torch(word: str) -> None:
    code = (
        f"import sys; from harness.cli.app import app; app([{word!r}], standalone_mode=False); "
        "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_a_plan_looks_records_up_by_name(undisturbed: Path) -> None:
    plan = make_plan(read_grid(str(undisturbed.parent / "grid.yaml")), Store(undisturbed))
    assert plan.missing == []
    assert plan.victims == 0


def test_two_runs_share_one_folder_and_run_no_cell_twice(undisturbed: Path, tmp_path: Path) -> None:
    words = command("run", grid_file(tmp_path), "--out", tmp_path / "run", "--jobs", 0)
    both = [subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        process.communicate(timeout=300)
        assert process.returncode == 0
    assert len(list((tmp_path / "run" / "records").iterdir())) == 12, "one record a cell"
    pd.testing.assert_frame_equal(table(tmp_path / "run"), table(undisturbed))
    assert invoke("verify", tmp_path / "run").exit_code == 0


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]], ids=["TERM", "Ctrl-C twice"])
def test_a_polite_end_keeps_what_is_finished(tmp_path: Path, signals: list[signal.Signals]) -> None:
    file = grid_file(tmp_path, seeds=list(range(20)))  # more than can be over before the signal comes
    words = command("run", file, "--out", tmp_path / "run", "--jobs", 1)
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a shell starts in the background ignores it
    process = subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    while not list((tmp_path / "run").glob("records/*.json")) and process.poll() is None:
        time.sleep(0.05)
    for signum in signals:
        process.send_signal(signum)
        time.sleep(0.2)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT), said  # the second may meet a process that is leaving
    assert "every finished cell is kept" in said
    assert "Traceback" not in said
    left = json.loads(invoke("status", tmp_path / "run", "--json").stdout)
    assert left["done"] >= 1
    assert left["pending"] >= 1
    assert left["failed"] == 0


def test_retry_after_a_plug_in_was_mended(tmp_path: Path) -> None:
    plugin = tmp_path / "boom.py"
    source = (ROOT / "defenses" / "controls" / "none.py").read_text().replace("class None_", "class Boom")
    plugin.write_text(source.replace("return case.fit(case.train)", "return case.fitt(case.train)"))
    file = grid_file(tmp_path, seeds=[0], defenses=["none", "boom"])
    words = ["--plugin", plugin, "--jobs", 0]
    assert tinydrop("run", file, "--out", tmp_path / "run", *words).returncode == 1
    plugin.write_text(source)
    done = tinydrop("retry", tmp_path / "run", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 cells to run again" in done.stdout
    state = json.loads(invoke("status", tmp_path / "run", "--json").stdout)
    assert (state["done"], state["total"]) == (4, 4), "the plan is as large as it was"
    boom = [r for r in records.load_all(Store(tmp_path / "run")).values() if "/4/boom/" in r.label]
    mended, broken = sorted(boom, key=lambda r: r.status)
    shown = invoke("show", tmp_path / "run", broken.label)
    assert shown.stdout.startswith(f"{mended.label} done")
    assert f"by other code there are, under the same label: {broken.key}" in shown.stdout
    assert f"{broken.label} failed" in invoke("show", tmp_path / "run", broken.key).stdout


def test_retry_runs_what_failed_again(tmp_path: Path) -> None:
    file = grid_file(tmp_path, seeds=[0], doses=[0, 4], defenses=["none"], also=[{"seeds": [1]}])
    assert invoke("run", file, "--out", tmp_path / "run", "--jobs", 0).exit_code == 0
    store = Store(tmp_path / "run")
    record = next(iter(records.load_all(store).values()))
    records.save(store, record.model_copy(update={"status": "timed out", "reason": "slow"}))
    nothing = invoke("retry", tmp_path / "run", "--failed", "--jobs", 0)
    assert nothing.exit_code == 1, "one cell is still timed out"
    assert "0 cells to run again" in nothing.stdout
    done = invoke("retry", tmp_path / "run", "--timed-out", "--timeout", 900, "--jobs", 0)
    assert done.exit_code == 0, done.stderr
    assert "1 cells to run again" in done.stdout
    assert records.load_all(store)[record.key].status == "done"
    assert len(list((store.root / "records").glob(f"{record.key}*"))) == 3, "every attempt is kept"
    assert json.loads(invoke("status", tmp_path / "run", "--json").stdout)["total"] == 4
