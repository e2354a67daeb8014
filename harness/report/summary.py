"""Tables from records: one row per cell, one row per task x attack x defense x dose, and what is printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from scipy import stats

from harness.console import new_table
from harness.plugins.registry import without_option
from harness.report import doses as dose_table
from harness.report.dose_response import excess

if TYPE_CHECKING:
    from rich.table import Table

GATE = (
    0.5  # of the way from the chance floor to 1: what an undefended attack must reach at some dose to count as working
)
ROW = ["task", "attack", "defense"]


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


def summary_table(summary: pd.DataFrame, task: str) -> Table:
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


def worst_table(worst: pd.DataFrame) -> Table:
    """Mean and highest ASR over target classes and seeds."""
    names, numbers = ["task", "attack", "defense"], ["dose", "targets", "mean ASR", "worst ASR"]
    table = new_table("worst case over target classes and seeds", names, numbers, ["worst at"])
    for row in worst.itertuples():
        at = f"{row.worst_attack}, seed {row.worst_seed}"
        numbers = [str(row.dose), str(row.targets), f"{row.asr:.3f}", f"{row.asr_max:.3f}"]
        table.add_row(str(row.task), str(row.attack), str(row.defense), *numbers, at)
    return table


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
