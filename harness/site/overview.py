"""The overview's first numbers: how many poisoned samples it takes, and whether a defense doubles that.

What is counted is pairs of dataset and attack, each once however many variants of a task were run; no median over
whatever somebody chose to run.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pandas as pd

from harness.plugins.registry import verdicts
from harness.report.dose_response import HIGH_FLOOR
from harness.site.headline import Column, Field, Listing, estimate_field, number_field

FEW, SOME = 5, 30  # samples: the limits of the counts
PAIR = ["task_name", "attack_name"]


def working_rows(head: pd.DataFrame) -> pd.DataFrame:
    """The undefended attacks that work and have an ED50, above a chance floor that leaves room for one."""
    if not len(head):
        return head
    works = (head.defense == "none") & head.gate.astype(bool) & head.ed50.notna()
    return head[works & ~(head.chance > HIGH_FLOOR)]


def defended_rows(head: pd.DataFrame) -> pd.DataFrame:
    """The attacks that work behind a defense, controls aside, whether they have a protection factor or not."""
    if not len(head):
        return head
    return head[(head.defense != "none") & (head.stage != "control") & head.gate.astype(bool)]


def drop_unproven(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of methods that are not unproven here: those make no headline."""
    if not len(rows):
        return rows
    unproven = {method for method, verdict in verdicts().items() if verdict.startswith("unproven")}
    out = [
        ("attacks", a) in unproven or ("defenses", d) in unproven for a, d in zip(rows.attack_name, rows.defense_name)
    ]
    return rows[~pd.Series(out, index=rows.index)]


def range_field(rows: pd.DataFrame, name: str) -> Field:
    """The least and the greatest ED50 or protection factor, numbers and bounds as they stand; sorted by the least."""
    known = [f for f in (estimate_field(r, name) for r in rows.itertuples()) if f.sort is not None]
    known.sort(key=lambda f: f.sort or 0.0)
    if not known:
        return Field("–")
    texts = dict.fromkeys(f.text for f in (known[0], known[-1]))
    return replace(known[0], text=" to ".join(texts), small="")


def smallest_ed50(head: pd.DataFrame) -> Any:
    """The undefended attack with the smallest ED50, on the most rows, for the first sentence; None if there is none."""
    known = drop_unproven(working_rows(head))
    if known.empty:
        return None
    known = known[known.ed50_censored != ">"]
    order = known.sort_values(["ed50", "train_size", "task", "attack"], ascending=[True, False, True, True])
    return next(order.itertuples(), None)


def count_needs(rows: pd.DataFrame) -> tuple[int, int, int]:
    """Of the distinct pairs of dataset and attack, how many need at most FEW samples, up to SOME, and more.

    A pair of several variants counts where their median is; a lower bound has no upper limit.
    """
    if rows.empty:
        return 0, 0, 0
    most = rows.assign(ed50=rows.ed50.where(rows.ed50_censored != ">", inf))
    middle = most.groupby(PAIR).ed50.median()
    return int((middle <= FEW).sum()), int(((middle > FEW) & (middle <= SOME)).sum()), int((middle > SOME).sum())


def count_doubled(rows: pd.DataFrame) -> tuple[int, int, int]:
    """Of the distinct triples of dataset, attack and defense: which surely need twice the samples, surely not, unknown.

    Sure is what the whole 95 % interval says, in every variant that was run.
    """
    if rows.empty:
        return 0, 0, 0
    sure = rows.assign(doubled=rows.protection_low >= 2, less=rows.protection_high < 2)
    told = sure.groupby([*PAIR, "defense_name"])[["doubled", "less"]].all()
    return int(told.doubled.sum()), int(told.less.sum()), int((~told.any(axis=1)).sum())


def count_all(head: pd.DataFrame) -> dict[str, tuple[int, int, int]]:
    """The counts of the overview's first sentences."""
    plain, defended = drop_unproven(working_rows(head)), drop_unproven(defended_rows(head))
    return {"needs": count_needs(plain), "doubled": count_doubled(defended)}


def answer_table(head: pd.DataFrame, modality: dict[str, str]) -> Listing | None:
    """The two questions of the overview, answered for each modality and for all; None where no attack works."""
    columns = (
        Column("modality"), Column("attacks that work", True, "distinct pairs of dataset and attack with an ED50"),
        Column("fewest poisons", True, "smallest ED50 of an undefended attack"),
        Column(f"at most {FEW} / to {SOME} / more", True, "of these pairs, by their ED50"),
        Column("doubled / not / unknown", True, "distinct pairs behind a defense: the whole 95 % interval of a factor "
                                                "is at 2 or above, below 2, or neither"),
    )  # fmt: skip
    plain, defended = drop_unproven(working_rows(head)), drop_unproven(defended_rows(head))
    if plain.empty:
        return None
    kinds = [*sorted(set(plain.task.map(modality))), "all"]
    rows = []
    for kind in kinds:
        ours, theirs = (f[(f.task.map(modality) == kind) | (kind == "all")] for f in (plain, defended))
        least = min((estimate_field(r, "ed50") for r in ours.itertuples()), key=lambda f: f.sort or 0.0)
        needs, doubled = count_needs(ours), count_doubled(theirs)
        rows.append([
            Field(kind.replace("_", " ")), number_field(sum(needs), "{:,}"), replace(least, small=""),
            *(Field(" / ".join(map(str, counts)), sort=float(counts[0])) for counts in (needs, doubled)),
        ])  # fmt: skip
    return Listing("answer", "How many it takes, and whether a defense doubles it", columns, rows)


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
