"""The table of ED50s and protection factors, from the table of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.console import counted, new_table
from harness.plugins.registry import without_option
from harness.report import dose_response
from harness.report.compare import holm, paired
from harness.report.dose_response import Curve, Published, Unsupported

if TYPE_CHECKING:
    from rich.table import Table

COLUMN = ["task", "attack"]


def curves(cells: pd.DataFrame) -> dict[int, Curve]:
    """By seed, from the cells of one task, attack and defense.

    A seed whose chance floor is 1 decides nothing (a targeted trial that the clean victim already loses): it is left
    out, unless there is no other.
    """
    found = {}
    graded = cells[(cells.status == "done") & cells.asr.notna()].sort_values("dose")
    for seed, part in graded.groupby("seed"):
        found[int(str(seed))] = Curve(
            part.dose.to_numpy(float), part.asr.to_numpy(float), float(part.asr_floor.iloc[0])
        )
    return {seed: curve for seed, curve in found.items() if curve.chance < 1} or found


def dose_frame(cells: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """One row per task, attack and defense: ED50, ED90, protection factor, and how far to believe them.

    ed50_censored is "<" or ">" where ed50 is only a bound. `p` is Holm-corrected over the defenses of a column: that
    the defense lowers the ASR. `note` says why a number is missing.
    """
    if "gate" not in summary:
        return pd.DataFrame()
    rows: list[dict[str, Any]] = []
    for (task, attack), column in cells.groupby(COLUMN, sort=False):
        if column[column.dose > 0].dose.nunique() < 2:
            continue  # no dose axis, no curve
        by_defense = {str(d): curves(part) for d, part in column.groupby("defense", sort=False)}
        by_defense = {d: found for d, found in by_defense.items() if found}
        opened = (
            bool(summary[(summary.task == task) & (summary.attack == attack)].gate.iloc[0]) if by_defense else False
        )
        start = len(rows)
        for defense, found in by_defense.items():
            row: dict[str, Any] = {"task": task, "attack": attack, "defense": defense, "gate": opened}
            row |= {"family": family(str(task)), "train_size": column.train_size.max()}
            row |= _numbers(found, by_defense.get("none", {}) if opened and defense != "none" else {})
            lost = column[(column.defense == defense) & column.asr.notna()].seed.nunique() - len(found)
            if lost and not row["note"]:
                row["note"] = f"{counted(lost, 'trial')} left out: lost without any poison"
            row["p"] = paired(column, defense, "none") if defense != "none" else np.nan
            rows.append(row)
        for row, p in zip(rows[start:], holm(np.array([r["p"] for r in rows[start:]])), strict=True):
            row["p"] = p
    return pd.DataFrame(rows)


def _numbers(found: dict[int, Curve], undefended: dict[int, Curve]) -> dict[str, Any]:
    row: dict[str, Any] = {"seeds": len(found), "note": ""}
    try:
        row |= _spread("ed50", dose_response.ed(found)) | _spread("ed90", dose_response.ed(found, 0.9))
        row |= {"ed50_model_free": dose_response.ed_without_model(found).value, "misfit": dose_response.misfit(found)}
        if undefended:
            row |= _spread("protection", dose_response.protection(found, undefended))
    except Unsupported as error:
        row["note"] = str(error)
    return row


def family(task: str) -> str:
    """A task's label, its training-set size aside."""
    return without_option(task, "train_size")


def _spread(name: str, found: Published) -> dict[str, Any]:
    return {
        name: found.value, f"{name}_low": found.low, f"{name}_high": found.high, f"{name}_censored": found.censored,
    }  # fmt: skip


def scaling_frame(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per task (its training-set size aside), attack and defense that ran at several sizes: the exponent."""
    if "asr" not in cells:
        return pd.DataFrame()
    rows: list[dict[str, Any]] = []
    for (task, attack, defense), part in cells.groupby([cells.task.map(family), "attack", "defense"], sort=False):
        by_size = {int(float(str(size))): curves(same) for size, same in part.groupby("train_size")}
        found = {(size, seed): curve for size, same in by_size.items() for seed, curve in same.items()}
        try:
            slope = dose_response.scaling(found)
        except Unsupported:
            continue
        sizes = sorted({size for size, _ in found})
        rows.append({
            "task": task, "attack": attack, "defense": defense, "sizes": " ".join(map(str, sizes)),
            "exponent": slope.value, "exponent_low": slope.low, "exponent_high": slope.high, "rows": slope.n,
        })  # fmt: skip
    return pd.DataFrame(rows)


def format_estimate(row: Any, name: str) -> str:
    """A number of dose_frame as a table shows it."""
    value, censored = getattr(row, name, np.nan), getattr(row, f"{name}_censored", "")
    if value != value or value is None:
        return "-"
    return str(Published(value, getattr(row, f"{name}_low"), getattr(row, f"{name}_high"), censored, 0))


def dose_table(doses: pd.DataFrame, task: str) -> Table:
    """One task's ED50s and protection factors with 95 % intervals over seeds."""
    title = f"{task}: samples to half of the way from chance to ASR 1 (ED50), 95 % interval over seeds"
    table = new_table(title, ["attack", "defense"], ["ED50", "ED90", "protection", "p"], ["note"])
    for attack, rows in doses[doses.task == task].groupby("attack", sort=False):
        for row in rows.itertuples():
            p = "" if row.p != row.p else "<.001" if row.p < 0.001 else f"{row.p:.3f}"
            shown = [format_estimate(row, name) for name in ("ed50", "ed90", "protection")]
            note = row.note or ("" if row.gate else no_credit(rows))
            table.add_row(str(attack), str(row.defense), *shown, p, str(note))
        table.add_section()
    return table


def no_credit(rows: pd.DataFrame) -> str:
    """Why no defense earns any, of the rows of an attack that were measured."""
    return "attack too weak for credit" if (rows.defense == "none").any() else "no credit: `none` was not run here"


def scaling_table(scaling: pd.DataFrame) -> Table:
    """The exponents, with 95 % intervals."""
    title = "ED50 against training-set size: exponent 0 is a constant number of samples, 1 a constant rate"
    table = new_table(title, ["task", "attack", "defense", "training rows"], ["exponent"])
    for row in scaling.itertuples():
        shown = f"{row.exponent:.2f} ({row.exponent_low:.2f} to {row.exponent_high:.2f})"
        table.add_row(str(row.task), str(row.attack), str(row.defense), str(row.sizes), shown)
    return table
