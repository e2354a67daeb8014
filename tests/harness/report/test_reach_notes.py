"""What a table and a page say where the victim does not see all of trigger or poison."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from helpers import frame
from rich.console import Console

from harness.report.summary import explain_reach, summary_frame, summary_table
from harness.report.write import build_tables
from harness.site.headline import headline


def cells(**seen: float) -> pd.DataFrame:
    """Two seeds of a strong attack and a defense at doses 0 and 5; `poison_seen` at dose 5 only."""
    table = frame({"none": [0.9, 0.8], "filter": [0.1, 0.2]}, doses=(0, 5))
    for name, value in seen.items():
        table[name], table[f"{name}_n"] = value, 150
        if name == "poison_seen":
            table.loc[table.dose == 0, [name, f"{name}_n"]] = float("nan")
    return table


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({}, ""),
        ({"trigger_seen": 1.0, "poison_seen": 1.0}, ""),
        ({"trigger_seen": 0.4}, "trigger seen in 40 % of the challenge (n = 300)"),
        ({"trigger_seen": 0.699999988}, "trigger seen in 70 % of the challenge (n = 300)"),  # a mean of float32
        ({"trigger_seen": 0.9999}, "trigger seen in 99.9 % of the challenge (n = 300)"),
        ({"trigger_seen": 0.0001}, "trigger seen in 0.1 % of the challenge (n = 300)"),
        ({"trigger_seen": 1.0, "poison_seen": 0.2}, "poison seen in 20 % of its rows (n = 300)"),
        (
            {"trigger_seen": 0.5, "poison_seen": 0.25},
            "trigger seen in 50 % of the challenge (n = 300); poison seen in 25 % of its rows (n = 300)",
        ),
    ],
)
def test_a_line_says_what_the_victim_saw_where_that_is_not_all(seen: dict[str, float], words: str) -> None:
    summary = summary_frame(cells(**seen))
    assert explain_reach(summary[summary.defense == "none"]) == words
    console = Console(width=250, file=io.StringIO(), record=True)
    console.print(summary_table(summary, str(summary.task.iloc[0])))
    printed = console.export_text()
    head = headline(build_tables(cells(**seen)))
    if words:
        assert words in printed
        assert all(note.startswith(words) for note in head.note)
    else:
        assert "seen in" not in printed
        assert not head.note.str.contains("seen in").any()
