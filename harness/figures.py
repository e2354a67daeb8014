"""Figures from the summary table: dose-response curves and the attack x defense map of every task."""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.store import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

# Okabe and Ito's palette, safe for colour-blind readers; line styles tell repeats apart.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A")
STYLES = ("-", "--", ":", "-.")


def write(summary: pd.DataFrame, folder: Path) -> list[Path]:
    """<task>-dose.png and <task>-map.png for every task with a graded attack."""
    if summary.empty or "asr" not in summary:
        return []
    import matplotlib

    matplotlib.use("Agg", force=True)
    paths = []
    for task, part in summary[summary.asr.notna()].groupby("task", sort=False):
        for kind, draw in (("dose", curves), ("map", heat_map)):
            data = BytesIO()
            draw(part, str(task)).savefig(data, format="png", dpi=120)
            paths.append(folder / f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', str(task))}-{kind}.png")
            write_atomically(paths[-1], data.getvalue())
    return paths


def curves(part: pd.DataFrame, task: str) -> Figure:
    """ASR against dose, a panel per attack, a line per defense, 95 % intervals over seeds as bars."""
    figure, axes = _panels(part.attack.nunique())
    defenses = list(dict.fromkeys(part.defense))
    for axis, (attack, rows) in zip(axes, part.groupby("attack", sort=False), strict=True):
        for i, defense in enumerate(defenses):
            line = rows[rows.defense == defense].sort_values("dose")
            if line.empty:
                continue
            style = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[(i // len(COLOURS)) % len(STYLES)]}
            spread = line[["asr_low", "asr_high"]].clip(0, 1).to_numpy().T if "asr_low" in line else None
            width = 2.2 if defense == "none" else 1.3
            axis.plot(line.dose, line.asr, marker="o", markersize=3, linewidth=width, label=defense, **style)
            if spread is not None:
                axis.vlines(line.dose, *spread, colors=style["color"], linewidth=0.8, alpha=0.5)
        floor = rows.asr_floor.mean()
        axis.axhline(floor, color="grey", linewidth=0.8, linestyle=":", label="chance floor")
        axis.set_xscale("symlog", linthresh=1, linscale=0.5)
        ticks = sorted(rows.dose.unique())
        axis.set_xticks(ticks, labels=[str(t) for t in ticks], minor=False)
        axis.set_xticks([], minor=True)
        axis.set_ylim(-0.03, 1.03)
        axis.set_title(str(attack), fontsize=10)
        axis.set_xlabel("dose (poisoned samples)")
    axes[0].set_ylabel("ASR")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    figure.suptitle(f"{task}: ASR by dose, mean and 95 % interval over seeds", fontsize=11)
    return figure


def heat_map(part: pd.DataFrame, task: str) -> Figure:
    """ASR at the highest dose, the clean metric in brackets, defense x attack; hatched where the gate is shut."""
    top = part[part.dose == part.groupby("attack").dose.transform("max")]
    from matplotlib.figure import Figure

    attacks, defenses = list(dict.fromkeys(top.attack)), list(dict.fromkeys(top.defense))
    figure = Figure(figsize=(2.6 + 1.5 * len(attacks), 1.4 + 0.42 * len(defenses)), layout="constrained")
    axis: Any = figure.subplots()
    values = top.pivot(index="defense", columns="attack", values="asr").reindex(index=defenses, columns=attacks)
    image = axis.imshow(values.to_numpy(dtype=float), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for row in top.itertuples():
        x, y = attacks.index(row.attack), defenses.index(row.defense)
        axis.text(x, y, f"{row.asr:.2f}\n({row.utility:.2f})", ha="center", va="center", fontsize=7,
                  color="black" if row.asr > 0.6 else "white")  # fmt: skip
        if not row.gate:
            axis.add_patch(_hatched(x, y))
    labels = [f"{a}\ndose {int(top[top.attack == a].dose.iloc[0])}" for a in attacks]
    axis.set_xticks(range(len(attacks)), labels=labels, fontsize=8)
    axis.set_yticks(range(len(defenses)), labels=defenses, fontsize=8)
    figure.colorbar(image, ax=axis, label="ASR (clean metric in brackets)")
    axis.set_title(f"{task}\n(hatched: undefended attack too weak)", fontsize=9)
    return figure


def _panels(n: int) -> tuple[Figure, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.5, 3.0 * n + 2.2), 3.6), layout="constrained")
    return figure, list(figure.subplots(1, n, squeeze=False, sharey=True)[0])


def _hatched(x: int, y: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="///", edgecolor="#999999", linewidth=0)
