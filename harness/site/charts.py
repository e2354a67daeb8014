"""Figures of the leaderboard as SVG, PNG and PDF; the same tables give the same bytes."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.plugins.modalities import find_modality
from harness.report.figures import BOUND, set_plain_ticks, shorten
from harness.site.overview import working_rows
from harness.store.folder import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE = 6.5  # inches
FORMATS = ("svg", "png", "pdf")
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


def save(figure: Figure, folder: Path, name: str, formats: tuple[str, ...] = FORMATS) -> None:
    """<name>.svg and so on. name: safe as a file's name."""
    from matplotlib import rc_context

    for ending in formats:
        data = BytesIO()
        with rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "pdf.fonttype": 42}):
            figure.savefig(data, format=ending, dpi=150, metadata=UNDATED[ending])
        write_atomically(folder / f"{name}.{ending}", data.getvalue())


def how_many(head: pd.DataFrame, modality: dict[str, str], width: float = WIDE) -> Figure:
    """ED50 of every undefended attack that works: a line per attack, a point per task."""
    return _lines(working_rows(head), "attack", "ed50", "ED50 (poisoned samples)", modality, width)


def what_it_buys(head: pd.DataFrame, modality: dict[str, str], width: float = WIDE) -> Figure:
    """Protection factors: a line per defense, a point per task and attack."""
    rows = head[head.stage != "control"]
    return _lines(rows, "defense", "protection", "protection factor (times more samples)", modality, width)


def _lines(rows: pd.DataFrame, by: str, name: str, label: str, modality: dict[str, str], width: float) -> Figure:
    """Points with faint 95 % intervals in lines by attack or defense, in order of medians; triangles are bounds."""
    rows = rows[rows[name].notna() & (rows[name] > 0)]
    lines = rows.attack_name if by == "attack" else rows[by]  # a target class makes no other attack
    order = [
        str(line)
        for line in rows.groupby(lines)[name].median().sort_values(kind="stable", ascending=by == "defense").index
    ]
    figure, axis = _axis(len(order), width)
    axis.axvline(1, color="grey", linewidth=0.8)
    for y, line in enumerate(order):
        part = rows[lines == line].sort_values(name, ascending=False, kind="stable")
        for i, row in enumerate(part.itertuples()):
            apart = 0.6 * ((i + 0.5) / len(part) - 0.5)
            _point(axis, row, name, y + apart, find_modality(modality.get(str(row.task), "")).hue)
    axis.set_yticks(range(len(order)), labels=[shorten(line).replace("(", "\n(") for line in order], fontsize=8)
    axis.set_xlim(rows[name].min() / 3, rows[name].max() * 3)
    axis.set_xlabel(label, fontsize=9)
    _finish(figure, axis, [modality.get(str(t), "") for t in rows.task])
    return figure


def _axis(lines: int, width: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 1.1 + 0.24 * max(lines, 2)), layout="constrained")
    axis: Any = figure.subplots()
    axis.set_xscale("log")
    axis.grid(axis="x", linewidth=0.4, alpha=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(-0.7, lines - 0.3)
    return figure, axis


def _point(axis: Any, row: Any, name: str, y: float, colour: str) -> None:
    value, censored = getattr(row, name), str(getattr(row, f"{name}_censored"))
    low, high = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
    marker = {"": "o", "<": "<", ">": ">"}[censored] if censored in BOUND else "o"
    axis.plot(value, y, marker=marker, markersize=4.5, color=colour, linestyle="", markeredgewidth=1,
              markerfacecolor="none" if censored else colour)  # fmt: skip
    if not censored and low == low and high < float("inf"):
        axis.hlines(y, low, high, colors=colour, linewidth=0.9, alpha=0.35)


def _finish(figure: Figure, axis: Any, modalities: list[str]) -> None:
    wide = figure.get_figwidth() >= WIDE
    set_plain_ticks(axis.xaxis, 5000 if wide else 500)
    for name in sorted(set(modalities)):
        axis.plot([], [], marker="o", linestyle="", markersize=4.5, color=find_modality(name).hue, label=name)
    figure.legend(
        *axis.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside upper center", ncols=4 if wide else 3
    )
