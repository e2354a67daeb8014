"""The summary of a run: one row per task, attack, defense and dose; and how a terminal shows it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy import stats

from harness.console import new_table
from harness.report.cells import LOWER_IS_BETTER, labels_without, metric_names
from harness.report.dose_response import abbott
from harness.report.doses import explain_no_credit

if TYPE_CHECKING:
    from rich.table import Table

GATE = 0.5  # an undefended attack works if at some dose it gets this far from the chance floor to 1
ROW = ["task", "attack", "defense"]
STATUSES = ("done", "failed", "timed out", "not applicable")
# Columns of means: these metrics first, then all others by name, then the costs.
FIRST_METRICS = (
    "asr", "asr_floor", "asr_plain", "asr_near", "asr_lenient", "asr_strict", "utility", "bits_per_byte",
    "class_fidelity", "robust_accuracy", "train_auroc", "train_tpr", "train_fpr", "train_precision", "input_auroc",
    "clean_abstained", "challenge_abstained", "model_suspicion", "target_found", "certified_radius_median",
    "certified_accuracy_at_1", "certified_accuracy_at_2", "certified_accuracy_at_5", "certified_accuracy_at_10",
    "trigger_seen", "poison_seen",
)  # fmt: skip
COSTS = ("fit_seconds", "seconds", "clean_used")
REACH = {  # what the victim has to see for a result to mean anything (harness.cell.reach), and of what it is a share
    "trigger_seen": "trigger seen in {} of the challenge", "poison_seen": "poison seen in {} of its rows",
}  # fmt: skip
FEW = 10  # inputs, below which a challenge's size is said beside its ASR
WITH_INTERVAL = ("asr", "utility")  # whose interval over seeds and worst seed are given too


def summary_frame(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per task, attack, defense and dose: the mean of every metric over seeds, counts of cells, and the gate.

    ASR and utility have 95 % t intervals. For a targeted attack, each of whose cells has a single answer, they are
    binomial (Wilson) intervals. `gate` is False where the undefended attack never gets GATE of the way from its chance
    floor to 1: no defense earns credit there.
    """
    if cells.empty:
        return cells
    done = cells[cells.status == "done"]
    means = [name for name in _order_metrics(cells) if done[name].notna().any()]
    rows = []
    for place, part in cells.groupby([*ROW, "dose"], sort=False):
        task, attack, defense, dose = place
        row = {"task": task, "attack": attack, "defense": defense, "stage": part.stage.iloc[0], "dose": dose}
        row["clean_metric"] = part.clean_metric.iloc[0]
        if "target" in part and part.target.notna().any():
            row |= part.loc[part.target.first_valid_index(), ["target", "target_name"]].to_dict()
        row |= {f"n_{status.replace(' ', '_')}": int((part.status == status).sum()) for status in STATUSES}
        graded = part[part.status == "done"]
        for name in means:
            row |= _summarise(graded, name, row["clean_metric"])
        row |= _count_few(graded)
        row["reason"] = "; ".join(sorted(set(part.reason) - {""}))
        rows.append(row)
    frame = pd.DataFrame(rows)
    if "asr" in frame:
        undefended = frame[frame.defense == "none"]
        best = abbott(undefended.asr, undefended.asr_floor).groupby([undefended.task, undefended.attack]).max()
        frame["gate"] = [best.get(pair, float("nan")) >= GATE for pair in zip(frame.task, frame.attack)]
    return frame


def _order_metrics(cells: pd.DataFrame) -> list[str]:
    """Every metric and every cost that the cells have, in the order of the summary's columns."""
    others = sorted(set(metric_names(cells)) - set(FIRST_METRICS))
    return [name for name in (*FIRST_METRICS, *others, *COSTS) if name in cells]


def _summarise(done: pd.DataFrame, name: str, clean_metric: str) -> dict[str, Any]:
    """The mean of a metric over the cells that have it; nan where none has."""
    values = done[name].dropna()
    row: dict[str, Any] = {name: values.mean()}
    if name in REACH:
        row[f"{name}_n"] = int(done[f"{name}_n"].sum())
    if name in WITH_INTERVAL:
        single = len(values) > 0 and (done[f"{name}_n"] == 1).all()
        row[f"{name}_low"], row[f"{name}_high"] = wilson_interval(values) if single else t_interval(values)
        worst = "max" if name == "asr" or clean_metric in LOWER_IS_BETTER else "min"
        row[f"{name}_{worst}"] = values.agg(worst)
    return row


def _count_few(done: pd.DataFrame) -> dict[str, int]:
    """The inputs of the smallest challenge where they are FEW; {} for targeted trials, which are of one input each."""
    sizes = done.asr_n.dropna() if "asr_n" in done else done.dose[:0]
    if sizes.empty or sizes.min() >= FEW:
        return {}
    single = sizes.max() == 1 and ("target" not in done or done.target.isna().all())
    return {} if single else {"challenge_n": int(sizes.min())}


def worst_frame(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per task, attack (its target class aside), defense and dose that was run against several target classes.

    It has the highest ASR over seeds and targets, where that was, and the mean over all of them.
    """
    if "asr" not in cells:
        return pd.DataFrame()
    done = cells[(cells.status == "done") & cells.asr.notna()]
    any_target = done.attack.map(labels_without(done, "attack", "target"))
    rows = []
    for place, part in done.groupby([done.task, any_target, done.defense, done.dose], sort=False):
        if part.attack.nunique() > 1:
            worst = part.loc[part.asr.idxmax()]
            rows.append({
                **dict(zip([*ROW, "dose"], place)), "targets": part.attack.nunique(), "asr": part.asr.mean(),
                "asr_max": worst.asr, "worst_attack": worst.attack, "worst_seed": worst.seed,
            })  # fmt: skip
    return pd.DataFrame(rows)


def t_interval(values: pd.Series) -> tuple[float, float]:
    """The 95 % t interval of the mean over seeds; (nan, nan) for one seed, whose spread is unknown."""
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return values.mean() - half, values.mean() + half


def wilson_interval(hits: pd.Series) -> tuple[float, float]:
    """The 95 % Wilson interval of a success rate over trials, each of which is 0 or 1."""
    interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return interval.low, interval.high


def summary_table(summary: pd.DataFrame, task: str) -> Table:
    """One task's table: ASR by dose for every attack and defense, clean metric, cost."""
    part = summary[summary.task == task]
    doses = sorted(part.dose.unique())
    title = f"{task}: ASR by dose (mean over seeds)"
    clean_metric = part.clean_metric.iloc[0]
    if clean_metric != "accuracy":
        title += f"; clean: {clean_metric}{', lower is better' if clean_metric in LOWER_IS_BETTER else ''}"
    numbers = [*map(str, doses), "clean", "Δ clean", "train s"]
    table = new_table(title, ["attack", "defense"], numbers, ["note"], width=5)
    for attack, rows in part.groupby("attack", sort=False):
        undefended = rows[rows.defense == "none"]
        for defense, line in rows.groupby("defense", sort=False):
            by_dose = line.set_index("dose")
            asrs = [_format_asr(by_dose, dose) for dose in doses]
            clean = line.utility.mean() if "utility" in line else float("nan")
            change = _clean_change(line, undefended)
            delta = f"{change:+.3f}" if change == change and defense != "none" else ""
            cost = f"{line.fit_seconds.mean():.1f}" if "fit_seconds" in line and line.fit_seconds.notna().any() else ""
            note = _explain(line, explain_no_credit(rows[rows.n_done > 0]))
            table.add_row(str(attack), str(defense), *asrs, _format_number(clean), delta, cost, note)
        table.add_section()
    return table


def _clean_change(line: pd.DataFrame, undefended: pd.DataFrame) -> float:
    """The clean metric minus that of `none`: at dose 0, or the mean of the doses of both where 0 was not run."""
    if "utility" not in line:
        return float("nan")
    change = line.set_index("dose").utility - undefended.set_index("dose").utility
    return float(change.get(0) if change.get(0, float("nan")) == change.get(0) else change.mean())


def worst_table(worst: pd.DataFrame) -> Table:
    """Mean and highest ASR over target classes and seeds."""
    names, numbers = ["task", "attack", "defense"], ["dose", "targets", "mean ASR", "worst ASR"]
    table = new_table("worst case over target classes and seeds", names, numbers, ["worst at"])
    for row in worst.itertuples():
        place = f"{row.worst_attack}, seed {row.worst_seed}"
        numbers = [str(row.dose), str(row.targets), f"{row.asr:.3f}", f"{row.asr_max:.3f}"]
        table.add_row(str(row.task), str(row.attack), str(row.defense), *numbers, place)
    return table


def _format_asr(by_dose: pd.DataFrame, dose: int) -> str:
    """The ASR at a dose, or what became of its cells."""
    if dose not in by_dose.index:
        return "-"
    row = by_dose.loc[dose]
    if row.n_done:
        return _format_number(row.get("asr", float("nan")))
    return "n/a" if row.n_not_applicable else "timeout" if row.n_timed_out else "failed"


def _format_number(value: float) -> str:
    return f"{value:.3f}" if value == value else "-"


def explain_reach(line: pd.DataFrame) -> str:
    """What an ASR is measured on, where that is little: at the dose of a line with the least.

    That is how much of trigger and poison the victim saw, where not all, and a challenge of few inputs.
    """
    notes = []
    for name, words in REACH.items():
        if name in line and line[name].min() < 1:
            least = line.loc[line[name].idxmin()]
            percent = max(0.1, math.floor(1000 * least[name] + 1e-3) / 10)  # never 0 or 100, which it is not
            notes.append(f"{words.format(f'{percent:g} %')} (n = {least[f'{name}_n']:.0f})")
    if "challenge_n" in line and (few := line.challenge_n.min()) > 0:
        notes.append(f"challenge of {few:.0f} input{'' if few == 1 else 's'}")
    return "; ".join(notes)


def _explain(line: pd.DataFrame, no_credit: str) -> str:
    """The note of a line: failures, why nothing was run, what the victim did not see, and why there is no credit."""
    failed = int(line.n_failed.sum() + line.n_timed_out.sum())
    notes = [f"{failed} failed"] if failed else []
    if "target=" in str(line.attack.iloc[0]) and "target" in line and line.target.notna().any():
        notes.append("target {0.target:.0f}: {0.target_name}".format(line.loc[line.target.first_valid_index()]))
    if not line.n_done.sum() and line.n_not_applicable.sum():
        notes.append(line.reason.iloc[0])
    notes += [unseen] if (unseen := explain_reach(line)) else []
    if "gate" in line and line.get("asr", pd.Series(dtype=float)).notna().any() and not line.gate.iloc[0]:
        notes.append(no_credit)
    return "; ".join(notes)
