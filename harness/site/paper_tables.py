"""Tables for papers: few columns, numbers to the right, a heading for each task; LaTeX (booktabs), Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import pandas as pd

from harness.console import counted
from harness.plugins.catalogue import escape as marked
from harness.site.headline import Field, Listing

LEFT_OUT = ("note", "better than")
PLAIN = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "×": r"$\times$", "–": "--", "Δ": r"$\Delta$", "é": r"\'e",
} | {c: f"\\{c}" for c in "&%$#_{}"}  # fmt: skip


RANKS = (
    "Defenses by mean ASR over complete blocks, 95 % intervals over seeds. A rank is one more than the number of "
    "defenses that are better in a paired t test over seeds, Holm-corrected over all pairs of the task."
)


def caption(table: Listing, head: pd.DataFrame, cells: pd.DataFrame) -> str:
    """What is in a table of the headline, of how many seeds and rows. head, cells: of its clean metric."""
    n = {"seeds": head.get("seeds"), "training rows": head.train_size, "attacked test inputs": cells.get("asr_n")}
    sizes = ", ".join(
        f"{_span(values)} {what}" for what, values in n.items() if values is not None and values.notna().any()
    )
    return (
        f"{table.caption}. ED50: poisoned samples that bring the ASR half of the way from chance to 1; protection: how "
        f"many times more a defense makes of it; 95 % intervals over seeds, < and > are bounds. n: "
        f"{counted(len(head), 'row')}, each of {sizes}."
    )


def _span(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def latex(table: Listing, caption: str) -> str:
    """A table that breaks over pages; its rows stand under the name of their task."""
    frame, tasks = _frame(table)
    frame = frame.map(escaped)
    for at in _starts(tasks):
        heading = rf"\multicolumn{{{frame.shape[1]}}}{{@{{}}l}}{{\emph{{{escaped(tasks[at])}}}}} \\"
        frame.iat[at, 0] = ("\\addlinespace\n" if at else "") + f"{heading}\n{frame.iat[at, 0]}"
    body: str = frame.rename(columns=escaped).to_latex(
        index=False, escape=False, longtable=True, column_format="".join("lr"[n] for n in _numbers(table)),
        caption=escaped(caption), label=f"tab:{table.id}",
    )  # fmt: skip
    once = body.replace(f"\\caption[]{{{escaped(caption)}}} \\\\\n", "")  # not again on every page
    return "% \\usepackage{booktabs,longtable}\n" + once


def markdown(table: Listing, caption: str) -> str:
    """A table for each task."""
    frame, tasks = _frame(table)
    align = ["right" if number else "left" for number in _numbers(table)]
    parts = [f"{marked(caption)}\n"]
    starts = _starts(tasks)
    for at, end in zip(starts, [*starts[1:], len(frame)]):
        part = frame.iloc[at:end].map(marked)
        parts += [
            f"**{marked(tasks[at])}**\n",
            part.to_markdown(index=False, disable_numparse=True, colalign=align) + "\n",
        ]
    return "\n".join(parts)


def _kept(table: Listing) -> list[int]:
    return [i for i, c in enumerate(table.columns) if c.name not in ("task", *LEFT_OUT)]


def _numbers(table: Listing) -> list[bool]:
    return [table.columns[i].number for i in _kept(table)]


def _frame(table: Listing) -> tuple[pd.DataFrame, list[str]]:
    """Texts by column, and the task of every row; tasks together, in their order."""
    kept = _kept(table)
    (task,) = (i for i, c in enumerate(table.columns) if c.name == "task")
    order = list(dict.fromkeys(row[task].text for row in table.rows))
    rows = sorted(table.rows, key=lambda row: order.index(row[task].text))
    spread = {i for i in kept if any(" to " in row[i].small for row in rows)}
    names = [table.columns[i].name + (" [95 % CI]" if i in spread else "") for i in kept]
    return pd.DataFrame([[_shown(row[i]) for i in kept] for row in rows], columns=names), [r[task].text for r in rows]


def _shown(field: Field) -> str:
    text = " ".join(field.text.split())
    low, to, high = field.small.partition(" to ")
    return f"{text} [{low}, {high}]" if to else f"{text} ({low})" if low else text


def _starts(tasks: Iterable[str]) -> list[int]:
    """The first row of every task."""
    return [next(group)[0] for _, group in groupby(enumerate(tasks), key=lambda pair: pair[1])]


def escaped(value: str) -> str:
    """For LaTeX."""
    return "".join(PLAIN.get(c, c) for c in value)
