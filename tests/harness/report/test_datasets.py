"""Cells on different data are never averaged, though their task has one label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import frame, grid_file, invoke

from harness.cli.records import report_cells
from harness.report.cells import labels_without, order_columns, read_cells
from harness.report.datasets import explain_apart, join_labels, keep_apart
from harness.report.write import build_tables, write_tables
from harness.run import run
from harness.site.sources import Source, join_sources

OLD, NEW = "8a1f03c2" + "0" * 24, "77b0" + "1" * 28


def cells(*data: str, dose: int = 5, **more: Any) -> pd.DataFrame:
    """A cell on each of these data sets, the ASR of the first 0.1, the next 0.2, ..."""
    asr = [(i + 1) / 10 for i in range(len(data))]
    return frame({"none": asr}, doses=(dose,), **more).assign(data=data)


def test_one_label_on_two_data_sets_is_two_tables() -> None:
    tables = build_tables(cells(OLD, NEW, OLD, NEW))
    assert list(tables.summary.task) == ["t [data 8a1f03c2]", "t [data 77b01111]"]
    assert list(tables.summary.asr) == pytest.approx([0.2, 0.3])
    assert list(tables.summary.n_done) == [2, 2]


def test_a_curve_is_not_drawn_through_two_data_sets() -> None:
    """Dose 0 is of the old data and dose 5 of the new: one line would hold both."""
    summary = build_tables(pd.concat([cells(OLD, dose=0), cells(NEW, dose=5)])).summary
    assert list(zip(summary.task, summary.dose)) == [("t [data 8a1f03c2]", 0), ("t [data 77b01111]", 5)]


@pytest.mark.parametrize(
    "same",
    [
        cells(OLD, OLD),
        cells("", ""),
        cells(OLD, ""),  # one failed before it had data
        cells(OLD, NEW).drop(columns="data"),  # a table that was published before there was the column
        cells(OLD, NEW).assign(task=["t(train_size=10)", "t(train_size=20)"]),  # other options, other data
        cells().iloc[:0],
        pd.DataFrame(),
    ],
)
def test_what_is_of_one_data_set_keeps_its_label(same: pd.DataFrame) -> None:
    assert keep_apart(same).equals(same)
    assert explain_apart(same) == []


def test_failed_cells_stay_under_the_plain_label() -> None:
    assert list(keep_apart(cells(OLD, "", NEW)).task) == ["t [data 8a1f03c2]", "t", "t [data 77b01111]"]


def test_doing_it_twice_or_undoing_it_gives_what_it_should() -> None:
    plain = cells(OLD, NEW)
    apart = keep_apart(plain)
    assert keep_apart(apart).equals(apart)
    assert join_labels(apart).equals(plain)
    assert explain_apart(apart) == [
        "t: its data changed between runs; kept apart are t [data 8a1f03c2], t [data 77b01111]"
    ]


def test_a_fingerprint_of_somebody_else_is_no_markup() -> None:
    (first, second) = keep_apart(cells("<b>8a1f]\n03c2", NEW)).task
    assert first == "t [data b8a1f03c]"
    assert second == "t [data 77b01111]"


def test_sizes_of_one_data_set_make_a_family() -> None:
    sizes = pd.concat([
        cells(OLD, NEW).assign(task=f"t(train_size={n})", task_options=f'{{"train_size": {n}}}') for n in (10, 20)
    ])  # fmt: skip
    labels = labels_without(keep_apart(sizes), "task", "train_size")
    assert set(labels.values()) == {"t [data 8a1f03c2]", "t [data 77b01111]"}


def test_a_published_table_has_the_plain_label_and_is_kept_apart_again(tmp_path: Path, capsys: Any) -> None:
    write_tables(build_tables(cells(OLD, NEW)), tmp_path)
    again = read_cells(tmp_path / "cells.csv")
    assert list(again.task) == ["t", "t"]
    assert list(again.data) == [OLD, NEW]
    tables, _ = report_cells(order_columns(again), tmp_path)
    assert tables.summary.task.nunique() == 2
    printed = capsys.readouterr().out
    assert "t [data 8a1f03c2]: ASR by dose" in printed
    assert "t: its data changed between runs; kept apart are" in printed


def test_runs_of_several_people_are_joined_by_their_data() -> None:
    mine, theirs, others = (Source(name, cells(data).assign(key=name)) for name, data in zip("abc", (OLD, OLD, NEW)))
    joined = join_sources([mine, theirs, others])
    assert list(joined.cells.task) == ["t [data 8a1f03c2]", "t [data 77b01111]"]
    assert list(joined.cells.key) == ["a", "c"], "the same cell on the same data counts once"
    assert list(joined.repeated.source) == ["b"]
    planned = joined.cells.assign(task="t")[["task", "attack", "dose", "defense", "seed"]]
    planned = pd.concat([planned[:1], planned[:1].assign(seed=7)]).assign(
        task_name="t", attack_name="a", defense_name="none"
    )
    assert list(join_sources([Source("a", mine.cells, missing=planned), others]).missing.seed) == [7]


def test_verify_says_where_records_of_a_task_are_of_several_data_sets(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    texts = "text,label\n" + "".join(f"good film {i},a\nbad film {i},b\n" for i in range(40))
    grid = grid_file(
        tmp_path, tasks=[{"name": "csv_text", "path": str(table), "reserve_size": 10, "epochs": 1, "width": 8}],
        attacks=["badwords"], doses=[0], defenses=["none"], seeds=[0],
    )  # fmt: skip
    table.write_text(texts)
    run(str(grid), out=tmp_path / "run")
    assert "kept apart" not in invoke("verify", tmp_path / "run").stdout
    table.write_text(texts.replace("good", "fine"))
    run(str(grid), out=tmp_path / "run")
    said = invoke("verify", tmp_path / "run")
    assert said.exit_code == 0
    assert "all as written" in said.stdout
    assert "its data changed between runs; kept apart are csv_text(" in said.stdout
