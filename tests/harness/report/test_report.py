"""Tables: means and intervals over seeds, coverage, the gate; escaping and figures."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from harness.plugins.registry import Spec
from harness.report import figures
from harness.report.cells import cells_frame, labels_without, metric_names, read_cells
from harness.report.doses import dose_table
from harness.report.summary import summary_frame, summary_table, t_interval, worst_frame, worst_table
from harness.report.tables import Tables
from harness.report.write import as_csv, build_tables, write_tables
from harness.store.records import Measured, Record

Options = Mapping[str, Any]
NONE: Options = {}


def record(
    attack: str, defense: str, dose: int, seed: int, asr: float | None, status: str = "done", floor: float = 0.1,
    task_options: Options = NONE, attack_options: Options = NONE,
) -> Record:  # fmt: skip
    def plug(name: str, **options: Any) -> dict[str, Any]:
        label = Spec(name, tuple(options.items())).label
        return {"name": name, "label": label, "options": options, "label_options": options}

    metrics = {} if asr is None else {
        "asr": {"value": asr, "n": 90}, "asr_floor": {"value": floor, "n": 90}, "utility": {"value": 0.9, "n": 100},
    }  # fmt: skip
    return Record.model_validate(
        {"key": "0" * 32, "label": "x", "task": plug("t", **task_options),
         "attack": plug(attack, **attack_options), "defense": plug(defense),
         "dose": dose, "modality": "image", "seed": seed, "stage": "control", "status": status, "metrics": metrics,
         "reason": "" if status == "done" else "why"}
    )  # fmt: skip


STRONG = [record("strong", d, dose, s, a) for d, a0, a1 in (("none", 0.1, 0.8), ("filter", 0.1, 0.2))
          for dose, a in ((0, a0), (10, a1)) for s in (0, 1)]  # fmt: skip
WEAK = [record("weak", d, dose, s, 0.62, floor=0.6) for d in ("none", "filter") for dose in (0, 10) for s in (0, 1)]


def test_summary_has_means_intervals_and_the_gate() -> None:
    rows = [
        *STRONG,
        *WEAK,
        record("strong", "late", 10, 0, None, "timed out"),
        record("strong", "odd", 10, 0, None, "not applicable"),
    ]
    summary = summary_frame(cells_frame(rows)).set_index(["attack", "defense", "dose"])
    assert summary.loc[("strong", "none", 10)].asr == pytest.approx(0.8)
    assert summary.loc[("strong", "none", 10)].gate
    assert summary.loc[("strong", "filter", 10)].gate, "the gate is about the undefended attack"
    assert not summary.loc[("weak", "none", 10)].gate, "0.62 over a chance floor of 0.6 is no attack"
    assert summary.loc[("strong", "late", 10)].n_timed_out == 1
    assert summary.loc[("strong", "odd", 10)].n_not_applicable == 1
    assert summary.loc[("strong", "odd", 10)].reason == "why"


def test_a_metric_that_nobody_has_heard_of_is_in_the_summary() -> None:
    rows = [record("strong", "none", 10, seed, 0.5) for seed in (0, 1)]
    for name in ("zeal", "aaa", "certified_accuracy_at_10", "asr_strict"):
        for row, value in zip(rows, (0.2, 0.4)):
            row.metrics[name] = Measured(value=value, n=5)
    summary = summary_frame(cells_frame(rows))
    assert summary.zeal[0] == summary.aaa[0] == pytest.approx(0.3)
    means = [name for name in summary if name in {*metric_names(cells_frame(rows)), "fit_seconds"}]
    known = ["asr", "asr_floor", "asr_strict", "utility", "certified_accuracy_at_10"]
    assert means == [*known, "aaa", "zeal", "fit_seconds"]


def test_interval_is_the_t_interval() -> None:
    values = pd.Series([0.2, 0.5, 0.6])
    low, high = t_interval(values)
    expected = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    assert all(x != x for x in t_interval(values[:1])), "one seed has no interval"


def test_the_printed_table_shows_every_state() -> None:
    from rich.console import Console

    rows = [
        *STRONG,
        *WEAK,
        record("strong", "late", 10, 0, None, "timed out"),
        record("strong", "odd", 10, 0, None, "not applicable"),
    ]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(summary_table(summary_frame(cells_frame(rows)), "t"))
    text = console.export_text()
    console.file.close()
    for words in ("0.800", "timeout", "n/a", "attack too weak for credit", "1 failed"):
        assert words in text, words
    assert text.index("none") < text.index("filter"), "the order of the grid"


def test_without_the_undefended_attack_nothing_is_said_of_its_strength() -> None:
    from io import StringIO

    from rich.console import Console

    tables = build_tables(cells_frame([record("strong", "filter", dose, 0, 0.2) for dose in (0, 10, 20)]))
    page = StringIO()
    for table in (summary_table(tables.summary, "t"), dose_table(tables.doses, "t")):
        Console(width=200, file=page).print(table)
    assert page.getvalue().count("no credit: `none` was not run here") == 2
    assert "too weak" not in page.getvalue()


def test_figures_are_pictures_with_safe_names(tmp_path: Path) -> None:
    from PIL import Image

    strange = "a/../b(c=1) é"
    more = [record("strong", d, 20, s, a) for d, a in (("none", 0.9), ("filter", 0.3)) for s in (0, 1)]
    rows = [*STRONG, *WEAK, *more]
    made = vars(build_tables(cells_frame(rows)))
    tables = Tables(**{k: v if v.empty else v.assign(task=strange) for k, v in made.items()})
    paths = figures.write_figures(tables, tmp_path)
    assert [p.parent for p in paths] == [tmp_path] * 3
    for path in paths:
        with Image.open(path) as picture:
            assert min(picture.size) > 200


def test_numbers_are_never_cut_on_a_narrow_screen() -> None:
    from rich.console import Console

    console = Console(width=80, record=True, file=io.StringIO())
    console.print(summary_table(summary_frame(cells_frame([*STRONG, *WEAK])), "t"))
    text = console.export_text()
    console.file.close()
    assert "0.800" in text
    assert "0.200" in text


def test_names_and_options_of_plugins_stand_beside_their_labels() -> None:
    row = record("badnets", "none", 10, 0, 0.5, attack_options={"size": 3, "target": 1})
    row.peak_memory_bytes = 7
    cells = cells_frame([row])
    assert cells.attack[0] == "badnets(size=3, target=1)"
    assert (cells.attack_name[0], cells.attack_options[0]) == ("badnets", '{"size": 3, "target": 1}')
    assert (cells.defense_name[0], cells.defense_options[0], cells.peak_memory_bytes[0]) == ("none", "{}", 7)
    assert labels_without(cells, "attack", "target") == {"badnets(size=3, target=1)": "badnets(size=3)"}
    assert labels_without(cells, "defense", "target") == {"none": "none"}


def test_nothing_to_report() -> None:
    assert cells_frame([]).empty
    assert summary_frame(pd.DataFrame()).empty
    assert figures.write_figures(build_tables(cells_frame([])), Path("nowhere")) == []


def test_single_answers_get_a_binomial_interval() -> None:
    rows = [record("aimed", "none", 10, seed, float(seed < 15)) for seed in range(20)]
    for row in rows:
        row.metrics["asr"].n = 1
    summary = summary_frame(cells_frame(rows)).iloc[0]
    z = stats.norm.ppf(0.975)  # Wilson 1927, by hand
    middle, half = (0.75 + z**2 / 40) / (1 + z**2 / 20), z * (0.75 * 0.25 / 20 + z**2 / 1600) ** 0.5 / (1 + z**2 / 20)
    assert summary.asr == 0.75
    assert (summary.asr_low, summary.asr_high) == pytest.approx((middle - half, middle + half))


def test_the_worst_target_stands_beside_the_mean() -> None:
    rows = [
        record("badnets", "none", 10, seed, 0.1 * target + 0.05 * seed, attack_options={"size": 3, "target": target})
        for target in (1, 4) for seed in (0, 1)
    ]  # fmt: skip
    (worst,) = worst_frame(cells_frame([*rows, *STRONG])).to_dict("records")
    assert (worst["attack"], worst["targets"], worst["worst_attack"]) == (
        "badnets(size=3)", 2, "badnets(size=3, target=4)",
    )  # fmt: skip
    assert (worst["asr"], worst["asr_max"]) == pytest.approx((0.275, 0.45))
    assert worst["worst_seed"] == 1
    table = worst_table(worst_frame(cells_frame(rows)))
    assert [next(iter(column.cells)) for column in table.columns][3:] == [
        "10", "2", "0.275", "0.450", "badnets(size=3, target=4), seed 1",
    ]  # fmt: skip


def test_a_published_table_of_cells_is_enough_to_make_all_others_again(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from harness.cli.app import app

    rows = [
        record("strong", defense, dose, seed, min(0.97, dose * slope + seed / 90))
        for defense, slope in (("none", 0.1), ("half", 0.05)) for dose in (0, 2, 5, 10, 20) for seed in (0, 1, 2)
    ]  # fmt: skip
    write_tables(build_tables(cells_frame(rows)), tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.glob("*.csv")}
    assert set(before) == {"cells.csv", "summary.csv", "doses.csv"}
    for name in ("summary.csv", "doses.csv"):
        (tmp_path / name).unlink()
    done = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert {f.name: f.read_bytes() for f in tmp_path.glob("*.csv")} == before


def test_tasks_that_differ_in_augmentation_share_a_figure(tmp_path: Path) -> None:
    rows = [
        record("strong", "none", dose, 0, min(1.0, dose / 20 / (i + 1)), task_options={**options, "n": 5})
        for i, options in enumerate(({"augmentation": "none"}, NONE, {"augmentation": "strong"}))
        for dose in (0, 5, 20)
    ]  # fmt: skip
    found = build_tables(cells_frame(rows))
    lines = figures.compare_augmentations(found)
    assert list(dict.fromkeys(lines.task)) == ["t(n=5)"]
    assert list(dict.fromkeys(lines.defense)) == ["augmentation none", "augmentation default", "augmentation strong"]
    assert "t_n_5_-augmentation.png" in {path.name for path in write_tables(found, tmp_path)}
    alone = build_tables(cells_frame(rows[:3]))
    assert not [path for path in write_tables(alone, tmp_path) if path.name.endswith("-augmentation.png")]


ODD_TEXTS = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\tx", "-0.5", "-x", "'=1", "''=1", "'quoted'", "nan", "None", "", "plain", "=",
    "-1e5", "1e400", "-inf",
]  # fmt: skip


def test_no_text_of_a_published_table_is_a_formula(tmp_path: Path) -> None:
    rows = [record("strong", "none", 5, seed, 0.5) for seed in range(len(ODD_TEXTS))]
    for row, text in zip(rows, ODD_TEXTS):
        row.reason, row.target, row.target_name = text, 1, text
        row.metrics["=cmd|' /C calc'!A0"] = Measured(value=-0.5, n=3)
    cells = cells_frame(rows)
    (tmp_path / "cells.csv").write_text(as_csv(cells))
    with (tmp_path / "cells.csv").open(newline="") as file:
        heads = [text for row in csv.reader(file) for text in row if text[:1] in tuple("=+-@\t\r")]
    assert set(heads) == {"-1", "+1", "-0.5", "-1e5"}, "numbers alone begin so"
    again = read_cells(tmp_path / "cells.csv")
    assert again.target_name.tolist() == cells.target_name.tolist()
    assert again.reason.tolist() == cells.reason.tolist()
    assert list(again) == list(cells)
    assert again["=cmd|' /C calc'!A0"].tolist() == [-0.5] * len(rows)


def test_figures_of_long_odd_and_like_labels(tmp_path: Path) -> None:
    long = "/".join(["a" * 60] * 4)
    paths = [long, long + "b", "a/b", "a_b", "A_B", "$x^{$", "数据", "据数", '../"b<c>|?*']
    rows = [
        record(attack, defense, dose, seed, 0.9 if dose else 0.1, task_options={"path": path})
        for path in paths for attack in ("y" * 300 + "$a",) for defense in ("none", "z" * 300)
        for dose in (0, 5) for seed in (0,)
    ]  # fmt: skip
    written = figures.write_figures(build_tables(cells_frame(rows)), tmp_path)
    names = [path.name for path in written]
    assert len({name.lower() for name in names}) == len(names) == len(list(tmp_path.iterdir()))
    assert all(len(name.encode()) < 255 and re.fullmatch(r"[A-Za-z0-9_.-]+\.png", name) for name in names)
    assert figures.file_name("digits(train_size=200)") == "digits_train_size_200_", "published names stay"


def test_a_metric_cannot_take_the_place_of_a_column() -> None:
    row = record("strong", "none", 5, 0, 0.5)
    row.metrics["dose"] = Measured(value=7, n=1)
    assert cells_frame([row]).dose.tolist() == [5]


def test_the_table_names_the_target_beside_its_number() -> None:
    rows = [record("strong", "none", dose, 0, dose / 10, attack_options={"target": 1}) for dose in (0, 5)]
    for row in rows:
        row.target, row.target_name = 1, "spam"
    summary = summary_frame(cells_frame(rows))
    assert summary[["target", "target_name"]].to_numpy().tolist() == [[1, "spam"]] * 2
    console = Console(file=io.StringIO(), width=200)
    console.print(summary_table(summary, "t"))
    assert "target 1: spam" in console.file.getvalue()  # type: ignore[attr-defined]
