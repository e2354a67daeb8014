"""A report from its cells: every table, as CSV and JSON, and the figures."""

from __future__ import annotations

import json
from io import StringIO
from typing import TYPE_CHECKING

import pandas as pd

from harness.report.doses import dose_frame, scaling_frame
from harness.report.stealth import stealth_frame
from harness.report.summary import summary_frame, worst_frame
from harness.report.tables import Tables
from harness.store.folder import write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def build_tables(cells: pd.DataFrame) -> Tables:
    """Every table, from that of the cells."""
    summary = summary_frame(cells)
    doses = dose_frame(cells, summary)
    scaling, stealth = scaling_frame(cells), stealth_frame(cells)
    return Tables(cells, summary, doses, scaling, worst_frame(cells), stealth)


def write_tables(found: Tables, folder: Path) -> list[Path]:
    """Rewrite a folder from its tables: CSV per table, two JSON files and the figures, whose paths it returns."""
    from harness.report import dvc_export, figures

    for name, frame in vars(found).items():
        if not frame.empty:
            write_atomically(folder / f"{name}.csv", as_csv(frame, digits=12 if name == "cells" else 6))
    write_atomically(folder / "summary.json", as_json(found.summary))
    write_atomically(folder / "metrics.json", dvc_export.metrics(found))
    return figures.write(found, folder)


def as_csv(frame: pd.DataFrame, digits: int = 6) -> str:
    out = StringIO()
    frame.to_csv(out, index=False, float_format=f"%.{digits}g", lineterminator="\n")
    return out.getvalue()


def as_json(frame: pd.DataFrame) -> str:
    return json.dumps(json.loads(frame.to_json(orient="records", double_precision=6)), indent=1)
