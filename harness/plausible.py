"""Can a record be? What no run of this suite can have measured is refused before it reaches a leaderboard."""

from __future__ import annotations

import re
from math import isfinite

from harness.records import Record

# Metrics that are shares, whatever the task.
SHARES = re.compile(
    r"asr(_\w+)?|robust_accuracy|class_fidelity|labels_changed|target_found|input_auroc|\w+_abstained"
    r"|train_(auroc|tpr|fpr|precision|tpr_at_\d+)|certified_accuracy_at_\d+"
)
NEVER_NEGATIVE = ("utility", "bits_per_byte", "perplexity_ratio", "edit_distance", "certified_radius_median")


def doubt(record: Record) -> str:
    """Why the numbers of a record cannot be, in one line; nothing where they can."""
    r = record
    label = f"{r.task.label}/{r.attack.label}/{r.dose}/{r.defense.label}/{r.seed}"
    if r.label != label:
        return f"label {r.label[:120]!r} is not that of its parts, {label[:120]!r}"
    for plugged in (r.task, r.attack, r.defense):
        if plugged.label.partition("(")[0] != plugged.name:
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
    return next(filter(None, (_of_metric(r, name) for name in sorted(r.metrics))), "")


def _of_metric(record: Record, name: str) -> str:
    value, n = record.metrics[name].value, record.metrics[name].n
    share = SHARES.fullmatch(name) or (name == "utility" and record.clean_metric.endswith("accuracy"))
    if not isfinite(value) or (name in NEVER_NEGATIVE and value < 0):
        return f"{name} {value} must be finite and 0 or more"
    if share and not -1e-6 <= value <= 1 + 1e-6:
        return f"{name} {value:g} is a share and must lie in [0, 1]"
    if n < 0 or (n == 0 and not name.startswith("train_")):  # a filter that flags nothing has no precision
        return f"{name} is the mean of {n} items"
    return ""
