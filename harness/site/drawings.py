"""The figures of a leaderboard, drawn into a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from harness.report.figures import NARROW, curves, heat_map, protection_map
from harness.site import charts
from harness.site.listings import safe_name
from harness.site.overview import defended_rows, smallest_ed50

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.site.board import Board


class Drawings:
    """What was drawn, by name."""

    def __init__(self, board: Board, folder: Path, formats: tuple[str, ...]) -> None:
        import matplotlib

        matplotlib.use("Agg", force=True)
        self.board, self.folder, self.formats = board, folder, formats
        self.sizes: dict[str, tuple[int, int]] = {}  # points
        self.overview: list[str] = []
        self.curves: dict[tuple[str, str], str] = {}  # task and attack -> name
        self.maps: dict[str, list[str]] = {}  # task -> names

    def draw_overview(self) -> None:
        """How many samples it takes, and what a defense buys: each for wide and for narrow screens."""
        head = self.board.headline
        if smallest_ed50(head) is not None:
            self._draw_both("how-many", charts.how_many)
        if "protection" in head and defended_rows(head).protection.notna().any():
            self._draw_both("what-it-buys", charts.what_it_buys)

    def draw_tasks(self) -> None:
        """Dose-response curves of every task and attack, matrices of every task with a defense."""
        if self.board.headline.empty:
            return
        summary = self.board.tables.summary
        graded = summary[summary.asr.notna()]
        slugs = self.board.links.slugs
        for (task, attack), rows in graded.groupby(["task", "attack"], sort=False):
            if rows.dose.nunique() > 1:
                name = f"{slugs[task]}--{safe_name(attack)}"
                name += f"-{len(self.curves)}" if name in self.curves.values() else ""
                self.curves[task, attack] = self._save(name, curves(rows, str(task)), self.formats)
        for task, rows in graded.groupby("task", sort=False):
            if rows.defense.nunique() > 1:
                self._draw_maps(str(task), rows)

    def _draw_maps(self, task: str, rows: pd.DataFrame) -> None:
        """For papers; the page itself has them as tables."""
        name, doses = self.board.links.slugs[task], self.board.tables.doses
        dose_of = self.board.headline_of("task", task).drop_duplicates("attack").set_index("attack").dose
        drawn = [(f"{name}--map", heat_map(rows[rows.dose == rows.attack.map(dose_of)], task))]
        if "protection" in doses:
            defended = doses[(doses.task == task) & (doses.defense != "none")]
            if defended.protection.notna().any():
                drawn.append((f"{name}--protection", protection_map(defended, task)))
        self.maps[task] = [self._save(name, figure, self.formats) for name, figure in drawn]

    def _draw_both(self, name: str, draw: Callable[..., Figure]) -> None:
        head, modality = self.board.headline, self.board.modality
        self.overview.append(self._save(name, draw(head, modality), self.formats))
        self._save(f"{name}-narrow", draw(head, modality, NARROW), ("svg",))

    def _save(self, name: str, figure: Figure, formats: tuple[str, ...]) -> str:
        charts.save(figure, self.folder, name, formats)
        width, height = figure.get_size_inches()
        self.sizes[name] = round(72 * width), round(72 * height)
        return name
