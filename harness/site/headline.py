"""What the pages show as tables: the headline, attack x defense matrices, coverage; and their files for papers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite, log
from typing import Any

import numpy as np
import pandas as pd

from harness.report.cells import LOWER_IS_BETTER
from harness.report.doses import explain_no_credit, format_estimate
from harness.report.summary import ROW, STATUSES, explain_reach
from harness.report.tables import Tables

COUNTS = {"done": "done", "failed": "failed", "timed out": "timed out", "not applicable": "n/a", "missing": "missing"}


@dataclass(frozen=True)
class Column:
    """A column of a listing."""

    name: str
    number: bool = False
    help: str = ""
    choose: bool = False  # few values, so that the reader may pick one
    within: int | None = None  # the column whose values are not to be compared with one another: sorted by it first


@dataclass(frozen=True)
class Field:
    """A field of a listing or a matrix."""

    text: str
    small: str = ""  # a second line, such as an interval
    sort: float | None = None  # of a number; None sorts last
    href: str = ""
    help: str = ""
    kind: str = ""  # a class of style.css
    colour: str = ""  # of a matrix: background and text, as a CSS declaration


@dataclass(frozen=True)
class Listing:
    """A table to sort and filter."""

    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Field]]


@dataclass(frozen=True)
class Matrix:
    """Defense x attack, a number in every field."""

    id: str
    title: str
    note: str
    attacks: Sequence[Field]
    rows: Sequence[tuple[Field, Sequence[Field]]]
    scale: Sequence[Field] = field(default_factory=tuple)  # the legend: colours of round values


def common_doses(summary: pd.DataFrame) -> dict[tuple[str, str], int]:
    """By task and attack: the largest dose at which every defense is done that was done at any; 0 where there is none.

    Where no dose has them all, the largest at which most are.
    """
    found: dict[tuple[str, str], int] = {}
    if summary.empty:
        return found
    for (task, attack), part in summary.groupby(["task", "attack"], sort=False):
        done = part[(part.dose > 0) & (part.n_done > 0)].groupby("dose").defense.nunique()
        found[str(task), str(attack)] = int(str(done[done == done.max()].index.max())) if len(done) else 0
    return found


def headline(found: Tables) -> pd.DataFrame:
    """One row per task, attack and defense: ED50, protection factor, ASR at the largest common dose, and the costs.

    Every attack stands undefended before it stands behind its defenses.

    clean_cost: the clean metric minus that of `none`, mean over the same seeds, at dose 0 where both were run there:
    at others the poison itself may cost `none` something. training_cost: seconds of training, as a multiple of those of
    `none` there; clean_used: rows of clean data.
    """
    summary = found.summary
    if summary.empty or "asr" not in summary:
        return pd.DataFrame()
    graded = summary[summary.asr.notna()]
    names = [f"{column}_name" for column in ROW]
    doses = common_doses(graded)
    rows = graded.drop_duplicates(ROW)[[*ROW, "stage", "clean_metric", "gate"]]
    rows = rows.merge(found.cells.drop_duplicates(ROW)[[*ROW, *names]], on=ROW, how="left")
    rows = rows.assign(dose=[doses[pair] for pair in zip(rows.task, rows.attack)])
    at = ["asr", "asr_low", "asr_high", "asr_floor", "utility"]
    rows = rows.merge(graded[[*ROW, "dose", *at]], on=[*ROW, "dose"], how="left")
    rows = rows.merge(_costs(found.cells), on=ROW, how="left")
    if not found.doses.empty:
        names = [c for c in found.doses if c.startswith(("ed50", "ed90", "protection"))]
        names += [c for c in ("seeds", "train_size", "chance", "level", "p", "note") if c in found.doses]
        rows = rows.merge(found.doses[[*ROW, *names]], on=ROW, how="left")
    if not found.windows.empty:
        names = [c for c in found.windows if c.startswith("window")]
        rows = rows.merge(found.windows.drop_duplicates(ROW)[[*ROW, *names]], on=ROW, how="left")
    numbers = [
        f"{name}{end}" for name in ("ed50", "protection", "window") for end in ("", "_low", "_high", "_censored")
    ]
    rows = rows.reindex(columns=list(dict.fromkeys([*rows, "train_size", "chance", *numbers])))  # nan where unknown
    for name in ("ed50_censored", "protection_censored", "window_censored", "note"):
        words = rows[name].astype(object) if name in rows else pd.Series("", rows.index, dtype=object)
        rows[name] = words.where(words.notna(), "")
    for _, shut in rows[~rows.gate.astype(bool)].groupby(["task", "attack"], sort=False):
        rows.loc[shut.index, "note"] = [f"{explain_no_credit(shut)}; {note}".rstrip("; ") for note in shut.note]
    unseen = {place: explain_reach(line) for place, line in graded.groupby(ROW, sort=False)}
    places = zip(rows.task, rows.attack, rows.defense)
    rows["note"] = [f"{unseen[place]}; {note}".strip("; ") for place, note in zip(places, rows.note)]
    first = {c: {v: i for i, v in enumerate(dict.fromkeys(rows[c]))} for c in ("task", "attack")}

    def place(values: pd.Series) -> pd.Series:
        return values.map(first[str(values.name)]) if values.name in first else values != "none"

    return rows.sort_values(ROW, key=place, kind="stable", ignore_index=True)


def _costs(cells: pd.DataFrame) -> pd.DataFrame:
    done = cells[(cells.status == "done") & cells.asr.notna()]
    where = ["task", "attack", "dose", "seed"]
    cost = ["utility", "fit_seconds", "clean_used"]
    base = done[done.defense == "none"][[*where, "utility", "fit_seconds"]]
    pairs = done[[*ROW, "dose", "seed", *cost]].merge(base, on=where, how="left", suffixes=("", "_none"))
    pairs["clean_cost"] = pairs.utility - pairs.utility_none
    clean = (
        pairs.dose.where(pairs.clean_cost.notna()).groupby([pairs[c] for c in ROW], sort=False).transform("min") == 0
    )
    pairs.loc[clean & (pairs.dose > 0), "clean_cost"] = np.nan
    means = pairs.groupby(ROW, sort=False)[["clean_cost", *cost, "fit_seconds_none"]].mean().reset_index()
    means["training_cost"] = means.fit_seconds / means.fit_seconds_none
    return means.drop(columns=["utility", "fit_seconds_none"])


def count_by_status(cells: pd.DataFrame, missing: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """How many cells are done, failed, timed out, not applicable or missing, by these columns of theirs."""
    states = pd.concat([cells[[*by, "status"]], missing[by].assign(status="missing")], ignore_index=True)
    counts = states.groupby([*by, "status"], sort=False).size().unstack("status", fill_value=0)
    return counts.reindex(columns=[*STATUSES, "missing"], fill_value=0)


def coverage_field(counts: Any) -> Field:
    """A row of `coverage` in words."""
    parts = [f"{counts[state]:,} {word}" for state, word in COUNTS.items() if counts[state]]
    worst = next((s for s in ("failed", "timed out", "missing") if counts[s]), "")
    kind = worst or ("done" if counts["done"] else "not applicable")
    return Field(", ".join(parts), sort=float(counts["done"]), kind=kind.replace(" ", "-"))


class Shade:
    """cividis, which colour-blind readers can read; text in whichever of black and white stands out more."""

    def __init__(self, norm: Any, falling: bool = False) -> None:
        from matplotlib import colormaps

        self.norm, self.map = norm, colormaps["cividis_r" if falling else "cividis"]

    def __call__(self, value: float) -> str:
        red, green, blue, _ = self.map(self.norm(value))
        ink = "#fff" if _luminance(red, green, blue) < 0.179 else "#000"
        return f"background-color:#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x};color:{ink}"

    def scale(self, values: Iterable[float], form: str) -> tuple[Field, ...]:
        return tuple(Field(form.format(v), colour=self(v)) for v in values)


def _luminance(*rgb: float) -> float:
    """Relative luminance (WCAG 2.2); 0.179 is where black and white text have the same contrast."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def matrices(task: str, found: Tables, head: pd.DataFrame, missing: pd.DataFrame) -> list[Matrix]:
    """The task's matrices: ASR, clean metric, protection factor."""
    from matplotlib.colors import LogNorm, Normalize

    part = head[head.task == task]
    if part.empty:
        return []
    metric = part.clean_metric.iloc[0]
    form = number_format(metric)
    low, high = part.utility.min(), part.utility.max()
    spread = Normalize(low, high if high > low else low + 1e-9)
    round_values = [low, (low + high) / 2, high] if high > low else [low]
    share, clean = Shade(Normalize(0, 1)), Shade(spread, metric in LOWER_IS_BETTER)
    factor = Shade(LogNorm(0.5, 16, clip=True))
    fields = _Fields(task, found.summary, part, missing)
    by_attack = dict(zip(part.attack, part.dose))
    at = [Field(str(a), help=f"dose {by_attack[a]}", kind="gated" if not gate else "")
          for a, gate in dict(zip(part.attack, part.gate)).items()]  # fmt: skip
    note = "At the largest dose that all defenses of the column have. Striped: the undefended attack is too weak."
    made = [
        Matrix("asr", "Attack success rate", f"{note} Lower is safer.", at,
               fields(lambda r: Field(f"{r.asr:.2f}", help=_spread(r, "asr"), colour=share(r.asr))),
               share.scale((0, 0.25, 0.5, 0.75, 1), "{:.2f}")),
        Matrix("clean", f"Clean metric: {metric}", f"{note} {_better(metric)}", at,
               fields(lambda r: Field(form.format(r.utility), colour=clean(r.utility))),
               clean.scale(round_values, form)),
    ]  # fmt: skip
    if part.protection.notna().any():
        made.append(
            Matrix("protection", "Protection factor", "How many times more poisoned samples the attack then needs.",
                   [Field(a.text, kind=a.kind) for a in at], fields(lambda r: _factor(r, factor), ("none",)),
                   factor.scale((0.5, 1, 2, 4, 8, 16), "{:g}"))
        )  # fmt: skip
    return made


def _better(metric: str) -> str:
    return "Lower is better." if metric in LOWER_IS_BETTER else "Higher is better."


def _spread(row: Any, name: str) -> str:
    low, high = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
    return f"95 % interval {low:.2f} to {high:.2f}" if low == low else "one seed: no interval"


def _factor(row: Any, shade: Shade) -> Field:
    if row.protection != row.protection:
        words = format_estimate(row, "protection")
        said = row.note or ("" if words == "-" else words)
        return Field("gate shut" if not row.gate else "no number", help=said, kind="empty")
    shown, _, interval = format_estimate(row, "protection").partition(" (")
    return Field(shown, interval.rstrip(")"), colour=shade(row.protection))


class _Fields:
    """The rows of a matrix of one task: a defense, and a field for each attack, whatever became of its cells."""

    def __init__(self, task: str, summary: pd.DataFrame, part: pd.DataFrame, missing: pd.DataFrame) -> None:
        rows = summary[summary.task == task]
        self.attacks = list(dict.fromkeys(part.attack))
        rows = rows[rows.attack.isin(self.attacks)]
        self.defenses = list(
            dict.fromkeys(rows.sort_values("stage", key=lambda s: s != "control", kind="stable").defense)
        )
        self.measured = {(r.attack, r.defense): r for r in part.itertuples()}
        self.planned = set(zip(missing[missing.task == task].attack, missing[missing.task == task].defense))
        worst = rows.groupby(["attack", "defense"], sort=False)[
            ["n_failed", "n_timed_out", "n_not_applicable"]
        ].sum()  # fmt: skip
        self.ended = {pair: worst.loc[pair] for pair in worst.index}
        self.reason = {(r.attack, r.defense): r.reason for r in rows.itertuples() if r.reason}

    def __call__(self, draw: Callable[[Any], Field], without: tuple[str, ...] = ()) -> list[tuple[Field, list[Field]]]:
        return [(Field(d), [self._field(a, d, draw) for a in self.attacks]) for d in self.defenses if d not in without]

    def _field(self, attack: str, defense: str, draw: Callable[[Any], Field]) -> Field:
        row = self.measured.get((attack, defense))
        if row is not None and row.asr == row.asr:
            return draw(row)
        return Field(self._state((attack, defense)), help=self.reason.get((attack, defense), ""), kind="empty")

    def _state(self, pair: tuple[str, str]) -> str:
        ended = self.ended.get(pair)
        if pair in self.planned:
            return "missing"
        if pair in self.measured:
            return "other dose"
        if ended is None:
            return "not run"
        return "failed" if ended.n_failed else "timed out" if ended.n_timed_out else "n/a"


def number_format(metric: str, sign: str = "") -> str:
    """How values of a clean metric are written, so that a column of them lines up."""
    return f"{{:{sign}.3f}}" if metric.endswith("accuracy") else f"{{:{sign},.2f}}"


def digits(value: float, sign: str = "") -> str:
    """Three digits, or all that stand before the point: 0.0123, 12.3, 1,234."""
    return f"{value:{sign},.0f}" if abs(value) >= 999.5 else f"{value:{sign}.3g}"


def number_field(value: Any, form: str = "", **rest: Any) -> Field:
    """A number; a dash where there is none."""
    known = value is not None and value == value
    shown = (form.format(value) if form else digits(value)) if known else "–"
    return Field(shown, sort=float(value) if known and isfinite(value) else None, **rest)


# A bound may lie anywhere beyond its number: upper bounds stand before all numbers, lower bounds after them.
ASIDE = {"<": -1e3, ">": 1e3}


def estimate_field(row: Any, name: str) -> Field:
    """An ED50 or a protection factor as the tables print it, its interval below."""
    shown, _, interval = format_estimate(row, name).partition(" (")
    value = getattr(row, name)
    if shown == "-":
        return Field("–")
    if value != value:
        return Field("–", format_estimate(row, name))
    aside = ASIDE.get(getattr(row, f"{name}_censored"), 0.0)
    return Field(shown, interval.rstrip(")"), log(value) + aside if value > 0 else None)  # nan > 0 is False
