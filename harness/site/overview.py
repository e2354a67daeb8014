"""The overview's first numbers: how many poisoned samples it takes, and how many more behind a defense."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from harness.console import format_count
from harness.site.headline import Column, Field, Listing, estimate_field, number_field


def working_rows(head: pd.DataFrame) -> pd.DataFrame:
    """The undefended attacks that work and have an ED50."""
    return head[(head.defense == "none") & head.gate.astype(bool) & head.ed50.notna()] if len(head) else head


def defended_rows(head: pd.DataFrame) -> pd.DataFrame:
    """The attacks behind a defense, controls aside, that have a protection factor."""
    return head[head.protection.notna() & (head.stage != "control")] if len(head) else head


def median_field(rows: pd.DataFrame, name: str) -> Field:
    """The median ED50 or protection factor; of two, the lower one: so it is a number or a bound that was measured."""
    known = [f for f in (estimate_field(r, name) for r in rows.itertuples()) if f.sort is not None]
    known.sort(key=lambda f: f.sort or 0.0)
    return replace(known[(len(known) - 1) // 2], small="") if known else Field("–")


def smallest_ed50(head: pd.DataFrame) -> Any:
    """The undefended attack with the smallest ED50, on the most rows, for the first sentence; None if there is none."""
    known = working_rows(head)
    if known.empty:
        return None
    known = known[known.ed50_censored != ">"]
    order = known.sort_values(["ed50", "train_size", "task", "attack"], ascending=[True, False, True, True])
    return next(order.itertuples(), None)


def answer_table(head: pd.DataFrame, modality: dict[str, str]) -> Listing | None:
    """The two questions of the overview, answered for each modality and for all; None where no attack works."""
    columns = (
        Column("modality"), Column("fewest poisons", True, "smallest ED50 of an undefended attack"),
        Column("median ED50", True, "of the undefended attacks that work, each counted once for each task"),
        Column("median protection", True, "how many times more samples attacks need behind defenses, counted likewise"),
        Column("twice or more", True, "of those with a protection factor; a bound that leaves it open is none"),
    )  # fmt: skip
    plain, defended = working_rows(head), defended_rows(head)
    if plain.empty:
        return None
    kinds = [*sorted(set(plain.task.map(modality))), "all"]
    rows = []
    for kind in kinds:
        ours, theirs = (f[(f.task.map(modality) == kind) | (kind == "all")] for f in (plain, defended))
        least = min((estimate_field(r, "ed50") for r in ours.itertuples()), key=lambda f: f.sort or 0.0)
        doubled = (theirs.protection >= 2) & (theirs.protection_censored != "<")
        rows.append([
            Field(kind.replace("_", " ")), replace(least, small=""),
            replace(median_field(ours, "ed50"), small=format_count(len(ours), "attack")),
            replace(median_field(theirs, "protection"), small=f"{len(theirs):,} defended"),
            number_field(100 * doubled.mean() if len(theirs) else None, "{:.0f} %"),
        ])  # fmt: skip
    return Listing("answer", "How many it takes, and how many more once defended", columns, rows)


def example_row(head: pd.DataFrame) -> tuple[Any, Any] | None:
    """A row of the headline to explain, with that of the undefended attack.

    Both ED50s are known, and the defense helps: the whole interval of its protection factor lies above 1.
    """
    plain = working_rows(head)
    plain = {(r.task, r.attack): r for r in plain[plain.ed50_censored == ""].itertuples()} if len(plain) else {}
    rows = defended_rows(head)
    if not len(rows) or "p" not in rows:
        return None
    rows = rows[
        (rows.protection_censored == "") & (rows.protection_low > 1) & (rows.p < 0.05) & rows.clean_cost.notna()
    ]
    return next(((r, plain[r.task, r.attack]) for r in rows.itertuples() if (r.task, r.attack) in plain), None)
