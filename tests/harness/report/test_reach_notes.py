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


@pytest.mark.parametrize(
    ("sizes", "target", "words"),
    [
        ([100, 10], None, ""), ([2, 2], None, "challenge of 2 inputs"), ([9, 100], 0, "challenge of 9 inputs"),
        ([1, 1], 0, "challenge of 1 input"), ([1, 1], None, ""),  # the trials of a targeted attack
        ([float("nan")] * 2, None, ""),
    ],
)  # fmt: skip
def test_a_line_says_where_a_challenge_has_few_inputs(sizes: list[float], target: int | None, words: str) -> None:
    table = cells()
    table["asr_n"] = table.seed.map(dict(enumerate(sizes)))
    if target is not None:
        table["target"], table["target_name"] = target, "0"
    summary = summary_frame(table)
    assert explain_reach(summary[summary.defense == "none"]) == words
    assert ("challenge_n" in summary) == bool(words), "a column only where there is something to say"
    if words:
        assert headline(build_tables(table)).note.str.startswith(words).all()
