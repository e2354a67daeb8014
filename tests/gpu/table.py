"""The figures of a campaign as Markdown: a table for each stage, one row for each thing that was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpu.stage import read_lines


def write_table(figures: Path) -> str:
    """Markdown of all figures; the newest value where one was measured twice. Written beside them as figures.md."""
    lines = read_lines(figures)
    parts = [head(line) for line in lines if line.get("event") == "machine"][-1:]
    for stage in dict.fromkeys(line["stage"] for line in lines):
        rows = [line for line in lines if line["stage"] == stage]
        ends = [line for line in rows if line.get("event") in ("done", "failed", "out of time")]
        said = f", {ends[-1]['event']} after {ends[-1]['seconds']:.0f} s" if ends else ""
        reason = f"\n\n{ends[-1]['reason']}" if ends and ends[-1].get("reason") else ""
        if stage != "campaign":
            parts.append(f"## {stage}{said}{reason}\n\n{tabulate_figures(rows)}")
    text = "\n\n".join(parts) + "\n"
    figures.with_suffix(".md").write_text(text)
    return text


def head(line: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in line["machine"].items() if value)
    shrunk = "\n\n**A dry run at the smallest sizes: these numbers say nothing about speed.**" if line["shrink"] else ""
    return f"# GPU campaign: {facts}{shrunk}"


def tabulate_figures(rows: list[dict[str, Any]]) -> str:
    """A table for each kind of thing: one row for each thing measured, one column for each figure of it."""
    kinds: dict[tuple[str, ...], dict[tuple[str, ...], dict[str, str]]] = {}
    for row in (row for row in rows if "name" in row):
        things = kinds.setdefault(tuple(row["of"]), {})
        figures = things.setdefault(tuple(str(value) for value in row["of"].values()), {})
        figures[f"{row['name']} [{row['unit']}]"] = format_value(row["value"])
    return "\n\n".join(tabulate(names, things) for names, things in kinds.items()) or "no figures"


def tabulate(names: tuple[str, ...], things: dict[tuple[str, ...], dict[str, str]]) -> str:
    columns = list(dict.fromkeys(column for figures in things.values() for column in figures))
    lines = [[*names, *columns], ["---"] * (len(names) + len(columns))]
    lines += [[*thing, *(figures.get(column, "") for column in columns)] for thing, figures in things.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def format_value(value: float) -> str:
    """Three or four digits, large numbers with commas."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
