"""What vetting found, as JSON and as tables: rows to look at, sources, and the checks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.audit.vet import Vetted
from harness.console import expand_home, new_table, printable
from tasks.files import files_hash

if TYPE_CHECKING:
    from rich.table import Table

    from tasks.base import Task

SCHEMA = 1  # of vet.json, which harness.certify reads
EXCERPT = 80  # characters of a text


def as_json(found: Vetted, task: Task, data: str, trusted: str, settings: dict[str, Any]) -> str:
    """vet.json: what was checked and found, but no row of the data. README.md has the fields.

    data, trusted: what the command line names. No time and no path is in it.
    """
    rows = found.rows
    checks = [
        {"check": check.name, "flagged": int(check.flagged.sum()), "expected": _known(check.expected),
         "excess": _known(check.excess), "sources": {found.sources[i]: p for i, p in check.sources.items()}}
        for check in found.checks
    ]  # fmt: skip
    counts = rows.sources.bincount(minlength=len(found.sources)).tolist() if rows.sources is not None else []
    tree = {
        "schema": SCHEMA,
        "data": _describe(data) | {
            "fingerprint": rows.fingerprint, "rows": len(rows), "classes": list(map(str, task.classes)),
            "sources": dict(zip(found.sources, counts)),
        },
        "trusted": _describe(trusted) | {"rows": found.trusted},
        "settings": settings,
        "checks": checks,
        "left_out": found.left_out,
        "accused": {found.sources[i]: check for i, check in found.accused.items()},
        "quarantine": (rows.ids[found.quarantined] + 1).tolist(),
    }  # fmt: skip
    return json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _describe(path: str) -> dict[str, str]:
    """The name of a file or folder, and the hash of its content."""
    return {"source": Path(path).name, "content": files_hash(str(expand_home(path))) if path else ""}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


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
