"""What the pages show, computed once from the joined sources; the same values fill the site and the single page."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import harness
from harness.report.cells import notes_by_task
from harness.report.summary import GATE
from harness.report.write import build_tables
from harness.site import overview, plugin_docs
from harness.site.headline import count_by_status, coverage_field, headline, matrices
from harness.site.listings import (
    Pages,
    comparison_listing,
    coverage_listing,
    headline_listings,
    list_leaders,
    plugin_facts,
    plugin_index,
    rank_listing,
)
from harness.site.ranks import Ranking, rank_defenses
from harness.site.sources import known_plugins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.site.sources import Joined

TEMPLATES = Path(__file__).with_name("templates")
KINDS = ("attacks", "defenses")


class Board:
    """The tables of one leaderboard, and the values that its templates take. links: where its pages or sections are."""

    def __init__(self, joined: Joined, links: type[Pages] = Pages) -> None:
        self.joined = joined
        self.cells, self.missing = joined.cells, joined.missing
        self.tables = build_tables(self.cells)
        self.headline = headline(self.tables)
        self.links = links(self.cells, self.missing)
        self.modality = dict(zip(self.cells.task, self.cells.modality))
        self.entries = known_plugins(joined)

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        """By task; tasks without a complete block have none."""
        rankings = {}
        planned = pd.concat([self.cells, self.missing.assign(status="missing")])  # a block that lacks a cell: not whole
        for task, cells in planned.groupby("task", sort=False):
            head = self.headline_of("task", str(task))
            ranks = rank_defenses(cells, set(head[head.gate.astype(bool)].attack) if len(head) else set())
            if ranks is not None:
                rankings[str(task)] = ranks
        return rankings

    def headline_of(self, column: str, name: str) -> pd.DataFrame:
        """The rows of the headline whose task, attack or defense has this label."""
        return self.headline[self.headline[column] == name] if len(self.headline) else self.headline

    def overview(self) -> dict[str, Any]:
        """Values of _overview.html, without its figures and exports."""
        kinds = {kind: self.cells[f"{kind.removesuffix('s')}_name"].nunique() for kind in KINDS}
        return {
            "counts": {"cells": len(self.cells), "tasks": len(self.links.slugs), **kinds},
            "covered": coverage_field(count_by_status(self.cells, self.missing, ["task"]).sum()),
            "heads": headline_listings(self.headline, self.links).values(),
            "best": {task: leaders for task, ranks in self.rankings.items() if (leaders := list_leaders(ranks))},
            "rankings": self.rankings,
            "smallest": overview.smallest_ed50(self.headline),
            "counted": overview.count_all(self.headline),
            "answer": overview.answer_table(self.headline, self.modality),
            "example": overview.example_row(self.headline),
        }

    def results(self, task: str, up: str = "") -> dict[str, Any]:
        """Values of _results.html: the task's matrices and ranks."""
        head, ranks = self.headline_of("task", task), self.rankings.get(task)
        return {
            "task": task,
            "slug": self.links.slugs[task],
            "matrices": matrices(task, self.tables, self.headline, self.missing) if len(head) else [],
            "rank": ranks,
            "ranks": rank_listing(ranks, self.links, up) if ranks else None,
        }

    def task(self, task: str, up: str) -> dict[str, Any]:
        """Values of task.html, without its figures."""
        cells, missing = self.cells[self.cells.task == task], self.missing[self.missing.task == task]
        name = next(iter([*cells.task_name, *missing.task_name]))
        entry, ranks = self.entries["tasks"].get(name), self.rankings.get(task)
        columns = {
            "attack": lambda attack: self.links.plugin("attacks", attack, up),
            "defense": lambda defense: self.links.plugin("defenses", defense, up),
        }
        return self.results(task, up) | {
            "entry": entry,
            "facts": [*plugin_facts(entry), *plugin_docs.data_facts(entry)],
            "options": plugin_docs.list_options("tasks", entry),
            "details": plugin_docs.read_paragraphs("tasks", entry),
            "train_size": cells.train_size.max() if "train_size" in cells else None,  # none where every cell failed
            "notes": notes_by_task(cells).get(task, []),
            "covered": coverage_field(count_by_status(cells, missing, ["task"]).iloc[0]),
            "heads": headline_listings(self.headline_of("task", task), self.links, up, ("task",)).values(),
            "tests": comparison_listing(ranks, self.links, up) if ranks else None,
            "coverage": coverage_listing(cells, missing, ["attack", "defense"], columns, "coverage"),
        }

    def plugins(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """By name: values of plugin.html, without its figures."""
        column = kind.removesuffix("s")
        measured, planned = self.cells[f"{column}_name"], self.missing[f"{column}_name"]
        for name in sorted({*measured, *planned}):
            cells, missing = self.cells[measured == name], self.missing[planned == name]
            yield name, self._plugin(kind, name, cells, missing)

    def _plugin(self, kind: str, name: str, cells: pd.DataFrame, missing: pd.DataFrame) -> dict[str, Any]:
        column, up = kind.removesuffix("s"), "../"
        head = self.headline[self.headline[f"{column}_name"] == name] if len(self.headline) else self.headline
        entry, same = self.entries[kind].get(name), (column,) if set(head.get(column, ())) == {name} else ()
        columns = {
            "task": lambda task: self.links.task(task, up),
            column: lambda plugin: self.links.plugin(kind, plugin, up),
        }
        return {
            "kind": kind,
            "plugin": name,
            "entry": entry,
            "facts": plugin_facts(entry),
            "options": plugin_docs.list_options(kind, entry),
            "details": plugin_docs.read_paragraphs(kind, entry),
            "heads": headline_listings(head, self.links, up, same).values(),
            "covered": coverage_field(count_by_status(cells, missing, ["task"]).sum()),
            "pairs": list(dict.fromkeys(zip(head.task, head.attack))) if len(head) else [],
            "coverage": coverage_listing(cells, missing, ["task", column], columns, "coverage"),
        }

    def index(self, kind: str) -> Any:
        """The listing of all attacks or all defenses."""
        return plugin_index(kind, self.cells, self.headline, self.links, self.entries[kind])

    def method(self) -> dict[str, Any]:
        """Values of _method.html."""
        repeated = self.joined.repeated
        apart = (repeated.asr_again - repeated.asr).abs() if len(repeated) else pd.Series(dtype=float)
        sources = self.joined.sources
        return {
            "sources": sources,
            "commits": {s.name: sorted(set(s.cells.commit.fillna("")) - {""}) for s in sources if len(s.cells)},
            "repeated": len(repeated),
            "mean_apart": apart.mean() if len(apart) else 0.0,
            "max_apart": apart.max() if len(apart) else 0.0,
            "gate": GATE,
        }


def environment(title: str, links: Pages) -> Environment:
    """The templates; whatever a page shows is escaped."""
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    jinja.globals.update(site=title, version=harness.__version__, links=links)
    return jinja
