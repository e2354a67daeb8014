"""What vetting found, as tables: rows to look at, sources, and the checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from harness.audit.vet import Vetted
from harness.console import new_table, printable

if TYPE_CHECKING:
    from rich.table import Table

    from tasks.base import Task

EXCERPT = 80  # characters of a text


def quarantine_frame(found: Vetted, task: Task) -> pd.DataFrame:
    """One row per training row that a check flags or whose source is accused, the most suspicious first.

    row: its number in the file or folder, from 1. <check>: its p value by the trusted rows; without these its rank.
    """
    flagged = found.quarantined
    for check in found.checks:
        flagged = flagged | check.flagged
    at = flagged.nonzero().flatten()
    table = pd.DataFrame({"row": found.rows.ids[at].numpy() + 1})
    table["quarantine"] = found.quarantined[at].numpy()
    table["class"] = [str(task.classes[target]) for target in found.rows.targets[at].tolist()]
    if found.rows.sources is not None:
        table["source"] = [found.sources[source] for source in found.rows.sources[at].tolist()]
    for check in found.checks:
        ranks = len(check.suspicion) - check.suspicion.argsort().argsort()
        table[check.name] = (check.p if found.trusted else ranks)[at].numpy()
    if isinstance(found.rows.inputs, list):
        table["text"] = [printable(found.rows.inputs[i])[:EXCERPT] for i in at.tolist()]
    names = [check.name for check in found.checks]
    return table.assign(least=table[names].min(axis=1)).sort_values("least", kind="stable").drop(columns="least")


def sources_frame(found: Vetted) -> pd.DataFrame:
    """One row per source: its rows, and the p value of every check, adjusted over all of them."""
    if found.rows.sources is None:
        return pd.DataFrame()
    counts = found.rows.sources.bincount(minlength=len(found.sources)).tolist()
    rows = [
        {"source": name, "rows": counts[i], "accused_by": found.accused.get(i, "")}
        | {check.name: check.sources[i] for check in found.checks}
        for i, name in enumerate(found.sources)
    ]
    return pd.DataFrame(rows)


def tables(found: Vetted) -> list[Table]:
    """The checks, and the sources that stand out, for the terminal."""
    known = bool(found.trusted)
    caption = f"false alarms by {found.trusted} trusted rows" if known else "no trusted rows: ranked, and no more"
    checks = new_table("checks", ["check"], ["flagged", "of clean rows", "p"], ["note"], caption=caption)
    for check in found.checks:
        expected = (f"{check.expected:.1f}", f"{check.excess:.4f}") if known else ("-", "-")
        checks.add_row(check.name, str(int(check.flagged.sum())), *expected, "")
    for name, why in found.left_out.items():
        checks.add_row(name, "-", "-", "-", why)
    if not found.accused:
        return [checks]
    sources = new_table("sources that stand out", ["source"], ["rows", "p, Holm"], ["check"])
    for row in sources_frame(found).itertuples():
        if row.accused_by:
            sources.add_row(printable(row.source), str(row.rows), f"{getattr(row, row.accused_by):.4f}", row.accused_by)
    return [checks, sources]


def headline(found: Vetted) -> str:
    """What stands out, in one sentence."""
    rows, sources = int(found.quarantined.sum()), len(found.accused)
    if not rows:
        more = "" if found.trusted else " (without --trusted rows are ranked, and no rate of false alarms is known)"
        return f"Nothing stands out{more}."
    of = f", {sources} source{'s' * (sources > 1)} among them" if sources else ""
    return f"{rows:,} of {len(found.rows):,} rows should be looked at{of}."
