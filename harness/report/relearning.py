"""How many poisons bring a backdoor back: ED50s of relearning, from the cells of a grid with `retune`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.console import new_table
from harness.report.dose_response import Curve, Unsupported, choose_doses, estimate_ed, protection

if TYPE_CHECKING:
    from rich.table import Table

RETUNED = re.compile(r"asr_retuned_(\d+)")  # the column of the ASR after retuning on so many poisons


def relearning_frame(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per task, attack, defense and dose of a grid with `retune`.

    `asr` is that of the model as it was deployed, `ed50` the number of poisons among the next owner's rows after which
    ASR is half of the way from chance to 1, and `factor` that number over the one that the same defense's model needs
    after a training without poison: below 1 something of the backdoor was still there.
    """
    doses = sorted(int(match[1]) for name in cells if (match := RETUNED.fullmatch(str(name))))
    if not doses:
        return pd.DataFrame()
    graded = cells[(cells.status == "done") & cells[f"asr_retuned_{doses[0]}"].notna()]
    rows = []
    for place, column in graded.groupby(["task", "attack", "defense"], sort=False):
        curves = {dose: _curves(part, doses) for dose, part in column.groupby("dose")}
        for dose, part in column.groupby("dose"):
            row: dict[str, Any] = dict(zip(("task", "attack", "defense"), place)) | {"dose": dose}
            row |= {"seeds": len(part), "asr": part.asr.mean()}
            row |= {f"asr_retuned_{k}": part[f"asr_retuned_{k}"].mean() for k in doses}
            rows.append(row | _numbers(curves[dose], curves.get(0, {}) if dose else {}))
    return pd.DataFrame(rows)


def _curves(part: pd.DataFrame, doses: list[int]) -> dict[int, Curve]:
    """ASR by poisons of the next owner, a curve per seed."""
    names = [f"asr_retuned_{k}" for k in doses]
    curves = {
        int(row["seed"]): Curve(np.array(doses, float), row[names].to_numpy(float), float(row["asr_floor"]))
        for _, row in part.iterrows()
    }
    return choose_doses(curves)


def _numbers(curves: dict[int, Curve], control: dict[int, Curve]) -> dict[str, Any]:
    row: dict[str, Any] = {"ed50": np.nan, "ed50_text": "", "factor": np.nan, "factor_text": "", "note": ""}
    try:
        found = estimate_ed(curves)
        row |= {"ed50": found.value, "ed50_text": str(found)}
        if control:
            factor = protection(curves, control)
            row |= {"factor": factor.value, "factor_text": str(factor)}
    except Unsupported as error:
        row["note"] = str(error)
    return row


def relearning_table(relearning: pd.DataFrame) -> Table:
    """ASR before and after retuning, and how many poisons bring the backdoor back."""
    shown = [name for name in map(str, relearning) if RETUNED.fullmatch(name)]
    numbers = ["dose", "ASR", *(f"+{name.rpartition('_')[2]}" for name in shown), "ED50", "of dose 0's"]
    title = "ASR after the next owner has trained the model on, by poisons among the 200 rows (+0: none)"
    table = new_table(title, ["task", "attack", "defense"], numbers, ["note"])
    for row in relearning.to_dict("records"):
        asrs = [f"{row[name]:.2f}" for name in ("asr", *shown)]
        place = [str(row[name]) for name in ("task", "attack", "defense", "dose")]
        table.add_row(*place, *asrs, row["ed50_text"] or "-", row["factor_text"], row["note"])
    return table
