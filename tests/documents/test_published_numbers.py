"""Published tables are what the program makes of the published cells, and documents quote no other number."""

from __future__ import annotations

import io
import re
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from harness.report.cells import read_cells
from harness.report.write import as_csv, build_tables

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
FOLDERS = sorted(path.parent for path in RESULTS.rglob("cells.csv"))
DOCUMENTS = [ROOT / "README.md", *sorted(RESULTS.rglob("README.md"))]
# "11 (8.1 to 14", and bounds such as "> 480": what a table says of an ED50, a factor or an exponent.
INTERVAL = re.compile(r"-?\d[\d.]* \(-?[\d.]+ to -?[\d.]+")
BOUND = re.compile(r"(?:>|<=) \d[\d.]*")
TABLES = {"doses", "summary", "scaling", "worst", "recipes", "relearning", "detection", "windows", "false_alarms"}
OTHER = {  # folders whose tables have intervals or bounds of something else
    "gpu", "scale", "floors", "stealth", "statistics", "leaderboard", "samples",
}  # fmt: skip


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(RESULTS)))
def test_the_published_tables_are_made_of_the_published_cells(folder: Path) -> None:
    made = vars(build_tables(read_cells(folder / "cells.csv")))
    published = [path for path in folder.glob("*.csv") if path.stem in TABLES]
    for path in published:
        again = pd.read_csv(io.StringIO(as_csv(made[path.stem])))
        pd.testing.assert_frame_equal(again, pd.read_csv(path), rtol=0.02, atol=2e-3, obj=str(path))
    if folder.name == "stealth":
        return  # victims of one epoch: their ASR means nothing
    assert (folder / "doses.csv").exists() or made["doses"].empty
    assert (folder / "scaling.csv").exists() or made["scaling"].empty


@cache
def published_texts(folder: Path) -> str:
    """Whatever the tables of a folder say, one to a line."""
    texts = []
    for path in (
        path for name in ("doses", "recipes", "relearning", "windows") for path in folder.rglob(f"{name}.csv")
    ):
        doses = pd.read_csv(path)
        texts += doses[[name for name in doses if name.endswith("_text")]].stack().tolist()
    for path in folder.rglob("scaling.csv"):
        texts += [f"{row.exponent:.2f} ({row.exponent_low:.2f} to {row.exponent_high:.2f})"
                  for row in pd.read_csv(path).itertuples()]  # fmt: skip
    return "\n".join(map(str, texts))


def quoted_numbers(text: str) -> list[str]:
    """The intervals and bounds in the tables of a document."""
    rows = [line.replace("*", "") for line in text.splitlines() if line.startswith("|")]
    return [number for row in rows for number in (*INTERVAL.findall(row), *BOUND.findall(row))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_ed50_of_a_table_is_in_a_published_file(document: Path) -> None:
    folder = RESULTS if document.parent == ROOT else document.parent
    if folder.name in OTHER:
        pytest.skip("its tables have no ED50")
    known = published_texts(folder)
    numbers = set(INTERVAL.findall(known)) | set(BOUND.findall(known))
    assert [number for number in quoted_numbers(document.read_text()) if number not in numbers] == []


def test_a_number_of_nobody_is_seen() -> None:
    assert quoted_numbers("| x | **11** (8.1 to 14) | > 49 | 3 (never in 1 of 5) | <= 1.2 |\ntext 5 (1 to 9)") == [
        "11 (8.1 to 14", "> 49", "<= 1.2",
    ]  # fmt: skip
