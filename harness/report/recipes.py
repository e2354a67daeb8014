"""An attacker with several recipes: the ED50 of the best one beside the mean of all."""

from __future__ import annotations

from collections import Counter
from math import inf, log
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.console import new_table
from harness.report.dose_response import Curve, Unsupported, dose_range, effective_dose, estimate_ed
from harness.report.doses import curves_by_seed
from harness.report.estimates import estimate

if TYPE_CHECKING:
    from rich.table import Table

WORDS = ("best", "chosen", "note")  # columns
Recipes = dict[str, dict[int, Curve]]  # curves by seed of every recipe, by label


def recipes_frame(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per task, attack and defense that was run with several recipes: sets of options of the same attack.

    `mean` is the ED50 of a recipe on average (geometric), `ed50` that of the attacker who takes the best. Which one is
    best for a seed is decided on the *other* seeds: the lowest of many noisy ED50s would be too low, the more recipes
    the lower. `best` names the one that is chosen most often.
    """
    if "asr" not in cells:
        return pd.DataFrame()
    rows: list[dict[str, Any]] = []
    for place, part in cells.groupby(["task", "attack_name", "defense"], sort=False):
        parts = {str(label): rest for label, rest in part.groupby("attack", sort=False)}
        recipes = {label: curves for label, rest in parts.items() if len(curves := curves_by_seed(rest)) > 1}
        if len(recipes) < 2 or part.dose.nunique() < 3:
            continue
        row: dict[str, Any] = dict(zip(("task", "attack", "defense"), place)) | {"recipes": len(recipes)}
        row |= {"mean": np.nan, "mean_text": "-", "ed50": np.nan, "ed50_text": "-"} | dict.fromkeys(WORDS, "")
        try:
            row |= _numbers(recipes)
        except Unsupported as error:
            row["note"] = str(error)
        rows.append(row)
    return pd.DataFrame(rows)


def _numbers(recipes: Recipes) -> dict[str, Any]:
    seeds = sorted(set.intersection(*(set(curves) for curves in recipes.values())))
    if len(seeds) < 2:
        raise Unsupported("the best recipe is chosen on other seeds: at least two that all recipes share")
    chosen = {seed: _best(recipes, [other for other in seeds if other != seed]) for seed in seeds}
    best = {seed: recipes[label][seed] for seed, label in chosen.items()}
    bounds = [tuple(np.mean([effective_dose(c[seed]) for c in recipes.values()], axis=0)) for seed in seeds]
    mean, lowest = estimate(bounds, dose_range(best)), estimate_ed(best)
    label, times = Counter(chosen.values()).most_common(1)[0]
    return {
        "mean": mean.value, "mean_text": str(mean), "ed50": lowest.value, "ed50_text": str(lowest), "best": label,
        "chosen": f"{times} of {len(seeds)} seeds",
    }  # fmt: skip


def _best(recipes: Recipes, seeds: list[int]) -> str:
    """The recipe with the lowest mean log ED50 on these seeds."""
    return min(recipes, key=lambda label: np.mean([_middle(recipes[label][seed]) for seed in seeds]))


def _middle(curve: Curve) -> float:
    """The log ED50 of one seed; beyond the doses, half and twice the last one stand for it."""
    low, high = effective_dose(curve)
    low = log(curve.doses[curve.doses > 0].min() / 2) if low == -inf else low
    return (low + (log(2 * curve.doses.max()) if high == inf else high)) / 2


def recipes_table(recipes: pd.DataFrame) -> Table:
    """Mean and lowest ED50 over the recipes of an attack."""
    title = "several recipes of an attack: mean ED50, and that of the best one (chosen on the other seeds)"
    table = new_table(title, ["task", "attack", "defense"], ["recipes", "mean", "best"], ["recipe"])
    for row in recipes.itertuples():
        said = str(row.note or f"{row.best} ({row.chosen})")
        place = [str(row.task), str(row.attack), str(row.defense), str(row.recipes)]
        table.add_row(*place, str(row.mean_text), str(row.ed50_text), said)
    return table
