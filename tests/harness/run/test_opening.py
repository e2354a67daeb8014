"""Before the first cell every task is opened: a mistake in the data is one line, and nothing is recorded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest
import torch
from helpers import grid_file, invoke, tinydrop

from harness.errors import BadGrid
from harness.grid.grid import expand
from harness.grid.mapping import grid_from_mapping
from harness.run import run
from harness.run.opening import open_tasks
from harness.run.plan import make_plan
from harness.run.prepare import prepare
from harness.run.ray_tasks import Cluster
from harness.store.folder import Store
from tasks.base import load_unsealed
from tasks.caches import forget
from tasks.image.digits import Digits
from tasks.plugin import NotApplicable, options
from tasks.samples import Samples

TEXTS = {"name": "csv_text", "epochs": 1}
DIGITS = {"name": "digits", "train_size": 60, "test_size": 20, "reserve_size": 20, "epochs": 1}


def write_texts(path: Path, **counts: int) -> str:
    rows = [f"{label} number {i},{label}\n" for label, n in counts.items() for i in range(n)]
    path.write_text("text,label\n" + "".join(rows))
    return str(path)


def grid_of(*tasks: Any, **changes: Any) -> dict[str, Any]:
    return {"tasks": list(tasks), "attacks": ["badwords"], "doses": [1], "defenses": ["none"], "seeds": [0], **changes}


def open_grid(grid: dict[str, Any], keep: bool = False) -> None:
    cells = expand(grid_from_mapping(grid))
    open_tasks(cells, cells, keep)


@pytest.mark.parametrize(
    ("rows", "options", "why"),
    [
        ({"neg": 2, "pos": 2}, {}, "largest class has 1 training row, of which"),
        ({"neg": 60, "pos": 1}, {}, "class 'pos' has 1 training and 0 test rows"),
        ({"neg": 30, "pos": 30}, {"test_size": 1}, "test_size=1"),
        ({"neg": 30, "pos": 30}, {"train_size": 1}, "train_size=1"),
        ({"neg": 30, "pos": 30}, {"test_path": "nowhere.csv"}, "nowhere.csv"),
        ({"neg": 30, "pos": 30}, {"label_column": "class"}, "column 'class' is missing"),
    ],
)
def test_a_mistake_in_the_data_is_refused_from_python(
    tmp_path: Path, rows: dict[str, int], options: dict[str, Any], why: str
) -> None:
    path = write_texts(tmp_path / "a.csv", **rows)
    with pytest.raises(BadGrid, match=f"^(task )?csv_text.*{why}") as error:
        run(grid_of({**TEXTS, "path": path, **options}), out=tmp_path / "out")
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["a.csv"], "nothing is recorded"


def test_the_command_refuses_with_2_and_after_mending_runs(tmp_path: Path) -> None:
    """And the words of a path are shown as they are, though a console library would take them for its markup."""
    data = tmp_path / "[red]data"
    grid = grid_file(
        tmp_path, tasks=[{**TEXTS, "path": str(data / "a.csv"), "labels": ["ham", "spam"]}], attacks=["badwords"],
        doses=[1], defenses=["none"], seeds=[0],
    )  # fmt: skip
    words = "run", grid, "--out", tmp_path / "out", "--jobs", 0
    refused = tinydrop(*words)
    assert refused.returncode == 2, refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "[red]data/a.csv'" in refused.stderr
    assert invoke(*words, "--dry-run").exit_code == 0, "which opens nothing"
    assert not (tmp_path / "out").exists()
    data.mkdir()
    write_texts(data / "a.csv", ham=60, spam=8)
    note = "the reserve has 10 rows, not reserve_size=200: at most a fifth of every class"
    done = invoke(*words)
    assert "opening 1 task: csv_text(" in done.output
    assert done.output.count(note) == 2, "when it is opened, and under the table"
    assert " ".join(invoke("status", tmp_path / "out").output.split()).count(note) == 1
    cells = pd.read_csv(tmp_path / "out" / "report" / "cells.csv")
    assert cells.notes.tolist() == [f'["{note}"]']
    assert "opening" not in invoke(*words).output, "where all is recorded there is nothing to open"


def test_tasks_that_cannot_be_opened_are_named_with_the_way_to_leave_them_out(tmp_path: Path) -> None:
    good = {**TEXTS, "path": write_texts(tmp_path / "good.csv", a=30, b=30)}
    poor = {**TEXTS, "path": write_texts(tmp_path / "poor.csv", a=30, b=1)}
    words = "task csv_text cannot be opened: .*class 'b' has 1 training and 0 test rows"
    with pytest.raises(BadGrid, match=rf"{words}.*or leave it out: --skip 'csv_text\(.*poor\.csv\)/\*'"):
        open_grid(grid_of(good, poor))
    with pytest.raises(BadGrid, match=rf"{words}.*\(nor can csv_text\(.*test_size=1\)\); .*mend it$"):
        open_grid(grid_of(poor, {**good, "test_size": 1}))
    with pytest.raises(BadGrid, match=rf"{words}.*leave it out: --skip csv_text$"):
        open_grid(grid_of(poor, {"name": "synthetic_reviews", "train_size": 40}))


def test_data_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYDROP_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(BadGrid, match=r"dataset 'sms_spam': TINYDROP_DATA=.*nowhere is no folder"):
        run(grid_of("sms_spam"), out=tmp_path / "out")
    monkeypatch.setenv("TINYDROP_DATA", str(tmp_path))
    with pytest.raises(BadGrid, match=r"dataset 'sms_spam' cannot be read on the Hub .*set TINYDROP_DATA to a folder"):
        run(grid_of("sms_spam"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_target_that_no_class_of_the_users_files_has(tmp_path: Path) -> None:
    two, three = (write_texts(tmp_path / f"{n}.csv", **dict.fromkeys("abc"[:n], 30)) for n in (2, 3))
    attack = {"name": "badwords", "target": 2}
    with pytest.raises(BadGrid, match=r"attacks\.badwords\.target=2: csv_text has classes 0 to 1"):
        run(grid_of({**TEXTS, "path": two}, attacks=[attack]), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    open_grid(grid_of({**TEXTS, "path": two}, {**TEXTS, "path": three}, attacks=[attack]))  # not applicable to one


def test_trials_of_which_none_can_be_run(tmp_path: Path) -> None:
    task = {"name": "digits_transfer", "train_size": 100, "body_size": 60, "body_epochs": 1}
    nowhere = {"name": "label_flip", "trials": str(tmp_path / "nowhere.json")}
    with pytest.raises(BadGrid, match=r"attacks\.label_flip.*nowhere\.json': no such file"):
        open_grid(grid_of(task, attacks=[nowhere]))
    with pytest.raises(BadGrid, match=r"attacks\.label_flip: trial 0 of digits_transfer\.json: .*reserve_size"):
        open_grid(grid_of({**task, "test_size": 5}, attacks=["label_flip"]))
    with pytest.raises(BadGrid, match=r"task digits_transfer .*train_size=3: .* has 5 classes"):
        open_grid(grid_of({**task, "body_size": 3}, attacks=["label_flip"]))  # that of the task it starts from


@options
class Odd(Digits):
    """Raises an error while it is read."""

    error: Literal["none", "not applicable", "a bug"] = "none"

    def read(self) -> tuple[Samples, Samples]:
        if self.error == "not applicable":
            raise NotApplicable("not on Sundays")
        return super().read() if self.error == "none" else {}["column"]


def test_a_task_of_the_users_own_that_raises_anything(tmp_path: Path) -> None:
    with pytest.raises(BadGrid, match=r"task odd cannot be opened: KeyError: 'column'; no cell was run") as error:
        run(grid_of(Odd(error="a bug"), attacks=["badnets"]), out=tmp_path / "out")
    assert isinstance(error.value.__cause__, KeyError), "whose traceback is kept for its author"
    assert not (tmp_path / "out").exists()


def test_what_is_not_applicable_stays_a_matter_of_its_cells(tmp_path: Path) -> None:
    cells = run(grid_of(Odd(error="not applicable"), attacks=["badnets"]), out=tmp_path / "out")
    assert cells[["status", "reason"]].values.tolist() == [["not applicable", "not on Sundays"]]


def test_the_data_stays_in_memory_only_where_it_is_used() -> None:
    forget()
    grid, task = grid_of(DIGITS, attacks=["badnets"]), Digits(train_size=60, test_size=20, reserve_size=20, epochs=1)
    open_grid(grid, keep=True)
    kept = load_unsealed(task)
    assert load_unsealed(task) is kept  # type: ignore[arg-type]
    open_grid(grid, keep=False)
    assert load_unsealed(task) is not kept  # type: ignore[arg-type]


@pytest.mark.parametrize(("adaptive", "cluster"), [(False, None), (True, None), (False, Cluster())])
def test_only_tasks_with_cells_to_run_are_opened_and_none_for_ray(
    tmp_path: Path, adaptive: bool, cluster: Cluster | None
) -> None:
    """The data of a cluster's nodes need not be where the run is started."""
    store = Store(tmp_path / "out")
    plan = make_plan(grid_from_mapping(grid_of({**TEXTS, "path": "nowhere.csv", "labels": ["a", "b"]})), store)
    prepared = prepare(plan, store, jobs=0, device="cpu", cluster=cluster)
    if cluster:
        prepared.open_tasks(adaptive)
    else:
        with pytest.raises(BadGrid, match=r"nowhere\.csv"):
            prepared.open_tasks(adaptive)
    open_tasks([], plan.cells, keep=True)


def test_a_victim_that_cannot_be_built_is_found_before_the_first_cell(tmp_path: Path) -> None:
    reviews = {"name": "synthetic_reviews", "train_size": 40, "epochs": 1}
    before = torch.random.get_rng_state()
    (tmp_path / "empty").mkdir()
    for victim in ("", str(tmp_path / "empty")):
        with pytest.raises(BadGrid, match=f"^task synthetic_reviews cannot be opened: victim='{victim}'"):
            run(grid_of({**reviews, "victim": victim}), out=tmp_path / "out")
    assert os.listdir(tmp_path) == ["empty"], "nothing is recorded"
    open_grid(grid_of({**DIGITS, "victim": "resnet18"}, attacks=["badnets"]))
    assert torch.equal(torch.random.get_rng_state(), before), "a network that was tried takes no random numbers"
