"""Whether a routine check would have seen the poison: one table, from the table of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.console import new_table

if TYPE_CHECKING:
    from rich.table import Table

FIDELITY = {  # of a poisoned row to the clean row that it replaced (harness.cell.stealth), and the unit of the mean
    "psnr": "dB", "ssim": "0 to 1", "snr": "dB", "mel_distance": "dB", "edit_distance": "per word",
    "perplexity_ratio": "ratio", "labels_changed": "share", "text_share": "of all characters",
}  # fmt: skip
FALSE_ALARMS = (1, 5)  # % of the clean rows that may be called suspicious
POISON_SET = ["task", "attack", "dose"]


def stealth_frame(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per task, attack, dose above 0, check and measure: the mean over seeds.

    kind "fidelity": how far the poisoned rows are from the clean ones. kind "scorer": the share of them that a defense
    would have seen (`train_tpr_at_1` and `_5`: if 1 % or 5 % of the clean rows are called suspicious too). Controls
    are left out: the oracle knows the poison.
    """
    fidelity = [name for name in FIDELITY if name in cells]
    rates = [name for percent in FALSE_ALARMS if (name := f"train_tpr_at_{percent}") in cells]
    if not fidelity and not rates:
        return pd.DataFrame()
    rows: list[dict[str, Any]] = []
    poisoned = cells[(cells.dose > 0) & (cells.status == "done")]
    for (task, attack, dose), column in poisoned.groupby(POISON_SET, sort=False):
        where = {"task": task, "attack": attack, "dose": dose}
        for name in fidelity:  # the same for all defenses of a seed
            values = column.groupby("seed")[name].first()
            rows.append({**where, "kind": "fidelity", "check": name, "measure": FIDELITY[name], **_mean(values)})
        for defense, part in column[column.stage != "control"].groupby("defense", sort=False):
            for name in rates:
                rows.append({**where, "kind": "scorer", "check": defense, "measure": name, **_mean(part[name])})
    frame = pd.DataFrame(rows)
    return frame[frame.seeds > 0].reset_index(drop=True) if len(frame) else frame


def _mean(values: pd.Series) -> dict[str, float]:
    return {"value": values.mean(), "seeds": int(values.notna().sum())}


def stealth_table(frame: pd.DataFrame, task: str) -> Table:
    """One task's checks by dose: what a poisoned row looks like, and the share of the poison that each scorer sees."""
    part = frame[frame.task == task]
    doses = sorted(part.dose.unique())
    title = f"{task}: would your pipeline have seen it? (by dose, mean over seeds)"
    caption = "scorers: share of the poison seen where 1 % / 5 % of the clean rows may be called suspicious too"
    table = new_table(title, ["attack", "check"], [str(dose) for dose in doses], caption=caption)
    for attack, rows in part.groupby("attack", sort=False):
        for (kind, check), line in rows.groupby(["kind", "check"], sort=False):
            unit = f" ({line.measure.iloc[0]})" if kind == "fidelity" else ""
            values = [_format_values(line[line.dose == dose]) for dose in doses]
            table.add_row(str(attack), f"{check}{unit}", *values)
        table.add_section()
    return table


def _format_values(rows: pd.DataFrame) -> str:
    return " / ".join(f"{value:.2f}" for value in rows.value) or "-"
