"""Builds a report from its cells and writes it: every table as CSV and JSON, and the figures."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING

import pandas as pd

from harness.report import dvc_export, figures
from harness.report.cells import neutralise_texts
from harness.report.datasets import join_labels, keep_apart
from harness.report.detection import detection_frame
from harness.report.doses import dose_frame, scaling_frame
from harness.report.recipes import recipes_frame
from harness.report.relearning import relearning_frame
from harness.report.stealth import stealth_frame
from harness.report.summary import summary_frame, worst_frame
from harness.report.tables import Tables
from harness.report.windows import false_alarms_frame, windows_frame
from harness.store.folder import write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def build_tables(cells: pd.DataFrame) -> Tables:
    """Every table of a report, from the table of cells; none of their rows is of two data sets (`keep_apart`)."""
    cells = keep_apart(cells)
    summary = summary_frame(cells)
    return Tables(
        cells=cells, summary=summary, doses=dose_frame(cells, summary), scaling=scaling_frame(cells),
        worst=worst_frame(cells), recipes=recipes_frame(cells), relearning=relearning_frame(cells),
        detection=detection_frame(cells), windows=windows_frame(cells), false_alarms=false_alarms_frame(cells),
        stealth=stealth_frame(cells),
    )  # fmt: skip


def write_tables(tables: Tables, folder: Path) -> list[Path]:
    """Write a report into a folder: a CSV file per table, two JSON files, and the figures, whose paths it returns."""
    for name, frame in (vars(tables) | {"cells": join_labels(tables.cells)}).items():
        if not frame.empty:
            write_atomically(folder / f"{name}.csv", as_csv(frame, digits=12 if name == "cells" else 6))
    write_atomically(folder / "summary.json", as_json(tables.summary))
    write_atomically(folder / "metrics.json", dvc_export.metrics_json(tables))
    return figures.write_figures(tables, folder)


def as_csv(frame: pd.DataFrame, digits: int = 6) -> str:
    """A table as CSV, its floats to so many significant digits; no text in it is a formula to a spreadsheet."""
    text = StringIO()
    neutralise_texts(frame).to_csv(text, index=False, float_format=f"%.{digits}g", lineterminator="\n")
    return text.getvalue()


def as_json(frame: pd.DataFrame) -> str:
    """A table as a JSON list of rows."""
    return json.dumps(json.loads(frame.to_json(orient="records", double_precision=6)), indent=1)
