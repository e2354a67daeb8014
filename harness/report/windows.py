"""The stealth window: how many times more poisons it takes to be found out than to plant the backdoor."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from harness.console import new_table
from harness.report.detection import COLUMN, FEWEST, Array, clean_suspicion, threshold_at
from harness.report.dose_response import Curve, Unsupported, choose_doses, estimate_ed, protection
from harness.report.doses import columns_of, curves_by_seed

if TYPE_CHECKING:
    from rich.table import Table

Curves = Mapping[int, Curve]
MODELS_AT, ROWS_AT = 5, 1  # % of clean models, or of clean rows, that a detector may call poisoned


def windows_frame(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per task, attack and detector that met two doses or more.

    planted: the ED50 of the undefended ASR, found: the dose at which the detector sees it, window: found over planted,
    paired by seed; each as a number and as `_text`, means over seeds as every ED50. kind "rows": found is the dose at
    which a filter ranks half of the poison above all but 1 % of the clean rows. kind "models": found is the dose from
    which a detector suspects the model of a seed more than all but 5 % of the clean ones (of at least 20): it lies
    between two doses. note: why a number is missing.
    """
    if "asr" not in cells:
        return pd.DataFrame()
    done = cells[(cells.status == "done") & (cells.stage != "control")]
    undefended = cells[(cells.status == "done") & (cells.defense == "none")]
    rows: list[dict[str, Any]] = []
    for (task, attack), column in done.groupby(["task", "attack"], sort=False):
        asr: Curves | None = None
        for defense, part in column.groupby("defense", sort=False):
            found = _found(part, done[(done.task == task) & (done.defense == defense)])
            if found and asr is None:  # once for all detectors of an attack
                asr = curves_by_seed(undefended[(undefended.task == task) & (undefended.attack == attack)])
            where = {"task": task, "attack": attack, "defense": defense}
            rows += [{**where, "kind": kind, **_compare(curves, asr)} for kind, curves in found.items() if asr]
    return pd.DataFrame(rows)


def _found(part: pd.DataFrame, of_task: pd.DataFrame) -> dict[str, Curves]:
    """By kind the curves of what a detector found of one attack; {} below two doses. of_task: its cells of the task."""
    found: dict[str, Curves] = {}
    if part[part.dose > 0].dose.nunique() < 2:
        return found
    if "model_suspicion" in part and part.model_suspicion.notna().any():
        found["models"] = _called(part, clean_suspicion(of_task))
    if (name := f"train_tpr_at_{ROWS_AT}") in part and part[name].notna().any():
        found["rows"] = _curves(part[(part.dose > 0) & part[name].notna()], name, ROWS_AT / 100)
    return {kind: curves for kind, curves in found.items() if curves}


def _called(part: pd.DataFrame, clean: Array) -> Curves:
    """By seed 1 where a detector called the model of that dose; {} where clean models are too few for a threshold."""
    if len(clean) < FEWEST[MODELS_AT]:
        return {}
    judged = part[(part.dose > 0) & part.model_suspicion.notna()]
    called = (judged.model_suspicion > threshold_at(clean, MODELS_AT)).astype(float)
    return _curves(judged[["dose", "seed"]].assign(called=called), "called", MODELS_AT / 100)


def _curves(part: pd.DataFrame, name: str, chance: float) -> Curves:
    curves = {
        int(str(seed)): Curve(rows.dose.to_numpy(float), rows[name].to_numpy(float), chance)
        for seed, rows in part.sort_values("dose").groupby("seed")
    }
    return choose_doses(curves)


def _compare(found: Curves, planted: Curves) -> dict[str, Any]:
    row: dict[str, Any] = {"seeds": len(found), "note": ""}
    for name, number in (
        ("planted", partial(estimate_ed, planted)), ("found", partial(estimate_ed, found)),
        ("window", partial(protection, found, planted)),
    ):  # fmt: skip
        try:
            row |= columns_of(name, number())
        except Unsupported as error:
            row |= {name: np.nan, f"{name}_text": "", "note": row["note"] or str(error)}
    return row


def windows_table(windows: pd.DataFrame) -> Table:
    """Doses at which attacks work and detectors find them."""
    title = "stealth window: poisons until it is found, over poisons until the backdoor works"
    table = new_table(title, COLUMN, ["finds", "works at", "found at", "window"], ["note"])
    for row in windows.to_dict("records"):
        place = [str(row[name]) for name in (*COLUMN, "kind")]
        table.add_row(*place, *(row[f"{name}_text"] or "-" for name in ("planted", "found", "window")), row["note"])
    return table


def false_alarms_frame(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per detector of models and kind of clean models: how many it calls at a threshold taken from others.

    The threshold is that of 5 % false alarms on the models of dose 0 of the task with most of them; the other kinds are
    the same task with other options (size, augmentation, epochs). share has a 95 % interval (Clopper and Pearson).
    """
    if "model_suspicion" not in cells:
        return pd.DataFrame()
    clean = cells[(cells.status == "done") & (cells.dose == 0) & cells.model_suspicion.notna()]
    rows: list[dict[str, Any]] = []
    for (_, defense), part in clean.groupby(["task_name", "defense"], sort=False):
        kinds = {str(task): clean_suspicion(models) for task, models in part.groupby("task", sort=False)}
        usual = max(kinds, key=lambda task: len(kinds[task]))
        if len(kinds[usual]) < FEWEST[MODELS_AT]:
            continue
        threshold = threshold_at(kinds[usual], MODELS_AT)
        for task in kinds.keys() - {usual}:
            called = int((kinds[task] > threshold).sum())
            interval = stats.binomtest(called, len(kinds[task])).proportion_ci()
            rows.append({
                "task": usual, "defense": defense, "kind": task, "models": len(kinds[task]), "called": called,
                "share": called / len(kinds[task]), "low": interval.low, "high": interval.high,
            })  # fmt: skip
    return pd.DataFrame(rows).sort_values(["task", "defense", "kind"], ignore_index=True) if rows else pd.DataFrame()


def false_alarms_table(alarms: pd.DataFrame) -> Table:
    """False alarms on clean models of other kinds."""
    title = "clean models of another kind called poisoned, at 5 % of the usual kind (95 % interval)"
    table = new_table(title, ["detector", "usual kind", "other kind"], ["models", "called", "share"])
    for row in alarms.itertuples():
        share = f"{row.share:.2f} ({row.low:.2f} to {row.high:.2f})"
        table.add_row(str(row.defense), str(row.task), str(row.kind), f"{row.models:.0f}", f"{row.called:.0f}", share)
    return table
