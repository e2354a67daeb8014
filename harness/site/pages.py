"""The tables of the pages, made of the joined data: what a reader sees of a headline, a task, a plug-in, a cell."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from math import nan
from typing import Any

import pandas as pd

from harness.records import Plugged, Record
from harness.registry import Entry
from harness.site.ranks import LEVEL, Ranking
from harness.site.tables import Column, Field, Listing, bounded, coverage, number

TASK, ATTACK, DEFENSE = (Column(name, choose=True) for name in ("task", "attack", "defense"))
P = Column("p", True, "lower ASR than undefended: one-sided paired t test over seeds, Holm-corrected over the defenses")
HEADLINE = (
    TASK, ATTACK, DEFENSE,
    Column("ED50", True, "poisoned samples that bring the ASR half of the way from chance to 1, with 95 % interval"),
    Column("protection", True, "how many times more samples the attack needs, with 95 % interval"),
    P,
    Column("ASR (dose)", True, "attack success rate at the largest dose that all defenses of the attack have"),
    Column("clean", True, "the task's clean metric at that dose"),
    Column("clean cost", True, "clean metric minus that of the undefended victim, same doses and seeds"),
    Column("training", True, "seconds of training, as a multiple of the undefended victim's"),
    Column("clean rows", True, "clean data that the defender needs"),
    Column("note", help="the gate, and why a number is missing"),
)  # fmt: skip
CELLS = ("task", "attack", "dose", "defense", "seed", "status", "asr", "utility", "fit_seconds", "clean_used", "reason")
WORDS = ("task", "attack", "defense", "status", "reason")


def base_name(label: str) -> str:
    """The plug-in of a label, its options aside."""
    return label.partition("(")[0]


class Pages:
    """Where things are on the site. `up` leads from the page that links to its root."""

    def __init__(self, tasks: Iterable[str]) -> None:
        self.slugs: dict[str, str] = {}
        for task in tasks:
            slug = safe(task)
            same = sum(s == slug or s.startswith(f"{slug}-") for s in self.slugs.values())
            self.slugs[task] = f"{slug}-{same}" if same else slug

    def task(self, label: str, up: str = "") -> Field:
        return Field(label, href=f"{up}tasks/{self.slugs[label]}.html")

    def plugin(self, kind: str, label: str, up: str = "") -> Field:
        return Field(label, href=f"{up}{kind}/{safe(base_name(label))}.html")


def safe(label: str) -> str:
    """A label as a file's name."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in label)
    return kept.strip("_.")[:100] or "unnamed"


def headline(head: pd.DataFrame, at: Pages, up: str = "", of_task: bool = False) -> Listing:
    """A line per task, attack and defense; on the page of a task without it, and with the p of the paired test."""
    rows = []
    for r in head.itertuples():
        cost = r.clean_cost if r.defense != "none" else None
        rows.append([
            at.task(r.task, up), at.plugin("attacks", r.attack, up), at.plugin("defenses", r.defense, up),
            bounded(r, "ed50"), bounded(r, "protection"), _p(getattr(r, "p", nan)),
            number(r.asr, f"{{:.2f}} ({r.dose:.0f})"),
            number(r.utility), number(cost, "{:+.3f}"), number(r.training_cost, "{:.1f}×"),
            number(r.clean_used, "{:.0f}"), Field(_note(r), kind="note"),
        ])  # fmt: skip
    shown = [i for i, column in enumerate(HEADLINE) if column is not (TASK if of_task else P)]
    columns, rows = [HEADLINE[i] for i in shown], [[row[i] for i in shown] for row in rows]
    return Listing("headline", "ED50, protection factor and costs", columns, rows)


def _p(p: float) -> Field:
    return Field(_small(p), p if p == p else None)


def _small(p: float) -> str:
    return "–" if p != p else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _note(row: Any) -> str:
    return "; ".join(filter(None, ["" if row.gate else "gate shut: the undefended attack is too weak", row.note]))


def covering(cells: pd.DataFrame, missing: pd.DataFrame, by: list[str], links: dict[str, Any], id_: str) -> Listing:
    """Counts of cells by state."""
    counts = coverage(cells, missing, by)
    columns = [*(Column(name, choose=True) for name in by)]
    columns += [Column(name, True) for name in ("done", "failed", "timed out", "n/a", "missing")]
    rows = []
    for index, row in counts.iterrows():
        labels = index if isinstance(index, tuple) else (index,)
        states = [number(int(n), "{:,}", kind=str(s).replace(" ", "-") if n else "zero") for s, n in row.items()]
        rows.append([*(links[name](label) for name, label in zip(by, labels)), *states])
    return Listing(id_, "Coverage: cells by what became of them", columns, rows)


def ranked(found: Ranking, at: Pages, up: str = "") -> Listing:
    """A task's defenses in order; controls stand without a rank."""
    columns = (
        Column("rank", True, "one more than the number of defenses that are better beyond chance"), Column("defense"),
        Column("mean ASR", True, "over the complete blocks"), Column("95 % interval", True, "over seeds"),
        Column("better than", help="paired t test over seeds, Holm-corrected over all pairs of the task, p < .05"),
    )  # fmt: skip
    won = found.tests[found.tests.corrected < LEVEL].sort_values("worse")
    rows = []
    for r in found.rows.itertuples():
        shown = (
            Field(f"{r.rank}{' (tie)' if r.tied else ''}", float(r.rank)) if r.rank else Field("control", kind="zero")
        )
        between = Field(_between(r), r.low if r.low == r.low else None)
        beaten = [f"{t.worse} (p {_small(t.corrected)})" for t in won[won.better == r.defense].itertuples()]
        rows.append([shown, at.plugin("defenses", r.defense, up), number(r.asr, "{:.3f}"), between,
                     Field(", ".join(beaten) or "–", kind="note")])  # fmt: skip
    return Listing("ranks", "Defenses in order", columns, rows)


def compared(found: Ranking, at: Pages, up: str = "") -> Listing | None:
    """The paired tests behind the ranks; None where one seed allows of none."""
    if found.tests.p.isna().all():
        return None
    columns = (
        Column("defense", choose=True), Column("against", choose=True),
        Column("difference", True, "of their mean ASR over the complete blocks"),
        Column("p", True, "one-sided paired t test: the first has the lower ASR; a pair is a seed"),
        Column("p, corrected", True, "Holm, over all pairs of the task in both directions"),
    )  # fmt: skip
    rows = [
        [at.plugin("defenses", r.better, up), at.plugin("defenses", r.worse, up), number(r.apart, "{:+.3f}"),
         _p(r.p), _p(r.corrected)]
        for r in found.tests.itertuples()
    ]  # fmt: skip
    return Listing("tests", "Paired tests over seeds", columns, rows)


def leaders(found: Ranking) -> list[str]:
    """The defenses of rank 1, each with its mean ASR and interval."""
    first = found.rows[found.rows["rank"] == 1]
    return [f"{r.defense} {r.asr:.2f} ({_between(r)})" for r in first.itertuples()]


def _between(row: Any) -> str:
    return f"{row.low:.2f} to {row.high:.2f}" if row.low == row.low else "one seed"


def plugins(kind: str, cells: pd.DataFrame, at: Pages, described: dict[str, Entry]) -> Listing:
    """The index of a kind: what each plug-in is and how far it was run."""
    column = kind.removesuffix("s")
    rows = []
    for name, part in cells.groupby(cells[column].map(base_name)):
        e = described.get(str(name))
        rows.append([
            at.plugin(kind, str(name)), Field(e.stage if e else ""), Field(e.summary if e else "", kind="note"),
            number(part.task.nunique(), "{:,}"), number(len(part), "{:,}"),
        ])  # fmt: skip
    columns = (
        Column(column),
        Column("kind", choose=True),
        Column("what it does"),
        Column("tasks", True),
        Column("cells", True),
    )
    return Listing(kind, f"{kind.capitalize()} of this leaderboard", columns, rows)


def facts(e: Entry | None) -> list[tuple[str, Field]]:
    """What the registry, or a record, knows of a plug-in."""
    if e is None:
        return [("source", Field("a plug-in that is not installed where this page was made"))]
    source = e.module if e.source in ("", e.module) else f"{e.module} ({e.source})"
    arxiv = re.search(r"arXiv:? *(\d{4}\.\d{4,5})", e.paper)
    modalities = ", ".join(e.modalities)
    known = {
        "kind": Field(e.stage), "modalities": Field(modalities if modalities != e.stage else ""),
        "paper": Field(e.paper, href=f"https://arxiv.org/abs/{arxiv[1]}" if arxiv else ""),
        "needs": Field(", ".join(e.needs)), "why not elsewhere": Field(e.why_not), "source": Field(source),
    }  # fmt: skip
    return [(name, value) for name, value in known.items() if value.text]


def data(cells: pd.DataFrame, paged: set[str]) -> str:
    """cells.js: every cell in as few characters as a table needs; words are given once, then by their place."""
    from jinja2.utils import htmlsafe_json_dumps

    words = {i: list(dict.fromkeys(cells[c])) for i, c in enumerate(CELLS) if c in WORDS}
    place = {i: {word: n for n, word in enumerate(of)} for i, of in words.items()}
    columns = []
    for i, name in enumerate(CELLS):
        values = cells[name] if name in cells else pd.Series([None] * len(cells), dtype=object)
        columns.append([place[i][v] for v in values] if i in place else [_short(v) for v in values])
    keys = [key if key in paged else None for key in cells.key]
    rows = [list(row) for row in zip(*columns, keys)]
    tree = {"cells": {"names": words, "rows": rows}}
    return f"window.tinydrop = {htmlsafe_json_dumps(tree, dumps=_compact)};\n"


def _compact(tree: Any, **_: Any) -> str:
    return json.dumps(tree, separators=(",", ":"), allow_nan=False)


def _short(value: Any) -> float | int | None:
    if value != value or value is None:
        return None
    number_ = float(value)
    return int(number_) if number_.is_integer() else float(f"{number_:.4g}")


def cell_columns() -> list[Column]:
    names = {"fit_seconds": "training s", "clean_used": "clean rows", "utility": "clean", "asr": "ASR"}
    choose = {"task", "attack", "defense", "status", "seed"}
    return [Column(names.get(c, c), c not in WORDS, choose=c in choose) for c in CELLS] + [Column("record")]


def rerun(record: Record) -> str:
    """One line for a shell that runs this cell again; empty where a plug-in was handed over in memory."""
    sources = [plugged.source for plugged in (record.task, record.attack, record.defense)]
    if any(source.startswith("__main__:") or "<locals>" in source for source in sources):
        return ""
    given = [s for s in dict.fromkeys(sources) if s.endswith(".py") or ":" in s]  # the others are installed
    plugins = "".join(f" --plugin {shlex.quote(source)}" for source in given)
    grid = {
        "tasks": [_spec(record.task)], "attacks": [_spec(record.attack)], "doses": [record.dose],
        "defenses": [_spec(record.defense)], "seeds": [record.seed],
    }  # fmt: skip
    return f"echo {shlex.quote(json.dumps(grid))} > cell.yaml && tinydrop run cell.yaml --out runs/cell{plugins}"


def _spec(plugged: Plugged) -> Any:
    """As a grid has it: the options that the label names."""
    words = plugged.label.partition("(")[2]
    options = {k: v for k, v in plugged.options.items() if f"{k}=" in words}
    return {"name": plugged.name, **options} if options else plugged.name


def smallest(head: pd.DataFrame) -> Any:
    """The undefended attack with the smallest ED50, on the most rows, for the first sentence; None if there is none."""
    known = head[(head.defense == "none") & head.gate.astype(bool) & head.ed50.notna() & (head.ed50_censored != ">")]
    order = known.sort_values(["ed50", "train_size", "task", "attack"], ascending=[True, False, True, True])
    return next(order.itertuples(), None)
