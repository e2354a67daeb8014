"""Tables from records: one row per cell, one row per task x attack x defense x dose, and what is printed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

import pandas as pd
from scipy import stats

from harness import dose_table, stealth_table
from harness.dose import excess
from harness.grid import without_option
from harness.records import Record
from harness.store import write_atomically
from harness.table import new_table

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

GATE = (
    0.5  # of the way from the chance floor to 1: what an undefended attack must reach at some dose to count as working
)
ROW = ["task", "attack", "defense"]
CELL = [
    "task",
    "modality",
    "attack",
    "defense",
    "stage",
    "dose",
    "seed",
    "status",
    "reason",
    "train_size",
    "clean_metric",
]
COSTS = ["seconds", "fit_seconds", "clean_used", "device", "commit", "key"]


def cells_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record, in the order given: cell, status, every metric (and its n as <metric>_n), costs."""
    rows = []
    for r in records:
        row = {
            "task": r.task.label, "modality": r.modality, "attack": r.attack.label, "defense": r.defense.label,
            "stage": r.stage, "dose": r.dose, "seed": r.seed, "status": r.status, "reason": r.reason,
            "train_size": r.train_size, "clean_metric": r.clean_metric,
        }  # fmt: skip
        for name, metric in r.metrics.items():
            row[name], row[f"{name}_n"] = metric.value, metric.n
        row |= {
            "seconds": r.seconds.get("total"), "fit_seconds": r.fit_seconds, "clean_used": r.clean_used,
            "device": r.provenance.get("device", ""), "commit": r.provenance.get("commit", ""), "key": r.key,
        }  # fmt: skip
        rows.append(row)
    return ordered(pd.DataFrame(rows))


def ordered(cells: pd.DataFrame) -> pd.DataFrame:
    """The same rows; what a cell is, then metrics by name, then costs: whichever cell was read first."""
    first, last = (pd.Index(names).intersection(cells.columns, sort=False) for names in (CELL, COSTS))
    metrics = sorted(set(cells.columns) - {*first, *last})
    return cells[[*first, *metrics, *last]].reset_index(drop=True)


def summary_frame(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per task, attack, defense and dose: means over seeds with 95 % intervals, coverage, and the gate.

    Intervals are t intervals; of a targeted attack, whose every cell has one answer, binomial (Wilson) ones.
    `gate` is False where the undefended attack never gets GATE of the way from its chance floor to 1: no defense earns
    credit there.
    """
    if cells.empty:
        return cells
    rows = []
    for (task, attack, defense, dose), part in cells.groupby([*ROW, "dose"], sort=False):
        done = part[part.status == "done"]
        row = {"task": task, "attack": attack, "defense": defense, "stage": part.stage.iloc[0], "dose": dose}
        row["clean_metric"] = part.clean_metric.iloc[0]
        row |= {f"n_{s.replace(' ', '_')}": int((part.status == s).sum()) for s in STATUSES}
        for name in MEANS:
            if name in done and done[name].notna().any():
                values = done[name].dropna()
                row[name] = values.mean()
                if name in ("asr", "utility"):
                    single = (done[f"{name}_n"] == 1).all()
                    row[f"{name}_low"], row[f"{name}_high"] = binomial(values) if single else interval(values)
                    worst = "max" if name == "asr" or row["clean_metric"] in LOWER_IS_BETTER else "min"
                    row[f"{name}_{worst}"] = values.agg(worst)
        row["reason"] = "; ".join(sorted(set(part.reason) - {""}))
        rows.append(row)
    frame = pd.DataFrame(rows)
    if "asr" in frame:
        undefended = frame[frame.defense == "none"]
        best = excess(undefended.asr, undefended.asr_floor).groupby([undefended.task, undefended.attack]).max()
        frame["gate"] = [best.get((t, a), float("nan")) >= GATE for t, a in zip(frame.task, frame.attack)]
    return frame


def worst_frame(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per task, attack (its target class aside), defense and dose run against several target classes.

    The highest ASR over seeds and targets, where it was, and the mean over all of them.
    """
    if "asr" not in cells:
        return pd.DataFrame()
    done = cells[(cells.status == "done") & cells.asr.notna()]
    rows = []
    for (task, attack, defense, dose), part in done.groupby(
        [done.task, done.attack.map(lambda label: without_option(label, "target")), done.defense, done.dose], sort=False
    ):
        if part.attack.nunique() > 1:
            top = part.loc[part.asr.idxmax()]
            rows.append({
                "task": task, "attack": attack, "defense": defense, "dose": dose, "targets": part.attack.nunique(),
                "asr": part.asr.mean(), "asr_max": top.asr, "worst_attack": top.attack, "worst_seed": top.seed,
            })  # fmt: skip
    return pd.DataFrame(rows)


LOWER_IS_BETTER = ("perplexity", "Frechet distance")
STATUSES = ("done", "failed", "timed out", "not applicable")
MEANS = (
    "asr", "asr_floor", "asr_plain", "asr_near", "asr_lenient", "asr_strict", "asr_found_0.7", "asr_found_0.9",
    "utility", "bits_per_byte", "class_fidelity", "robust_accuracy", "train_auroc", "train_tpr",
    "train_fpr", "train_precision",
    "input_auroc", "clean_abstained", "challenge_abstained", "model_suspicion", "target_found",
    "certified_radius_median", "certified_accuracy_at_1", "fit_seconds", "seconds", "clean_used",
)  # fmt: skip


def interval(values: pd.Series) -> tuple[float, float]:
    """95 % t interval of the mean over seeds; (nan, nan) for one seed, whose spread is unknown."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return values.mean() - half, values.mean() + half


def binomial(hits: pd.Series) -> tuple[float, float]:
    """95 % Wilson interval of a success rate over trials, each 0 or 1."""
    found = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return found.low, found.high


def printed(summary: pd.DataFrame, task: str) -> Table:
    """One task's table: ASR by dose for every attack and defense, clean metric, cost."""
    part = summary[summary.task == task]
    doses = sorted(part.dose.unique())
    title = f"{task}: ASR by dose (mean over seeds)"
    measured = part.clean_metric.iloc[0]
    if measured != "accuracy":
        title += f"; clean: {measured}{', lower is better' if measured in LOWER_IS_BETTER else ''}"
    numbers = [*map(str, doses), "clean", "Δ clean", "train s"]
    table = new_table(title, ["attack", "defense"], numbers, ["note"], width=5)
    for attack, rows in part.groupby("attack", sort=False):
        base = rows[rows.defense == "none"].get("utility", pd.Series(dtype=float)).mean()
        for defense, line in rows.groupby("defense", sort=False):
            by_dose = line.set_index("dose")
            shown = [_share(by_dose, dose, "asr") for dose in doses]
            clean = line.utility.mean() if "utility" in line else float("nan")
            delta = f"{clean - base:+.3f}" if clean == clean and base == base and defense != "none" else ""
            cost = f"{line.fit_seconds.mean():.1f}" if "fit_seconds" in line and line.fit_seconds.notna().any() else ""
            note = _note(line, dose_table.no_credit(rows[rows.n_done > 0]))
            table.add_row(str(attack), str(defense), *shown, _number(clean), delta, cost, note)
        table.add_section()
    return table


def printed_worst(worst: pd.DataFrame) -> Table:
    """Mean and highest ASR over target classes and seeds."""
    names, numbers = ["task", "attack", "defense"], ["dose", "targets", "mean ASR", "worst ASR"]
    table = new_table("worst case over target classes and seeds", names, numbers, ["worst at"])
    for row in worst.itertuples():
        at = f"{row.worst_attack}, seed {row.worst_seed}"
        numbers = [str(row.dose), str(row.targets), f"{row.asr:.3f}", f"{row.asr_max:.3f}"]
        table.add_row(str(row.task), str(row.attack), str(row.defense), *numbers, at)
    return table


@dataclass(frozen=True)
class Tables:
    """What a report is made of; every frame may be empty."""

    cells: pd.DataFrame  # one row per cell
    summary: pd.DataFrame  # one row per task, attack, defense and dose
    doses: pd.DataFrame  # one row per task, attack and defense: ED50 and protection factor
    scaling: pd.DataFrame  # one row per attack and defense run at several training-set sizes
    worst: pd.DataFrame  # one row per task, attack, defense and dose run against several target classes
    stealth: pd.DataFrame  # one row per task, attack, dose and check: what would have been seen of the poison


def tables(cells: pd.DataFrame) -> Tables:
    """Every table, from that of the cells."""
    summary = summary_frame(cells)
    doses = dose_table.dose_frame(cells, summary)
    scaling, stealth = dose_table.scaling_frame(cells), stealth_table.stealth_frame(cells)
    return Tables(cells, summary, doses, scaling, worst_frame(cells), stealth)


def read_cells(path: Path) -> pd.DataFrame:
    """A published table of cells, so that everything else can be made again without the records."""
    words = ("reason", "device", "commit", "key")  # which may be empty, or look like numbers
    cells = pd.read_csv(path, dtype=dict.fromkeys(words, str)).fillna(dict.fromkeys(words, ""))
    return cells if "clean_metric" in cells else cells.assign(clean_metric="accuracy")  # before it was written down


def write(found: Tables, folder: Path) -> list[Path]:
    """Rewrite a folder from its tables: CSV per table, two JSON files and the figures, whose paths it returns."""
    from harness import dvc_export, figures

    for name, frame in vars(found).items():
        if not frame.empty:
            write_atomically(folder / f"{name}.csv", as_csv(frame, digits=12 if name == "cells" else 6))
    write_atomically(folder / "summary.json", as_json(found.summary))
    write_atomically(folder / "metrics.json", dvc_export.metrics(found))
    return figures.write(found, folder)


def as_csv(frame: pd.DataFrame, digits: int = 6) -> str:
    out = StringIO()
    frame.to_csv(out, index=False, float_format=f"%.{digits}g", lineterminator="\n")
    return out.getvalue()


def as_json(frame: pd.DataFrame) -> str:
    return json.dumps(json.loads(frame.to_json(orient="records", double_precision=6)), indent=1)


def _share(by_dose: pd.DataFrame, dose: int, name: str) -> str:
    if dose not in by_dose.index:
        return "-"
    row = by_dose.loc[dose]
    if row.n_done:
        return _number(row.get(name, float("nan")))
    return "n/a" if row.n_not_applicable else "timeout" if row.n_timed_out else "failed"


def _number(value: float) -> str:
    return f"{value:.3f}" if value == value else "-"


def _note(line: pd.DataFrame, no_credit: str) -> str:
    bad = int(line.n_failed.sum() + line.n_timed_out.sum())
    notes = [f"{bad} failed"] if bad else []
    if not line.n_done.sum() and line.n_not_applicable.sum():
        notes.append(line.reason.iloc[0])
    if "gate" in line and line.get("asr", pd.Series(dtype=float)).notna().any() and not line.gate.iloc[0]:
        notes.append(no_credit)
    return "; ".join(notes)
