"""What pages and papers show of a table: bounds in order, options in words, LaTeX and Markdown that can be printed."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT

from harness.plugins.registry import entries
from harness.report.figures import NARROW
from harness.report.write import build_tables
from harness.site import charts, paper_tables
from harness.site.headline import Column, Field, Listing, Shade, estimate_field, headline
from harness.site.listings import Pages, headline_listings
from harness.site.overview import range_field
from harness.site.plugin_docs import list_options
from harness.site.samples import mark_words
from harness.site.sources import join_sources, open_sources

RESULTS = ROOT / "results"


def test_tables_for_papers_have_few_columns_and_compile() -> None:
    """No LaTeX here: as many fields in every row as columns, braces closed, nothing special left as it is."""
    with open_sources([RESULTS / "defenses"]) as found:
        cells = join_sources(found).cells
    head = headline(build_tables(cells))
    table = headline_listings(head, Pages(cells, cells[:0]))["accuracy"]
    caption = paper_tables.caption(table, head, cells)
    latex, markdown = paper_tables.to_latex(table, caption), paper_tables.to_markdown(table, caption)
    (columns,) = re.findall(r"\\begin\{longtable\}\{([lr]+)\}", latex)
    assert 6 <= len(columns) <= 10
    assert re.fullmatch("l+r+", columns), "numbers stand to the right"
    for rule in ("toprule", "midrule", "bottomrule", "end{longtable}", "label{tab:headline}"):
        assert f"\\{rule}" in latex
    assert re.search(r"\\caption\{.*95 \\% intervals.* seeds, .* training rows, .* attacked test inputs\.\}", latex)
    assert latex.count("95 \\% intervals") == 1, "the caption is not on every page"
    rows = [line for line in latex.splitlines() if line.endswith(r"\\") and " & " in line]
    assert len(rows) > 10
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns) - 1}
    assert re.search(r"& \d+ \[[\d.]+, [\d.]+\] &", latex), "a number with its interval"
    assert not re.search(r"\de[+-]\d", latex)
    plain = re.sub(r"\\[\\_%&#$^{}]|\\[A-Za-z]+|[{}$]", "", latex.partition("\n")[2])
    assert not set("_%#^\\<>") & set(plain)
    assert latex.count("{") == latex.count("}")
    assert "| ED50 [95 % CI] |" in re.sub(" +", " ", markdown)
    rule = next(line for line in markdown.splitlines() if line.startswith("|:-"))
    assert "".join("r" if part.endswith(":") else "l" for part in rule.strip("|").split("|")) == columns


def test_tables_for_papers_hold_odd_names() -> None:
    columns = [Column("task"), Column("a_b"), Column("n", True), Column("note")]
    rows = [[Field("t_1"), Field("50 % & $1_#\\~^"), Field("12", "3 to 40"), Field("why")],
            [Field("t_2"), Field("x|y"), Field("> 5"), Field("")]]  # fmt: skip
    table = Listing("t", "c", columns, rows)
    latex, markdown = paper_tables.to_latex(table, "100 %"), paper_tables.to_markdown(table, "c")
    assert r"50 \% \& \$1\_\#\textbackslash{}\textasciitilde{}\textasciicircum{} & 12 [3, 40]" in latex
    assert r"a\_b & n [95 \% CI] \\" in latex
    assert r"\multicolumn{2}{@{}l}{\emph{t\_2}} \\" in latex
    assert r"\textgreater{} 5" in latex
    assert "why" not in latex + markdown
    assert r"x\|y" in markdown
    assert "--:" in markdown


def test_bounds_stand_apart_from_numbers_and_from_one_another() -> None:
    values = pd.DataFrame({"x": [1.0, 1.0, 300.0, 2.0, 5.0], "x_low": 0.5, "x_high": 400.0,
                           "x_censored": ["<", ">", "", "", ">"],
                           "x_text": ["<= 1", "> 1", "300 (0.5 to 400)", "2 (0.5 to 400)", "> 5"]})  # fmt: skip
    fields = sorted((estimate_field(row, "x") for row in values.itertuples()), key=lambda f: f.sort or 0)
    assert [f.text for f in fields] == ["<= 1", "2", "300", "> 1", "> 5"]
    assert [f.small for f in fields] == ["", "0.5 to 400", "0.5 to 400", "", ""]
    assert range_field(values, "x").text == "<= 1 to > 5"
    assert range_field(values[1:3], "x").text == "300 to > 1"
    words = pd.DataFrame({"x": [float("nan")], "x_censored": "", "x_text": "never in 2 of 3; else 5.5"})
    (field,) = (estimate_field(row, "x") for row in words.itertuples())
    assert (field.text, field.small, field.sort) == ("–", "never in 2 of 3; else 5.5", None)


@pytest.mark.parametrize("values", [(1, 1), (3, 7), (1, 90), (0.02, 5000)])
@pytest.mark.parametrize("width", [charts.WIDE, NARROW])
def test_ticks_are_plain_numbers(values: tuple[float, float], width: float) -> None:
    row = {
        "task": "t",
        "attack": "a",
        "attack_name": "a",
        "defense": "none",
        "gate": True,
        "ed50_censored": "",
        "chance": 0.0,
    }
    head = pd.DataFrame([row | {"ed50": v, "ed50_low": v, "ed50_high": v} for v in values])
    figure = charts.how_many(head, {"t": "image"}, width)
    figure.savefig(io.BytesIO(), format="svg")
    (axis,) = figure.axes
    low, high = axis.get_xlim()
    ticks = [*axis.xaxis.get_major_ticks(), *axis.xaxis.get_minor_ticks()]
    shown = [tick.label1.get_text() for tick in ticks if low <= tick.get_loc() <= high]
    assert len(shown) >= 3
    assert all(re.fullmatch(r"(\d{1,3}(,\d{3})*|0\.0*[125])", text) for text in shown), shown


def test_options_are_told_with_those_of_the_base_classes() -> None:
    known = {o.name: o for o in list_options("tasks", entries("tasks")["digits"])}
    assert {"train_size", "test_size", "reserve_size", "augmentation", "epochs"} <= set(known)
    assert (known["epochs"].values, known["epochs"].default) == ("whole number above 0", "20")
    assert known["augmentation"].values == "none, standard, strong"
    assert known["train_size"].values == "whole number above 0 or null"
    assert known["reserve_size"].meaning == "clean rows of the training split that are set aside for defenders"
    attack = {o.name: o for o in list_options("attacks", entries("attacks")["badnets"])}
    assert list(attack) == ["size", "margin", "target", "clean_label", "selection"], "its own first"


def test_what_an_extra_is_missing_for_is_described_by_its_file_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(kind: str, name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("harness.site.plugin_docs.load_class", missing)
    assert [o.name for o in list_options("attacks", entries("attacks")["badnets"])] == ["size", "margin"]
    monkeypatch.undo()
    theirs = replace(entries("attacks")["badnets"], module="theirs", options={"k": "Positive | None = 4"})
    (option,) = list_options("attacks", theirs)  # another one of the same name
    assert (option.name, option.values, option.default) == ("k", "whole number above 0 or null", "4")
    assert list_options("attacks", None) == []


def test_text_stands_out_from_every_colour() -> None:
    """WCAG: a contrast of 4.5 or more."""
    from matplotlib.colors import Normalize

    def light(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        rgb = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    shade = Shade(Normalize(0, 1))
    for value in np.linspace(0, 1, 101):
        back, ink = re.fullmatch(r"background-color:(#\w+);color:(#\w+)", shade(value)).groups()  # type: ignore[union-attr]
        low, high = sorted((light(back), light(ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_marks_keep_the_text_and_find_every_occurrence() -> None:
    text = "At noon. At noon, <b>"
    pieces = mark_words(text, ["At noon"])
    assert "".join(piece for piece, _ in pieces) == text
    assert [piece for piece, hit in pieces if hit] == ["At noon", "At noon"]
