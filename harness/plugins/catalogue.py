"""The catalogue page: a table of every kind of plug-in, then each plug-in with its paper and options, as Markdown."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import groupby

from harness.plugins.registry import PluginEntry

KINDS = {  # the title of a kind, and what it is
    "tasks": ("Tasks", "A task is a dataset, a family of models, a metric of clean quality and a judge of success."),
    "attacks": ("Attacks", "An attack poisons an exact number of training rows, and later misuses the trained model."),
    "defenses": ("Defenses", "A defense gets the poisoned training set and returns the model that it would deploy."),
}
LEGEND = """\
Types of options: Count is an integer of 0 or more, Positive an integer above 0, AtLeast0 a number of 0 or more, Above0
a number above 0, Share a number from 0 to 1, ClassRef the number of a class or its name as a text ("10" is the class of
that name, 10 the eleventh). Listed are the options that a plug-in adds to or changes in those of its base class."""
VERDICTS = """\
A verdict says whether a method did here, on real data, what it is for ([conformance](results/conformance/)): "works",
"unproven" (the reason is in its details), or "-" where that has not been run."""


def catalogue(entries: Iterable[PluginEntry]) -> str:
    """The page for these plug-ins, which are sorted by kind."""
    kinds = {kind: sorted(members, key=_order) for kind, members in groupby(entries, key=lambda entry: entry.kind)}
    lines = ["# Catalogue", "", "This page is written by `tinydrop list --markdown`.", ""]
    lines += [f"* [{KINDS[kind][0]}](#{kind}): {_counts(members)}" for kind, members in kinds.items()]
    lines += [f"* [Details of {kind}](#details-of-{kind})" for kind in kinds]
    for kind, members in kinds.items():
        title, meaning = KINDS[kind]
        lines += ["", f"## {title}", "", meaning, "", *_table(members)]
    lines += ["", "## Verdicts", "", VERDICTS, "", "## Options", "", LEGEND]
    for kind, members in kinds.items():
        lines += ["", f"## Details of {kind}"]
        for entry in members:
            lines += ["", f"### {_heading(entry)}", "", escape(entry.summary), "", _facts(entry), *_options(entry)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that Markdown leaves as it is, in a table cell too."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|" else c for c in text)


def _order(entry: PluginEntry) -> tuple[str, str]:
    return entry.stage, entry.name


def _heading(entry: PluginEntry) -> str:
    """Kind and name: an attack and a defense may share a name."""
    return f"{KINDS[entry.kind][0][:-1]} `{entry.name}`"


def _counts(members: list[PluginEntry]) -> str:
    stages = Counter(_words(entry.stage) for entry in members)
    return f"{len(members)} ({', '.join(f'{stage} {count}' for stage, count in stages.items())})"


def _table(members: list[PluginEntry]) -> list[str]:
    """One row per plug-in, by kind; the name leads to the details."""
    columns: dict[str, Callable[[PluginEntry], str]] = {
        "name": lambda entry: f"[{escape(entry.name)}](#{_heading(entry).lower().replace(' ', '-').replace('`', '')})",
        "kind": lambda entry: _words(entry.stage),
        "modality": _modalities,
        "what it does": lambda entry: escape(entry.summary),
        "source": lambda entry: _paper(entry) or "-",
        "verdict": lambda entry: escape(entry.verdict.partition(":")[0]) or "-",
    }
    if members[0].kind == "tasks":
        del columns["kind"], columns["verdict"]  # the same as the modality; only methods have a verdict
    rows = ["| " + " | ".join(cell(entry) for cell in columns.values()) + " |" for entry in members]
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows]


def _facts(entry: PluginEntry) -> str:
    facts = {
        "Modalities": _modalities(entry),
        "Source": _paper(entry),
        "Needs": escape(", ".join(entry.needs)),
        "Why not elsewhere": escape(entry.why_not),
        "From": escape(entry.source),
        "Verdict": escape(entry.verdict),
    }
    return " ".join(f"{name}: {fact}." for name, fact in facts.items() if fact)


def _options(entry: PluginEntry) -> list[str]:
    rows = [
        f"| `{name}` | {escape(kind)} | {escape(default) or 'required'} |"
        for name, (kind, _, default) in ((name, what.partition(" = ")) for name, what in entry.options.items())
    ]
    return ["", "| option | type | default |", "|---|---|---|", *rows] if rows else []


def _modalities(entry: PluginEntry) -> str:
    return "all" if entry.modalities == ("any",) else ", ".join(map(_words, entry.modalities))


def _paper(entry: PluginEntry) -> str:
    return re.sub(r"arXiv (\d{4}\.\d{4,5})", r"[arXiv \1](https://arxiv.org/abs/\1)", escape(entry.paper))


def _words(name: str) -> str:
    return escape(name.replace("_", " "))
