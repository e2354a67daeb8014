"""Figures of a report: dose-response curves and defense x attack maps of every task."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Container
from io import BytesIO
from typing import TYPE_CHECKING, Any

import matplotlib
import pandas as pd
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullLocator

from harness.report.cells import labels_without, options_by_label
from harness.report.doses import curves_by_seed, format_estimate
from harness.report.estimates import FEWEST
from harness.report.survival import SPLIT, seeds_won
from harness.store.folder import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from harness.report.tables import Tables

# Okabe and Ito's palette, safe for colour-blind readers; line styles tell repeats apart.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C510A")
STYLES = ("-", "--", ":", "-.")
NARROW = 4.4  # inches: text of 8 points can still be read on a telephone
BOUND = {"": "o", "<": "v", ">": "^"}  # markers of an ED50 and of bounds on one
LONGEST = 120  # characters of a label in a file's name; most systems allow 255 bytes
WIDEST = 48  # characters of a label in a figure
FLOOR = "chance floor"  # the last name of a legend

Look = tuple[str, str]  # colour and line style
Draw = Callable[[Any, pd.DataFrame, dict[str, Look]], None]


def write_figures(tables: Tables, folder: Path) -> list[Path]:
    """Write <task>-dose.png, -map.png and -protection.png of every task with a graded attack; the paths are returned.

    <task>-seeds.png is for tasks on which the seeds of an attack fall into two groups, so that they have no mean.
    Tasks that differ only in training-set size or augmentation share <task>-size.png or <task>-augmentation.png.
    """
    summary, doses = _short_labels(tables.summary), _short_labels(tables.doses)
    if summary.empty or "asr" not in summary:
        return []
    matplotlib.use("Agg", force=True)
    paths: list[Path] = []
    for task, part in summary[summary.asr.notna()].groupby("task", sort=False):
        _save(paths, curves(part, shorten(str(task), 100)), folder, str(task), "dose")
        _save(paths, heat_map(part, shorten(str(task), 100)), folder, str(task), "map")
    if "protection" in doses:
        for task, part in doses[doses.defense != "none"].groupby("task", sort=False):
            _save(paths, protection_map(part, shorten(str(task), 100)), folder, str(task), "protection")
    if "ed50_text" in doses:
        for task, part in doses[doses.ed50_text.str.contains(SPLIT, na=False)].groupby("task", sort=False):
            cells = _short_labels(tables.cells[tables.cells.task == task])
            shown = cells.attack.isin(part.attack) & cells.defense.isin({"none", *part.defense})
            figure = seed_curves(cells[shown], shorten(str(task), 100))
            _save(paths, figure, folder, str(task), "seeds")
    for task in tables.scaling.task.unique() if not tables.scaling.empty else ():
        _save(paths, size_curves(doses[doses.family == task], shorten(str(task), 100)), folder, str(task), "size")
    for task, part in compare_augmentations(tables).groupby("task", sort=False):
        if part.defense.nunique() > 1:
            _save(paths, curves(part, f"{shorten(str(task), 100)}, undefended"), folder, str(task), "augmentation")
    return paths


def compare_augmentations(tables: Tables) -> pd.DataFrame:
    """The undefended rows of the summary, with the augmentation in the place of the defense.

    `curves` then draws a line for each augmentation.
    """
    options = options_by_label(tables.cells, "task")
    augmentation = {task: str(its.get("augmentation", "default")) for task, (_, its) in options.items()}
    rows = tables.summary[(tables.summary.defense == "none") & tables.summary.asr.notna()]
    return rows.assign(
        task=rows.task.map(labels_without(tables.cells, "task", "augmentation")),
        attack=rows.attack.map(shorten),
        defense="augmentation " + rows.task.map(augmentation),
    )


def _short_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """The same rows with labels of attacks and defenses that fit into a figure."""
    names = [name for name in ("attack", "defense") if name in rows]
    return rows.assign(**{name: rows[name].map(shorten) for name in names})


def shorten(label: str, most: int = WIDEST) -> str:
    """A label as a figure shows it: its middle left out if it is long, and no sign taken for a formula."""
    if len(label) > most:
        label = f"{label[: most - 20]}...{hash_of(label)}{label[-9:]}"
    return label.replace("$", r"\$")


def _save(paths: list[Path], figure: Figure, folder: Path, task: str, kind: str) -> None:
    """Write a figure, and add its path to those that are written."""
    data = BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the font lacks a sign of a name, and shows a box instead
        figure.savefig(data, format="png", dpi=120)
    taken = {path.name.lower().removesuffix(f"-{kind}.png") for path in paths}
    path = folder / f"{file_name(task, taken)}-{kind}.png"
    write_atomically(path, data.getvalue())
    paths.append(path)


def file_name(label: str, taken: Container[str] = ()) -> str:
    """A label as part of a file's name, for every system; with some digits of its hash if it is long, or taken.

    taken: names in lower case, for some systems take no difference.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", label)
    return name if len(name) <= LONGEST and name.lower() not in taken else f"{name[:LONGEST]}-{hash_of(label)}"


def hash_of(label: str) -> str:
    """8 hex digits that tell labels apart."""
    return hashlib.sha256(label.encode(errors="backslashreplace")).hexdigest()[:8]


def curves(part: pd.DataFrame, task: str) -> Figure:
    """ASR against dose, a panel per attack, a line per defense, 95 % intervals over seeds as bands."""

    def draw(axis: Any, rows: pd.DataFrame, looks: dict[str, Look]) -> None:
        for defense, (colour, style) in looks.items():
            line = rows[rows.defense == defense].sort_values("dose")
            if line.empty:
                continue
            width = 2.2 if defense == "none" else 1.3
            axis.plot(
                line.dose, line.asr, marker="o", markersize=3, linewidth=width, label=defense, color=colour,
                linestyle=style,
            )  # fmt: skip
            if "asr_low" in line and line.n_done.max() >= FEWEST:  # of two seeds it is most often all there is
                spread = line[["asr_low", "asr_high"]].clip(0, 1).to_numpy().T
                axis.fill_between(line.dose, *spread, color=colour, linewidth=0, alpha=0.08)
        axis.axhline(rows.asr_floor.mean(), color="grey", linewidth=0.8, linestyle=":", label=FLOOR)
        ticks = sorted(rows.dose.unique())
        smallest = next((t for t in ticks if t), 1)
        axis.set_xscale("symlog", linthresh=smallest, linscale=0.5)  # logarithmic, with room for dose 0
        axis.set_xlim(-0.3 * smallest, 1.3 * max(ticks[-1], smallest))
        _set_ticks(axis, ticks)
        axis.set_ylim(-0.03, 1.03)
        axis.set_xlabel("dose (poisoned samples)")

    return _panels(part, draw, "ASR", f"{task}\nASR by dose, mean and (of three or more) 95 % interval over seeds")


def seed_curves(cells: pd.DataFrame, task: str) -> Figure:
    """The share of seeds in which an attack has reached its ED50's level, by dose; a panel per attack."""
    last = cells.dose.max()

    def draw(axis: Any, rows: pd.DataFrame, looks: dict[str, Look]) -> None:
        for defense, (colour, style) in looks.items():
            doses, shares = seeds_won(curves_by_seed(rows[rows.defense == defense]))
            x, y = [0.8 * rows.dose[rows.dose > 0].min(), *doses, last], [0, *shares, shares[-1] if len(shares) else 0]
            axis.step(x, y, where="post", color=colour, linestyle=style, linewidth=1.5, label=defense)
        axis.set_xscale("log")
        set_plain_ticks(axis.xaxis)
        axis.set_ylim(-0.03, 1.03)
        axis.set_xlabel("dose (poisoned samples)")

    title = f"{task}\nSeeds in which ASR is half of the way from chance to 1"
    return _panels(cells, draw, "share of seeds", title)


def size_curves(part: pd.DataFrame, task: str) -> Figure:
    """ED50 against training-set size, a panel per attack, a line per defense; triangles are bounds."""

    def draw(axis: Any, rows: pd.DataFrame, looks: dict[str, Look]) -> None:
        for defense, (colour, style) in looks.items():
            line = rows[(rows.defense == defense) & rows.ed50.notna()].sort_values("train_size")
            axis.plot(line.train_size, line.ed50, color=colour, linestyle=style, linewidth=1.3, label=defense)
            for row in line.itertuples():
                bound = str(row.ed50_censored)
                axis.plot(row.train_size, row.ed50, marker=BOUND[bound], markersize=5, color=colour,
                          markerfacecolor="none" if bound else colour)  # fmt: skip
                if not bound and row.ed50_high < float("inf"):
                    axis.vlines(row.train_size, row.ed50_low, row.ed50_high, colors=colour, linewidth=0.8)
        axis.set_xscale("log")
        axis.set_yscale("log")
        set_plain_ticks(axis.yaxis)
        _set_ticks(axis, [int(size) for size in sorted(rows.train_size.unique())])
        axis.set_xlabel("training rows")

    title = f"{task}\nED50 by training-set size, 95 % interval over seeds (triangles: bounds)"
    return _panels(part, draw, "ED50 (poisoned samples)", title)


def heat_map(part: pd.DataFrame, task: str) -> Figure:
    """ASR at the highest dose, the clean metric in brackets, defense x attack; hatched where the gate is shut."""
    top = part[part.dose == part.groupby("attack").dose.transform("max")]
    dose = {row.attack: f"{row.attack}\ndose {int(row.dose)}" for row in top.itertuples()}
    return _matrix(
        top, "asr", Normalize(0, 1), lambda row: f"{row.asr:.2f}\n({row.utility:.2f})",
        "ASR (clean metric in brackets)", f"{task}\n(hatched: undefended attack too weak)", dose,
    )[0]  # fmt: skip


def protection_map(part: pd.DataFrame, task: str) -> Figure:
    """Protection factor, defense x attack: how many times more samples the attack needs. Hatched: no credit."""

    def write_factor(row: Any) -> str:
        if row.protection == row.protection:
            return format_estimate(row, "protection").replace(" (", "\n(")
        return "-" if row.gate else "gate shut"

    figure, bar = _matrix(
        part, "protection", LogNorm(0.5, 16, clip=True), write_factor, "protection factor",
        f"{task}\nED50 defended / undefended, 95 % interval (hatched: undefended attack too weak)",
    )  # fmt: skip
    bar.set_ticks([0.5, 1, 2, 4, 8, 16], labels=["0.5", "1", "2", "4", "8", "16 or more"])
    bar.ax.minorticks_off()
    return figure


def _panels(part: pd.DataFrame, draw: Draw, ylabel: str, title: str) -> Figure:
    """A panel per attack; `draw` fills one, given its rows and the look of every defense.

    A single panel is narrow enough for a telephone or a column of a paper, with the legend below it.
    """
    looks = {
        defense: (COLOURS[i % len(COLOURS)], STYLES[(i // len(COLOURS)) % len(STYLES)])
        for i, defense in enumerate(dict.fromkeys(part.defense))
    }
    n = part.attack.nunique()
    figure = Figure(figsize=(max(6.5, 3.0 * n + 2.2), 3.8), layout="constrained")
    axes = figure.subplots(1, n, squeeze=False, sharey=True)[0]
    for axis, (attack, rows) in zip(axes, part.groupby("attack", sort=False), strict=True):
        draw(axis, rows, looks)
        axis.set_title(str(attack), fontsize=10)
    axes[0].set_ylabel(ylabel)
    lines = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels())}
    names = [name for name in lines if name != FLOOR] + [name for name in lines if name == FLOOR]
    place: Any = {"loc": "outside right center"} if n > 1 else {"loc": "outside lower center", "ncols": 2}
    figure.legend([lines[name] for name in names], names, fontsize=8, frameon=False, **place)
    figure.suptitle(title, fontsize=10 if n > 1 else 8)
    if n == 1:
        figure.set_size_inches(NARROW, 3.2 + 0.085 * len(names))
    return figure


def _matrix(
    part: pd.DataFrame, value: str, norm: Any, write: Callable[[Any], str], label: str, title: str,
    names: dict[str, str] | None = None,
) -> tuple[Figure, Any]:  # fmt: skip
    """A map of defense x attack, and its colour bar. Fields are hatched where the gate is shut.

    value: the column that colours a field. write: the text in it. names: other names of attacks on the axis.
    """
    attacks, defenses = list(dict.fromkeys(part.attack)), list(dict.fromkeys(part.defense))
    figure = Figure(figsize=(max(6.0, 2.9 + 1.6 * len(attacks)), 1.4 + 0.42 * len(defenses)), layout="constrained")
    axis: Any = figure.subplots()
    values = part.pivot(index="defense", columns="attack", values=value).reindex(index=defenses, columns=attacks)
    image = axis.imshow(values.to_numpy(dtype=float), cmap="cividis", norm=norm, aspect="auto")
    for row in part.itertuples():
        x, y, number = attacks.index(row.attack), defenses.index(row.defense), getattr(row, value)
        dark = number == number and norm(number) <= 0.6
        axis.text(x, y, write(row), ha="center", va="center", fontsize=7, color="white" if dark else "black")
        if not row.gate:
            axis.add_patch(_hatch(x, y))
    axis.set_xticks(range(len(attacks)), labels=[(names or {}).get(a, a) for a in attacks], fontsize=8)
    axis.set_yticks(range(len(defenses)), labels=defenses, fontsize=8)
    axis.set_title(title, fontsize=8)
    return figure, figure.colorbar(image, ax=axis, label=label)


def set_plain_ticks(axis: Any, room: float = 5000) -> None:
    """Write numbers and not powers on a logarithmic axis: 1 2 5 10 20 50, or 1 10 100 where `room` is exceeded.

    room: the largest ratio of the ends of the axis at which 2 and 5 are written too.
    """
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < room * low else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:,.9g}")


def _set_ticks(axis: Any, ticks: list[Any]) -> None:
    """Put exactly these ticks on the horizontal axis."""
    axis.set_xticks(ticks, labels=[f"{t:,}" for t in ticks], minor=False, fontsize=8)
    axis.set_xticks([], minor=True)


def _hatch(x: int, y: int) -> Any:
    return Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="///", edgecolor="#999999", linewidth=0)
