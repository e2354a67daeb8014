"""The table of ED50s and protection factors, from the table of cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.console import format_count, new_table
from harness.report import dose_response, trials
from harness.report.cells import LOWER_IS_BETTER, labels_without
from harness.report.compare import clean_change, holm
from harness.report.dose_response import HIGH_FLOOR, Curve, Unsupported, choose_doses
from harness.report.estimates import DoseEstimate
from harness.report.scaling import scaling_exponent

if TYPE_CHECKING:
    from rich.table import Table

RESERVE = "reserve_only"  # the control that throws the poisoned data away
FIDELITY = {  # the first one that was measured: its words, digits after the point, and the value of an unchanged row
    "psnr": ("PSNR {} dB", 0, 100.0), "snr": ("SNR {} dB", 0, 100.0), "edit_distance": ("{} edits a word", 2, 0.0),
}  # fmt: skip


def dose_frame(cells: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """One row per task, attack and defense: ED50, ED90, protection factor, and how far to believe them.

    ed50_text is what tables show, ed50_censored "<" or ">" where ed50 is only a bound. `p` is two-sided, of the
    protection factor being 1, from the engine of its interval, Holm-corrected over the defenses of an attack. `level`
    is the ASR that is half of the way from `chance`, the mean chance floor. `note` says why a number is missing, or
    that the clean rows alone would have given the same accuracy. `fidelity`: how far a poison is from a clean row.
    """
    if "gate" not in summary:
        return pd.DataFrame()
    families = labels_without(cells, "task", "train_size")
    gates = summary.drop_duplicates(["task", "attack"]).set_index(["task", "attack"]).gate
    rows: list[dict[str, Any]] = []
    for pair, column in cells.groupby(["task", "attack"], sort=False):
        if column[column.dose > 0].dose.nunique() < 2:
            continue  # no dose axis, no curve
        task, attack = pair
        where = {"task": task, "attack": attack}
        where["fidelity"] = describe_fidelity(column)
        rows += _column_rows(column, where, bool(gates[pair]), families[str(task)])
    return pd.DataFrame(rows)


def describe_fidelity(column: pd.DataFrame) -> str:
    """How far the poison of an attack is from the clean rows that it replaced, such as "SNR 20 dB"; "" if unknown."""
    poisoned = column[(column.dose > 0) & (column.status == "done")]
    for name, (words, digits, unchanged) in FIDELITY.items():
        if name in poisoned and poisoned[name].notna().any():
            value = round(poisoned[name].mean(), digits) + 0.0  # no minus before a zero
            return "input unchanged" if value == unchanged else words.format(f"{value:.{digits}f}")
    return ""


def beats_reserve(column: pd.DataFrame, defense: str) -> bool:
    """Whether a defense is better on clean data than `reserve_only`, a victim of its clean rows alone.

    True where no cell of both was run.
    """
    better, _ = clean_change(column, defense, RESERVE)
    return not (better >= 0 if column.clean_metric.iloc[0] in LOWER_IS_BETTER else better <= 0)


def _column_rows(column: pd.DataFrame, where: dict[str, Any], gate: bool, family: str) -> list[dict[str, Any]]:
    """The rows of one task and attack: a row per defense that was graded."""
    parts = {str(defense): part for defense, part in column.groupby("defense", sort=False)}
    by_defense = {defense: curves for defense, part in parts.items() if (curves := curves_by_seed(part))}
    rows = []
    for defense, curves in by_defense.items():
        row = {**where, "defense": defense, "gate": gate, "family": family, "train_size": column.train_size.max()}
        single = (parts[defense].asr_n.dropna() == 1).all() if "asr_n" in parts[defense] else False
        row |= _numbers(curves, by_defense.get("none", {}) if gate and defense != "none" else {}, bool(single))
        poisoned = parts[defense][parts[defense].asr.notna() & (parts[defense].dose > 0)]
        lost = poisoned.seed.nunique() - len(curves)
        if lost and not row["note"]:
            row["note"] = f"{format_count(lost, 'trial')} left out: lost without any poison"
        if defense not in ("none", RESERVE) and not row["note"] and not beats_reserve(column, defense):
            row["note"] = f"no better on clean data than {RESERVE}"
        rows.append(row)
    for row, p in zip(rows, holm(np.array([row["p"] for row in rows])), strict=True):
        row["p"] = p
    return rows


def curves_by_seed(cells: pd.DataFrame) -> dict[int, Curve]:
    """One dose-response curve per seed, from the cells of one task, attack and defense.

    A seed whose chance floor is 1 decides nothing (a targeted trial that the clean victim already loses): it is left
    out, unless there is no other. So is one that ran at dose 0 alone, as a further clean model.
    """
    curves = {}
    graded = cells[(cells.status == "done") & cells.asr.notna()].sort_values("dose")
    graded = graded[graded.seed.isin(graded[graded.dose > 0].seed)]
    for seed, part in graded.groupby("seed"):
        floor = float(part.asr_floor.iloc[0])
        curves[int(str(seed))] = Curve(part.dose.to_numpy(float), part.asr.to_numpy(float), floor)
    curves = {seed: curve for seed, curve in curves.items() if curve.chance < 1} or curves
    return choose_doses(curves)


def _numbers(curves: dict[int, Curve], undefended: dict[int, Curve], single: bool) -> dict[str, Any]:
    """The columns of one row. single: each cell is a trial with one answer, so that shares are over trials."""
    levels = {share: float(np.mean([curve.level(share) for curve in curves.values()])) for share in (0.5, 0.9)}
    chance = float(np.mean([curve.chance for curve in curves.values()]))
    row: dict[str, Any] = {"seeds": len(curves), "chance": chance, "level": levels[0.5], "p": np.nan, "note": ""}
    estimate = trials.estimate_share if single else dose_response.estimate_ed
    ratio = trials.protection_of_share if single else dose_response.protection
    try:
        half, most = tighten(estimate(curves, 0.5), estimate(curves, 0.9))
        for name, share, found in (("ed50", 0.5, half), ("ed90", 0.9, most)):
            level = f"at ASR {levels[share]:.2f}" if chance > HIGH_FLOOR and not single else ""
            row |= columns_of(name, found, level)
        if not single:
            row |= {"ed50_model_free": dose_response.ed_isotonic(curves).value, "misfit": dose_response.misfit(curves)}
        if undefended:
            factor = ratio(curves, undefended)
            row |= columns_of("protection", factor) | {"p": factor.p}
    except Unsupported as error:
        row["note"] = str(error)
    return row


def tighten(ed50: DoseEstimate, ed90: DoseEstimate) -> tuple[DoseEstimate, DoseEstimate]:
    """Both, where one is only a bound: no ED50 is above the interval of the ED90, no ED90 below that of the ED50."""
    if ed50.censored == "<" and not ed50.words and ed90.high < ed50.value:
        ed50 = replace(ed50, value=ed90.high, high=ed90.high)
    if ed90.censored == ">" and not ed90.words and ed50.low > ed90.value:
        ed90 = replace(ed90, value=ed50.low, low=ed50.low)
    return ed50, ed90


def columns_of(name: str, of: DoseEstimate, level: str = "") -> dict[str, Any]:
    """The columns of an estimate: its value, ends, side of a bound, and what tables show."""
    text = str(of)
    if level and text != "-":
        text = f"{text[:-1]}; {level})" if text.endswith(")") else f"{text} ({level})"
    return {
        name: of.value, f"{name}_low": of.low, f"{name}_high": of.high, f"{name}_censored": of.censored,
        f"{name}_text": text,
    }  # fmt: skip


def scaling_frame(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per task (its training-set size aside), attack and defense that ran at several sizes: the exponent."""
    if "asr" not in cells:
        return pd.DataFrame()
    rows: list[dict[str, Any]] = []
    families = cells.task.map(labels_without(cells, "task", "train_size"))
    for (task, attack, defense), part in cells.groupby([families, "attack", "defense"], sort=False):
        by_size = {int(float(str(size))): curves_by_seed(rest) for size, rest in part.groupby("train_size")}
        curves = {(size, seed): curve for size, by_seed in by_size.items() for seed, curve in by_seed.items()}
        try:
            exponent = scaling_exponent(curves)
        except Unsupported:
            continue
        rows.append({
            "task": task, "attack": attack, "defense": defense,
            "sizes": " ".join(map(str, sorted({size for size, _ in curves}))),
            "exponent": exponent.value, "exponent_low": exponent.low, "exponent_high": exponent.high,
            "local": " ".join(f"{value:.2f}" for value in exponent.local), "lack_of_fit": exponent.lack_of_fit,
            "is_number": exponent.is_number, "open_share": exponent.open_share, "seeds": exponent.seeds,
            "rows": exponent.rows, "verdict": exponent.verdict,
        })  # fmt: skip
    return pd.DataFrame(rows)


def format_estimate(row: Any, name: str) -> str:
    """A number of dose_frame as a table shows it."""
    text = getattr(row, f"{name}_text", "-")
    return text if isinstance(text, str) and text else "-"


def dose_table(doses: pd.DataFrame, task: str) -> Table:
    """One task's ED50s and protection factors with 95 % intervals over seeds."""
    title = f"{task}: samples to half of the way from chance to ASR 1 (ED50), 95 % interval over seeds"
    table = new_table(title, ["attack", "defense"], ["ED50", "ED90", "protection", "p"], ["note"])
    for attack, rows in doses[doses.task == task].groupby("attack", sort=False):
        fidelity = rows.fidelity.iloc[0] if "fidelity" in rows else ""
        attack = f"{attack}\n{fidelity}" if isinstance(fidelity, str) and fidelity else attack
        for row in rows.itertuples():
            p = "" if row.p != row.p else "<.001" if row.p < 0.001 else f"{row.p:.3f}"
            estimates = [format_estimate(row, name) for name in ("ed50", "ed90", "protection")]
            note = row.note or ("" if row.gate else explain_no_credit(rows))
            table.add_row(str(attack), str(row.defense), *estimates, p, str(note))
        table.add_section()
    return table


def explain_no_credit(rows: pd.DataFrame) -> str:
    """Why no defense earns credit against an attack. rows: of this attack, one per defense that was graded."""
    return "attack too weak for credit" if (rows.defense == "none").any() else "no credit: `none` was not run here"


def scaling_table(scaling: pd.DataFrame) -> Table:
    """The exponents, with 95 % intervals."""
    title = "ED50 against training-set size: exponent 0 is a constant number of samples, 1 a constant rate"
    table = new_table(title, ["task", "attack", "defense", "training rows"], ["exponent", "local"], ["verdict"])
    for row in scaling.itertuples():
        known = row.exponent_low == row.exponent_low
        exponent = f"{row.exponent:.2f} ({row.exponent_low:.2f} to {row.exponent_high:.2f})" if known else "-"
        verdict = (
            f"{row.verdict}; {100 * row.open_share:.0f} % of the ED50s are bounds" if row.open_share else row.verdict
        )
        table.add_row(str(row.task), str(row.attack), str(row.defense), str(row.sizes), exponent, row.local, verdict)
    return table
