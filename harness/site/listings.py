"""The tables of the pages, made of the joined data: what a reader sees of a headline, a task, a plug-in, a cell."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from math import nan
from typing import Any

import pandas as pd
from jinja2.utils import htmlsafe_json_dumps

from harness.plugins.registry import PluginEntry
from harness.report.cells import LOWER_IS_BETTER
from harness.site.headline import (
    COUNTS,
    Column,
    Field,
    Listing,
    count_by_status,
    estimate_field,
    number_field,
    number_format,
)
from harness.site.overview import defended_rows, range_field, working_rows
from harness.site.ranks import LEVEL, Ranking
from harness.store.records import PluginRecord, Record

TASK, ATTACK, DEFENSE = (Column(name, choose=True) for name in ("task", "attack", "defense"))
P = Column("p", True, "two-sided, of a protection factor of 1, as its interval; Holm-corrected over the defenses")
HEADLINE = (
    TASK, ATTACK, DEFENSE,
    Column("ED50", True, "poisoned samples that bring the ASR half of the way from chance to 1, with 95 % interval; "
                         "in order, bounds stand apart: <= before the numbers, > after them"),
    Column("protection", True, "how many times more samples the attack needs, with 95 % interval; bounds as of ED50"),
    P,
    Column("stealth window", True, "poisons until half of them are found, or the model is called, over poisons until "
                                   "the backdoor works undefended; below 1 it is found first"),
    Column("ASR", True, "attack success rate at the largest dose that all defenses of the attack have"),
    Column("{}", True, "the task's clean metric at that dose"),
    Column("Δ {}", True, "clean metric minus that of the undefended victim, same seeds, at dose 0 where that was run"),
    Column("training", True, "seconds of training, as a multiple of the undefended victim's"),
    Column("clean rows", True, "clean data that the defender needs"),
    Column("note", help="the gate, and why a number is missing"),
)  # fmt: skip
CELLS = ("task", "attack", "dose", "defense", "seed", "status", "asr", "utility", "clean_metric",
         "fit_seconds", "clean_used", "reason")  # fmt: skip
NOTHING = ("", "–", "0")  # a column of nothing else is left out
WORDS = ("task", "attack", "defense", "status", "clean_metric", "reason")


class Pages:
    """Where things are on the site. `up` leads from the page that links to its root."""

    def __init__(self, cells: pd.DataFrame, missing: pd.DataFrame) -> None:
        columns = [(frame[c], frame[f"{c}_name"]) for frame in (cells, missing) for c in ("attack", "defense")]
        self.names = {label: name for labels, names in columns for label, name in zip(labels, names)}
        self.names |= {name: name for name in self.names.values()}
        self.slugs: dict[str, str] = {}
        for task in dict.fromkeys([*cells.task, *missing.task]):
            slug = safe_name(task)
            same = sum(s == slug or s.startswith(f"{slug}-") for s in self.slugs.values())
            self.slugs[task] = f"{slug}-{same}" if same else slug

    def page(self, name: str, up: str = "") -> str:
        return f"{up}{name}.html"

    def task(self, label: str, up: str = "") -> Field:
        return Field(label, href=f"{up}tasks/{self.slugs[label]}.html")

    def plugin(self, kind: str, label: str, up: str = "") -> Field:
        return Field(label, href=f"{up}{kind}/{safe_name(self.names[label])}.html")


def safe_name(label: str) -> str:
    """A label as a file's name."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in label)
    return kept.strip("_.")[:100] or "unnamed"


def headline_listings(head: pd.DataFrame, at: Pages, up: str = "", without: tuple[str, ...] = ()) -> dict[str, Listing]:
    """By clean metric, the one with most lines first: a line per task, attack and defense.

    without: columns that say the same in every line.
    """
    metrics = head.clean_metric.value_counts().index if len(head) else ()
    return {
        str(metric): _headline(
            head[head.clean_metric == metric], str(metric), "headline" + f"-{n}" * (n > 1), at, up, without
        )
        for n, metric in enumerate(metrics, 1)
    }


def _headline(head: pd.DataFrame, metric: str, id_: str, at: Pages, up: str, without: tuple[str, ...]) -> Listing:
    rows = []
    for r in head.itertuples():
        cost = r.clean_cost if r.defense != "none" else None
        rows.append([
            at.task(r.task, up), at.plugin("attacks", r.attack, up), at.plugin("defenses", r.defense, up),
            estimate_field(r, "ed50"), estimate_field(r, "protection"), _p(getattr(r, "p", nan)),
            estimate_field(r, "window"),
            number_field(r.asr, "{:.2f}", small=f"dose {r.dose:,.0f}"),
            number_field(r.utility, number_format(metric)), number_field(cost, number_format(metric, "+")),
            number_field(r.training_cost, "{:.1f}×"), number_field(r.clean_used, "{:,.0f}"), Field(r.note, kind="note"),
        ])  # fmt: skip
    columns = [replace(c, name=c.name.format(metric)) for c in HEADLINE]
    kept = [
        i for i, c in enumerate(columns) if c.name not in without and any(row[i].text not in NOTHING for row in rows)
    ]
    caption = f"ED50, protection, costs; {metric}" + (", lower is better" if metric in LOWER_IS_BETTER else "")
    return Listing(id_, caption, [columns[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _p(p: float) -> Field:
    return Field(_small(p), sort=p if p == p else None)


def _small(p: float) -> str:
    return "–" if p != p else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def coverage_listing(
    cells: pd.DataFrame, missing: pd.DataFrame, by: list[str], links: dict[str, Any], id_: str
) -> Listing:
    """Counts of cells by state."""
    counts = count_by_status(cells, missing, by)
    columns = [*(Column(name, choose=True) for name in by)]
    columns += [Column(name, True) for name in COUNTS.values()]
    rows = []
    for index, row in counts.iterrows():
        labels = index if isinstance(index, tuple) else (index,)
        rows.append([*(links[name](label) for name, label in zip(by, labels)), *_states(row)])
    return Listing(id_, "Coverage: cells by what became of them", columns, rows)


def _states(counts: Any) -> list[Field]:
    return [number_field(int(n), "{:,}", kind=str(s).replace(" ", "-") if n else "zero") for s, n in counts.items()]


def rank_listing(found: Ranking, at: Pages, up: str = "") -> Listing:
    """A task's defenses in order; controls stand without a rank."""
    columns = (
        Column("rank", True, "one more than the number of defenses that are better beyond chance"), Column("defense"),
        Column("mean ASR", True, "over the same blocks and seeds for all, with 95 % interval over seeds"),
        Column("clean cost", True, "change of the clean metric; beyond the budget there is no rank"),
        Column("not run", True, "cells that are missing and count as undefended"),
        Column("better than", help="paired t test over seeds, Holm-corrected over all pairs of the task, p < .05"),
    )  # fmt: skip
    won = found.tests[found.tests.corrected < LEVEL].sort_values("worse")
    rows = []
    for r in found.rows.itertuples():
        rank = f"{r.rank}{' (tie)' if r.tied else ''}"
        beaten = [f"{t.worse} (p {_small(t.corrected)})" for t in won[won.better == r.defense].itertuples()]
        rows.append([
            Field(rank, sort=float(r.rank)) if r.rank else Field(r.why, kind="zero"),
            at.plugin("defenses", r.defense, up), number_field(r.asr, "{:.3f}", small=_between(r)),
            number_field(r.cost, "{:+.3f}"), number_field(r.missing, "{:,}"),
            Field(", ".join(beaten) or "–", kind="note"),
        ])  # fmt: skip
    return Listing("ranks", "Defenses in order", columns, rows)


def ranks(rankings: dict[str, Ranking], at: Pages) -> Listing:
    """Those of every task."""
    parts = {task: rank_listing(found, at) for task, found in rankings.items()}
    columns = [TASK, *next(iter(parts.values())).columns]
    rows = [[at.task(task), *row] for task, part in parts.items() for row in part.rows]
    return Listing("ranks", "Defenses in order", columns, rows)


def comparison_listing(found: Ranking, at: Pages, up: str = "") -> Listing | None:
    """The paired tests behind the ranks; None where one seed allows of none."""
    if found.tests.p.isna().all():
        return None
    columns = (
        Column("defense", choose=True), Column("against", choose=True),
        Column("difference", True, "of their mean ASR over the blocks"),
        Column("p", True, "one-sided paired t test: the first has the lower ASR; a pair is a seed"),
        Column("p, corrected", True, "Holm, over all pairs of the task in both directions"),
    )  # fmt: skip
    rows = [
        [at.plugin("defenses", r.better, up), at.plugin("defenses", r.worse, up), number_field(r.apart, "{:+.3f}"),
         _p(r.p), _p(r.corrected)]
        for r in found.tests.itertuples()
    ]  # fmt: skip
    return Listing("tests", "Paired tests over seeds", columns, rows)


def list_leaders(found: Ranking) -> list[str]:
    """The defenses of rank 1, each with its mean ASR and interval."""
    first = found.rows[found.rows["rank"] == 1]
    return [f"{r.defense} {r.asr:.2f} ({_between(r)})" for r in first.itertuples()]


def _between(row: Any) -> str:
    return f"{row.low:.2f} to {row.high:.2f}" if row.low == row.low else "one seed"


def plugin_index(
    kind: str, cells: pd.DataFrame, head: pd.DataFrame, at: Pages, described: dict[str, PluginEntry]
) -> Listing:
    """The index of attacks or defenses: what each is, how far it was run, and what came of it."""
    column = kind.removesuffix("s")
    plain, defended = working_rows(head), defended_rows(head)
    result, of, name = ("ED50", plain, "ed50") if kind == "attacks" else ("protection", defended, "protection")
    rows = []
    for label, part in cells.groupby(f"{column}_name"):
        e = described.get(str(label))
        rows.append([
            at.plugin(kind, str(label)), Field(e.stage if e else ""), Field(e.summary if e else "", kind="note"),
            range_field(of[of[f"{column}_name"] == label], name) if len(of) else Field("–"),
            number_field(part.task.nunique(), "{:,}"), number_field(len(part), "{:,}"),
        ])  # fmt: skip
    columns = (
        Column(column), Column("kind", choose=True), Column("what it does"),
        Column(result, True, "the least and the most, over tasks and attacks that work"),
        Column("tasks", True), Column("cells", True),
    )  # fmt: skip
    return Listing(kind, f"{kind.capitalize()} of this leaderboard", columns, rows)


def task_index(cells: pd.DataFrame, missing: pd.DataFrame, head: pd.DataFrame, at: Pages) -> Listing:
    """The index of tasks, with what became of their cells."""
    counts = count_by_status(cells, missing, ["task"])
    plain, parts = working_rows(head), dict(list(cells.groupby("task", sort=False)))
    columns = (
        TASK, Column("modality", choose=True), Column("clean metric", choose=True), Column("training rows", True),
        Column("attacks", True), Column("defenses", True),
        Column("ED50", True, "the least and the most, of the undefended attacks that work"),
        *(Column(name, True) for name in COUNTS.values()),
    )  # fmt: skip
    rows = []
    for task, row in counts.iterrows():
        part = parts.get(task, cells[:0])
        size = part.train_size.max() if "train_size" in part else None
        rows.append([
            at.task(str(task)), *(Field(", ".join(part[c].unique())) for c in ("modality", "clean_metric")),
            number_field(size, "{:,.0f}"), *(number_field(part[c].nunique(), "{:,}") for c in ("attack", "defense")),
            range_field(plain[plain.task == task], "ed50") if len(plain) else Field("–"), *_states(row),
        ])  # fmt: skip
    return Listing("tasks", "Tasks of this leaderboard", columns, rows)


def plugin_facts(e: PluginEntry | None) -> list[tuple[str, Field]]:
    """What the registry, or a record, knows of a plug-in."""
    if e is None:
        return [("source", Field("a plug-in that is not installed where this page was made"))]
    module = e.module if e.source in ("", e.module) else f"{e.module} ({e.source})"
    arxiv, doi = re.search(r"arXiv:? *(\d{4}\.\d{4,5})", e.paper), re.search(r"doi:? *(10\.\S+)", e.paper)
    paper = f"https://arxiv.org/abs/{arxiv[1]}" if arxiv else f"https://doi.org/{doi[1]}" if doi else ""
    modalities = ", ".join(e.modalities)
    kind, source = ("modality", "citation") if e.kind == "tasks" else ("kind", "paper")
    known = {
        kind: Field(e.stage), "modalities": Field(modalities if modalities != e.stage else ""),
        source: Field(e.paper, href=paper),
        "needs": Field(", ".join(e.needs)), "why not elsewhere": Field(e.why_not), "source": Field(module),
        "verdict": Field(e.verdict),
    }  # fmt: skip
    return [(name, value) for name, value in known.items() if value.text]


def cells_script(cells: pd.DataFrame, paged: set[str], at: Pages) -> str:
    """cells.js: every cell in as few characters as a table needs; words are given once, then by their place."""
    words = {i: list(dict.fromkeys(cells[c])) for i, c in enumerate(CELLS) if c in WORDS}
    place = {i: {word: n for n, word in enumerate(of)} for i, of in words.items()}
    columns = []
    for i, name in enumerate(CELLS):
        values = cells[name] if name in cells else pd.Series([None] * len(cells), dtype=object)
        columns.append([place[i][v] for v in values] if i in place else [_short(v) for v in values])
    keys = [key if key in paged else None for key in cells.key]
    rows = [list(row) for row in zip(*columns, keys)]
    linked: dict[str, Callable[[str], Field]] = {
        "task": at.task, "attack": lambda a: at.plugin("attacks", a), "defense": lambda d: at.plugin("defenses", d),
    }  # fmt: skip
    hrefs = {i: [linked[CELLS[i]](str(word)).href for word in of] for i, of in words.items() if CELLS[i] in linked}
    tree = {"cells": {"names": words, "hrefs": hrefs, "rows": rows}}
    return f"window.tinydrop = {htmlsafe_json_dumps(tree, dumps=_compact)};\n"


def _compact(tree: Any, **_: Any) -> str:
    return json.dumps(tree, separators=(",", ":"), allow_nan=False)


def _short(value: Any) -> float | int | None:
    if value != value or value is None:
        return None
    number_ = float(value)
    return int(number_) if number_.is_integer() else float(f"{number_:.4g}")


def cell_columns() -> list[Column]:
    names = {"fit_seconds": "training, s", "clean_used": "clean rows", "utility": "clean", "clean_metric": "metric",
             "asr": "ASR"}  # fmt: skip
    choose = {"task", "attack", "defense", "status", "seed", "clean_metric"}
    within = {"utility": CELLS.index("clean_metric")}
    columns = [Column(names.get(c, c), c not in WORDS, choose=c in choose, within=within.get(c)) for c in CELLS]
    return [*columns, Column("record")]


def rerun_command(record: Record) -> str:
    """One line for a shell that runs this cell again; empty where a plug-in was handed over in memory."""
    sources = [plugged.source for plugged in (record.task, record.attack, record.defense)]
    if any(source.startswith("__main__:") or "<locals>" in source for source in sources):
        return ""
    given = [s for s in dict.fromkeys(sources) if s.endswith(".py") or ":" in s]  # the others are installed
    plugins = "".join(f" --plugin {shlex.quote(source)}" for source in given)
    grid = {
        "tasks": [_grid_entry(record.task)], "attacks": [_grid_entry(record.attack)], "doses": [record.dose],
        "defenses": [_grid_entry(record.defense)], "seeds": [record.seed],
    }  # fmt: skip
    return f"echo {shlex.quote(json.dumps(grid))} > cell.yaml && tinydrop run cell.yaml --out runs/cell{plugins}"


def _grid_entry(plugged: PluginRecord) -> Any:
    """The plug-in as a grid names it."""
    return {"name": plugged.name, **plugged.label_options} if plugged.label_options else plugged.name
