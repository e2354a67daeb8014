"""Figures of the leaderboard as SVG, PNG and PDF; the same tables give the same bytes."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.figures import BOUND, COLOURS
from harness.store import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "png", "pdf")
UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
HUES = {"text": COLOURS[1], "image": COLOURS[2], "audio": COLOURS[3], "tabular": COLOURS[4]}


def save(figure: Figure, folder: Path, name: str, formats: tuple[str, ...] = FORMATS) -> None:
    """<name>.svg and so on. name: safe as a file's name."""
    from matplotlib import rc_context

    for ending in formats:
        data = BytesIO()
        with rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "pdf.fonttype": 42}):
            figure.savefig(data, format=ending, dpi=150, metadata=UNDATED[ending])
        write_atomically(folder / f"{name}.{ending}", data.getvalue())


def how_many(head: pd.DataFrame, modality: dict[str, str]) -> Figure:
    """ED50 of every undefended attack that works, smallest first, with its interval; triangles are bounds."""
    rows = head[(head.defense == "none") & head.gate.astype(bool) & head.ed50.notna()]
    rows = rows.sort_values(["ed50", "task", "attack"], ascending=False)
    figure, axis = _axis(len(rows))
    for y, row in enumerate(rows.itertuples()):
        _point(axis, row, "ed50", y, HUES.get(modality.get(str(row.task), ""), "black"))
    axis.set_yticks(range(len(rows)), labels=[f"{r.attack}   {r.task}" for r in rows.itertuples()], fontsize=7)
    axis.set_xlabel("ED50: poisoned samples to half of the way")
    _finish(figure, axis, [modality.get(str(t), "") for t in rows.task])
    return figure


def what_it_buys(head: pd.DataFrame, modality: dict[str, str]) -> Figure:
    """Protection factors: a line per defense, in order of medians, a point per task and attack; triangles: bounds."""
    rows = head[(head.stage != "control") & head.protection.notna() & (head.protection > 0)]
    medians = rows.groupby("defense").protection.median()
    order = [str(d) for d in medians.sort_values(kind="stable").index]
    figure, axis = _axis(len(order))
    axis.axvline(1, color="grey", linewidth=0.8)
    for y, defense in enumerate(order):
        part = rows[rows.defense == defense]
        for i, row in enumerate(part.itertuples()):
            apart = 0.5 * ((i + 0.5) / len(part) - 0.5)
            _point(axis, row, "protection", y + apart, HUES.get(modality.get(str(row.task), ""), "black"), bars=False)
    axis.set_yticks(range(len(order)), labels=order, fontsize=8)
    axis.set_xlabel("protection factor: times more poisoned samples")
    _finish(figure, axis, [modality.get(str(t), "") for t in rows.task])
    return figure


def _axis(lines: int) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 1.2 + 0.22 * max(lines, 2)), layout="constrained")
    axis: Any = figure.subplots()
    axis.set_xscale("log")
    axis.grid(axis="x", linewidth=0.4, alpha=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(-0.7, lines - 0.3)
    return figure, axis


def _point(axis: Any, row: Any, name: str, y: float, colour: str, bars: bool = True) -> None:
    value, censored = getattr(row, name), str(getattr(row, f"{name}_censored"))
    low, high = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
    marker = {"": "o", "<": "<", ">": ">"}[censored] if censored in BOUND else "o"
    axis.plot(value, y, marker=marker, markersize=4.5, color=colour, linestyle="", markeredgewidth=1,
              markerfacecolor="none" if censored else colour)  # fmt: skip
    if bars and not censored and low == low and high < float("inf"):
        axis.hlines(y, low, high, colors=colour, linewidth=1.1)


def _finish(figure: Figure, axis: Any, modalities: list[str]) -> None:
    from matplotlib.ticker import FuncFormatter

    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    for name in sorted(set(modalities)):
        axis.plot([], [], marker="o", linestyle="", markersize=4.5, color=HUES.get(name, "black"), label=name)
    figure.legend(*axis.get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside upper right", ncols=6)
