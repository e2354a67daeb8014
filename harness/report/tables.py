"""What a report is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Tables:
    """What a report is made of; every frame may be empty."""

    cells: pd.DataFrame  # one row per cell
    summary: pd.DataFrame  # one row per task, attack, defense and dose
    doses: pd.DataFrame  # one row per task, attack and defense: ED50 and protection factor
    scaling: pd.DataFrame  # one row per attack and defense run at several training-set sizes
    worst: pd.DataFrame  # one row per task, attack, defense and dose run against several target classes
    stealth: pd.DataFrame  # one row per task, attack, dose and check: what would have been seen of the poison
