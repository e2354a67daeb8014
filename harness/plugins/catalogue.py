"""The catalogue page: every plug-in with its paper and options, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from harness.plugins.registry import PluginEntry


def catalogue(entries: Iterable[PluginEntry]) -> str:
    """A heading for each kind and each stage, a paragraph and a table of options for each plug-in."""
    lines: list[str] = []
    for kind, of_kind in groupby(entries, key=lambda e: e.kind):
        lines += [f"# {kind}", ""]
        for stage, members in groupby(sorted(of_kind, key=lambda e: (e.stage, e.name)), key=lambda e: e.stage):
            lines += [f"## {stage}", ""]
            for e in members:
                lines += [f"### `{e.name}`", "", escaped(e.summary), "", facts(e), ""]
                if e.options:
                    rows = [f"| `{name}` | {escaped(what)} |" for name, what in e.options.items()]
                    lines += ["| option | type and default |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def facts(e: PluginEntry) -> str:
    known = {"modalities": ", ".join(e.modalities), "paper": e.paper, "needs": ", ".join(e.needs), "not for": e.why_not}
    return "; ".join(f"{name}: {escaped(value)}" for name, value in known.items() if value) + "."


def escaped(text: str) -> str:
    """Text that Markdown leaves as it is, in a table cell too."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|" else c for c in text)
