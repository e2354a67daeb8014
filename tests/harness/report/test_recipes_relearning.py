"""Two tables: the attacker with several recipes, and how many poisons bring a backdoor back."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers import plugin_columns

from harness.errors import BadGrid
from harness.grid.mapping import grid_from_mapping
from harness.report.recipes import recipes_frame, recipes_table
from harness.report.relearning import relearning_frame, relearning_table

DOSES = (0, 1, 2, 4, 8, 16, 32, 64)


def make_cells(middles: dict[str, list[float]], **more: object) -> pd.DataFrame:
    """Cells of an attack with recipes, by label: ASR is half at these doses, one per seed."""
    return pd.DataFrame([
        {**plugin_columns(task="t", attack=label, defense="none"), "attack_name": "a", "stage": "x", "dose": dose,
         "seed": seed, "status": "done", "reason": "", "asr": 0 if not dose else 1 / (1 + (middle / dose) ** 4),
         "asr_floor": 0.0, "asr_n": 900, "utility": 0.9, "utility_n": 900, "clean_metric": "accuracy",
         "train_size": 500, **more}
        for label, each in middles.items() for seed, middle in enumerate(each) for dose in DOSES
    ])  # fmt: skip


def test_the_best_recipe_and_the_mean_of_all() -> None:
    row = recipes_frame(make_cells({"a(x=1)": [4, 4.2, 3.8], "a(x=2)": [16, 15.5, 16.5]})).iloc[0]
    assert (row.recipes, row.best, row.chosen) == (2, "a(x=1)", "3 of 3 seeds")
    assert row.ed50 == pytest.approx(4, rel=0.1)
    assert row["mean"] == pytest.approx(8, rel=0.1), "the geometric mean of 4 and 16"


def test_the_lowest_of_many_equal_recipes_is_not_lower_than_they_are() -> None:
    rng = np.random.default_rng(0)
    lowest, chosen = [], []
    for _ in range(20):
        middles = {f"a(x={i})": list(8 * np.exp(0.4 * rng.normal(size=4))) for i in range(6)}
        lowest.append(min(np.exp(np.log(each).mean()) for each in middles.values()))
        chosen.append(recipes_frame(make_cells(middles)).iloc[0].ed50)
    assert np.mean(np.log(lowest)) < np.log(8) - 0.15, "picking on the same seeds is too low"
    assert abs(np.mean(np.log(chosen)) - np.log(8)) < 0.1


def test_one_recipe_or_one_seed_is_no_table() -> None:
    assert recipes_frame(make_cells({"a": [4, 4, 4]})).empty
    assert recipes_frame(make_cells({"a(x=1)": [4], "a(x=2)": [5]})).empty
    frame = make_cells({"a(x=1)": [4, 4, 4], "a(x=2)": [5, 5, 5]})
    frame.loc[frame.attack == "a(x=2)", "seed"] += 2  # one seed in common
    row = recipes_frame(frame).iloc[0]
    assert "at least two that all recipes share" in row.note
    assert recipes_table(recipes_frame(frame)).row_count == 1


def test_a_grid_runs_an_attack_once_for_each_recipe() -> None:
    attack = {"name": "badnets", "target": 1, "recipes": [{"size": 2}, {"size": 3}, {"target": 2}]}
    grid = grid_from_mapping({"tasks": ["digits"], "attacks": [attack], "doses": 5, "defenses": "none", "seeds": 0})
    assert [dict(spec.options) for spec in grid.attacks] == [
        {"size": 2, "target": 1}, {"size": 3, "target": 1}, {"target": 2},
    ]  # fmt: skip
    for recipes in ([], [3], {"size": 3}):
        with pytest.raises(BadGrid, match="recipes"):
            grid_from_mapping({
                "tasks": ["digits"], "attacks": [{"name": "badnets", "recipes": recipes}], "doses": 5,
                "defenses": "none", "seeds": 0,
            })  # fmt: skip


def relearn_cells(back_at: dict[int, float]) -> pd.DataFrame:
    """Cells of a grid with `retune`: by first dose, the poisons that bring ASR half of the way back."""
    columns = {d: {f"asr_retuned_{k}": 1 / (1 + (m / k) ** 4) if k else 0.0 for k in DOSES} for d, m in back_at.items()}
    return pd.DataFrame([
        {**plugin_columns(task="t", attack="a", defense="repair"), "dose": dose, "seed": seed, "status": "done",
         "asr": 0.1, "asr_floor": 0.0, **retuned}
        for dose, retuned in columns.items() for seed in range(3)
    ])  # fmt: skip


def test_a_hidden_backdoor_comes_back_after_fewer_poisons() -> None:
    frame = relearning_frame(relearn_cells({0: 16, 100: 2})).set_index("dose")
    assert frame.ed50[0] == pytest.approx(16, rel=0.05)
    assert frame.ed50[100] == pytest.approx(2, rel=0.05)
    assert frame.factor[100] == pytest.approx(1 / 8, rel=0.1)
    assert np.isnan(frame.factor[0]), "dose 0 is the control"
    assert relearning_table(frame.reset_index()).row_count == 2


def test_a_backdoor_that_is_still_there_has_no_number() -> None:
    cells = relearn_cells({0: 16, 100: 2})
    cells.loc[cells.dose == 100, [name for name in cells if "retuned" in str(name)]] = 0.9
    frame = relearning_frame(cells).set_index("dose")
    assert np.isnan(frame.ed50[100])
    assert "without any poison" in frame.note[100]


def test_without_retune_there_is_no_table() -> None:
    assert relearning_frame(make_cells({"a": [4, 4, 4]})).empty
