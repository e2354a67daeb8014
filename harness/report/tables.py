"""The tables of a report."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Tables:
    """The tables that a report consists of; every frame may be empty."""

    cells: pd.DataFrame  # one row per cell
    summary: pd.DataFrame  # one row per task, attack, defense and dose
    doses: pd.DataFrame  # one row per task, attack and defense: ED50 and protection factor
    scaling: pd.DataFrame  # one row per attack and defense that ran at several training-set sizes
    worst: pd.DataFrame  # one row per task, attack, defense and dose run against several target classes
    recipes: pd.DataFrame  # one row per task, attack and defense run with several recipes of the attack
    relearning: pd.DataFrame  # one row per task, attack, defense and dose of a grid with `retune`
    detection: pd.DataFrame  # one row per task, attack, detector and dose: how well it tells poisoned from clean
    windows: pd.DataFrame  # one row per task, attack and detector: doses at which backdoors work and are found
    false_alarms: pd.DataFrame  # one row per detector and kind of clean models
    stealth: pd.DataFrame  # one row per task, attack, dose, check and measure: what would have been seen of the poison
