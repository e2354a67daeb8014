"""Can a record be? What no run of this suite can have measured is refused before it reaches a leaderboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from math import isfinite
from sys import float_info
from typing import get_args

import pandas as pd

from harness.report.cells import PLUGIN_COLUMNS, PLUGINS
from harness.store import records
from harness.store.records import PlannedCell, Record

# Metrics that are shares, whatever the task; those that count items, so that they are k of n; the items they count.
SHARES = re.compile(
    r"asr(_\w+)?|robust_accuracy|class_fidelity|labels_changed|(trigger|poison)_seen|target_found|input_auroc|\w+_abstained"
    r"|train_(auroc|tpr|fpr|precision|tpr_at_\d+)|certified_accuracy_at_\d+"
)
COUNTED = re.compile(
    r"asr(_\w+)?|robust_accuracy|(trigger|poison)_seen|target_found|\w+_abstained|train_(tpr|fpr|precision|tpr_at_\d+)|certified_accuracy_\w+"
)
OF_CHALLENGE = re.compile(r"asr(_\w+)?|(challenge|plain)_abstained|robust_accuracy|trigger_seen|target_found")
OF_TEST = re.compile(r"utility|clean_abstained|bits_per_byte|class_fidelity|certified_\w+")
NEVER_NEGATIVE = ("utility", "bits_per_byte", "perplexity_ratio", "edit_distance", "certified_radius_median")
MOST = 10**9  # items
ROUNDED = 1e-6  # of n: means are of 32-bit numbers


def find_doubt(record: Record) -> str:
    """Why the numbers of a record cannot be, in one line; nothing where they can."""
    r = record
    label = f"{r.task.label}/{r.attack.label}/{r.dose}/{r.defense.label}/{r.seed}"
    if r.label != label:
        return f"label {r.label[:120]!r} is not that of its parts, {label[:120]!r}"
    for plugged in (r.task, r.attack, r.defense):
        if plugged.label != plugged.name and not plugged.label.startswith(f"{plugged.name}("):
            return f"label {plugged.label[:120]!r} is not one of {plugged.name!r}"
    if r.dose < 0 or r.seed < 0 or r.clean_used < 0:
        return f"dose {r.dose}, seed {r.seed} and clean_used {r.clean_used} must be 0 or more"
    if r.train_size is not None and r.dose > r.train_size:
        return f"dose {r.dose} is more than the {r.train_size} training rows"
    if not all(isfinite(s) and s >= 0 for s in (r.fit_seconds, *r.seconds.values())):
        return "seconds must be finite and 0 or more"
    if any(not path.startswith(f"findings/{r.key}/") for path in r.findings.values()):
        return "names findings of another cell"
    if r.status == "done" and "utility" not in r.metrics:
        return "is done and has no utility"
    return next(filter(None, (*(_of_metric(r, name) for name in sorted(r.metrics)), *_of_counts(r))), "")


def _of_metric(record: Record, name: str) -> str:
    value, n = record.metrics[name].value, record.metrics[name].n
    if why := _of_value(name, value, record.clean_metric):
        return why
    if not 0 <= n <= MOST or (n == 0 and not name.startswith("train_")):  # a filter that flags nothing has no precision
        return f"{name} is the mean of {str(n)[:20]} items"
    accuracy = name == "utility" and record.clean_metric == "accuracy" and not record.task.source
    if (COUNTED.fullmatch(name) or accuracy) and abs(value * n - round(value * n)) > ROUNDED * n:
        return f"{name} {value:g} is no share of {n} items"
    return ""


def _of_value(name: str, value: float, clean_metric: str) -> str:
    share = SHARES.fullmatch(name) or (name == "utility" and clean_metric.endswith("accuracy"))
    if not isfinite(value) or (name in NEVER_NEGATIVE and value < 0):
        return f"{name} {value} must be finite and 0 or more"
    return f"{name} {value:g} is a share and must lie in [0, 1]" if share and not -1e-6 <= value <= 1 + 1e-6 else ""


def _of_counts(record: Record) -> Iterator[str]:
    """The same items stand behind all metrics of the challenge, and the whole test set behind all clean ones."""
    for first, form in (("asr", OF_CHALLENGE), ("utility", OF_TEST)):
        for name in sorted(filter(form.fullmatch, record.metrics)):
            n, whole = record.metrics[name].n, record.metrics[first].n if first in record.metrics else None
            if whole is not None and n != whole:
                yield f"{name} is the mean of {n} items, and {first} of {whole}"
    size = record.task.options.get("test_size")
    if isinstance(size, int) and "utility" in record.metrics and record.metrics["utility"].n != size:
        yield f"utility is the mean of {record.metrics['utility'].n} items, and test_size is {size}"


def find_contradiction(found: Iterable[Record], plan: dict[str, PlannedCell]) -> str:
    """Where records of one store contradict its plan or each other, in one line that names a key; or nothing.

    plan: the planned cell by key; where there is a plan, no other record is shown. Every defense and dose of a seed
    meets the same challenge, every cell of a task the same test set, unless the code or the data was another one.
    """
    seen: dict[tuple[object, ...], tuple[int, str]] = {}
    for r in found:
        if plan and r.key not in plan:
            continue
        if plan and not _is_planned(r, plan[r.key]):
            return f"{r.key}: is {r.label[:120]!r}, but plan.json has {plan[r.key]['label'][:120]!r} under this key"
        code = (r.task.label, r.dataset_fingerprint, str(r.provenance.get("commit")))
        for name, of in {"asr": (r.attack.label, r.seed), "utility": ()}.items():
            if name in r.metrics:
                n, (whole, other) = r.metrics[name].n, seen.setdefault((name, *code, *of), (r.metrics[name].n, r.key))
                if n != whole:
                    return f"{r.key}: {name} is the mean of {n} items, that of {other} on the same items of {whole}"
    return ""


def _is_planned(record: Record, cell: PlannedCell) -> bool:
    """Whether they are the same cell, options aside: a later grid may set an option to its default, or not at all."""
    r = record
    planned = (cell["task_name"], cell["attack_name"], cell["dose"], cell["defense_name"], cell["seed"])
    return (r.task.name, r.attack.name, r.dose, r.defense.name, r.seed) == planned


WORDS = (*PLUGIN_COLUMNS, "modality", "stage", "status", "clean_metric", "key")
COUNTS = ("dose", "seed", "clean_used")
COSTS = ("fit_seconds", "seconds", "train_size", "peak_memory_bytes")
STATES = get_args(records.Status)
MORE = "is a share and must lie in [0, 1]"


def find_table_doubt(cells: pd.DataFrame) -> str:
    """Why a table of cells cannot be (harness.report.cells.read_cells): line, column, value; nothing if it can."""
    if absent := [name for name in (*WORDS, *COUNTS, "fit_seconds") if name not in cells]:
        return f"has no column {absent[0]!r}"
    for name in cells:
        values = cells[name]
        for wrong, why in (*_wrong(str(name), values, cells.get("clean_metric")), *_wrong_plugin(str(name), cells)):
            if wrong.any():
                at = int(wrong.to_numpy().argmax())
                return f"line {at + 2}: {name} {str(values.iloc[at])[:80]!r} {why}"
    return ""


def _wrong_plugin(name: str, cells: pd.DataFrame) -> Iterator[tuple[pd.Series, str]]:
    """Masks of names that are not those of their labels, and of options that are no JSON mapping."""
    column, _, part = name.rpartition("_")
    if column not in PLUGINS:
        return
    if part == "name":
        labels, names = cells[column].astype(str), cells[name].astype(str)
        fits = [label == own or label.startswith(f"{own}(") for label, own in zip(labels, names)]
        yield ~pd.Series(fits, cells.index, dtype=bool), f"is not the name in the column {column}"
    if part == "options":
        known = {options: _is_mapping(options) for options in cells[name].astype(str).unique()}
        yield ~cells[name].astype(str).map(known), "is no JSON mapping"


def _is_mapping(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _wrong(name: str, values: pd.Series, clean_metric: pd.Series | None) -> Iterator[tuple[pd.Series, str]]:
    """Masks of the values of a column that cannot be, and what they should be."""
    if name in WORDS:
        yield values.isna(), "is missing"
    if name == "status":
        yield ~values.isin(STATES), f"is none of {', '.join(STATES)}"
    of_n = name.endswith("_n")
    share = not of_n and SHARES.fullmatch(name) is not None
    if not (share or of_n or name in (*COUNTS, *COSTS, *NEVER_NEGATIVE)):
        return
    number = pd.to_numeric(values, errors="coerce")
    yield number.isna() & (values.notna() | (name in COUNTS[:2])), "is no number"
    yield ~number.fillna(0).between(0, float_info.max), "must be finite and 0 or more"
    if name in COUNTS or of_n:
        yield number.fillna(0) % 1 != 0, "is no whole number"
    if name == "utility" and clean_metric is not None:
        yield (number > 1 + 1e-6) & clean_metric.astype(str).str.endswith("accuracy"), MORE
    elif share:
        yield number > 1 + 1e-6, MORE
