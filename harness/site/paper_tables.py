"""Tables for papers: few columns, numbers to the right, a heading for each task; in LaTeX (booktabs) and Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

import pandas as pd

from harness.console import format_count
from harness.plugins.catalogue import escape as escape_markdown
from harness.site.headline import Field, Listing

LEFT_OUT = ("note", "better than")  # columns too wide for paper
LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "×": r"$\times$", "–": "--", "Δ": r"$\Delta$", "é": r"\'e",
} | {c: f"\\{c}" for c in "&%$#_{}"}  # fmt: skip
RANKS = (
    "Defenses by mean ASR over complete blocks, 95 % intervals over seeds. A rank is one more than the number of "
    "defenses that are better in a paired t test over seeds, Holm-corrected over all pairs of the task."
)


def caption(table: Listing, head: pd.DataFrame, cells: pd.DataFrame) -> str:
    """The caption of a headline table, with its numbers of seeds and rows. head, cells: of its clean metric."""
    counts = {"seeds": head.get("seeds"), "training rows": head.train_size, "attacked test inputs": cells.get("asr_n")}
    sizes = ", ".join(
        f"{_span(values)} {what}" for what, values in counts.items() if values is not None and values.notna().any()
    )
    return (
        f"{table.caption}. ED50: poisoned samples that bring the ASR half of the way from chance to 1; protection: how "
        f"many times more it takes behind the defense; 95 % intervals over seeds, < and > are bounds. n: "
        f"{format_count(len(head), 'row')}, each of {sizes}."
    )


def _span(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def to_latex(table: Listing, caption: str) -> str:
    """A table that breaks over pages; its rows stand under the name of their task."""
    frame, tasks = _frame(table)
    frame = frame.map(escape_latex)
    for row in _starts(tasks):
        heading = rf"\multicolumn{{{frame.shape[1]}}}{{@{{}}l}}{{\emph{{{escape_latex(tasks[row])}}}}} \\"
        frame.iat[row, 0] = ("\\addlinespace\n" if row else "") + f"{heading}\n{frame.iat[row, 0]}"
    body: str = frame.rename(columns=escape_latex).to_latex(
        index=False, escape=False, longtable=True, column_format="".join("lr"[n] for n in _numbers(table)),
        caption=escape_latex(caption), label=f"tab:{table.id}",
    )  # fmt: skip
    once = body.replace(f"\\caption[]{{{escape_latex(caption)}}} \\\\\n", "")  # not again on every page
    return "% \\usepackage{booktabs,longtable}\n" + once


def to_markdown(table: Listing, caption: str) -> str:
    """A table for each task."""
    frame, tasks = _frame(table)
    align = ["right" if number else "left" for number in _numbers(table)]
    parts = [f"{escape_markdown(caption)}\n"]
    starts = _starts(tasks)
    for start, end in zip(starts, [*starts[1:], len(frame)]):
        part = frame.iloc[start:end].map(escape_markdown)
        parts += [
            f"**{escape_markdown(tasks[start])}**\n",
            part.to_markdown(index=False, disable_numparse=True, colalign=align) + "\n",
        ]
    return "\n".join(parts)


def _paper_columns(table: Listing) -> list[int]:
    return [i for i, c in enumerate(table.columns) if c.name not in ("task", *LEFT_OUT)]


def _numbers(table: Listing) -> list[bool]:
    return [table.columns[i].number for i in _paper_columns(table)]


def _frame(table: Listing) -> tuple[pd.DataFrame, list[str]]:
    """The texts, and the task of every row; the rows of a task together, tasks in their order."""
    columns = _paper_columns(table)
    (task,) = (i for i, c in enumerate(table.columns) if c.name == "task")
    order = list(dict.fromkeys(row[task].text for row in table.rows))
    rows = sorted(table.rows, key=lambda row: order.index(row[task].text))
    spread = {i for i in columns if any(" to " in row[i].small for row in rows)}
    names = [table.columns[i].name + (" [95 % CI]" if i in spread else "") for i in columns]
    frame = pd.DataFrame([[_cell_text(row[i]) for i in columns] for row in rows], columns=names)
    return frame, [row[task].text for row in rows]


def _cell_text(field: Field) -> str:
    text = " ".join(field.text.split())
    low, to, high = field.small.partition(" to ")
    return f"{text} [{low}, {high}]" if to else f"{text} ({low})" if low else text


def _starts(tasks: Iterable[str]) -> list[int]:
    """The first row of every task."""
    return [next(group)[0] for _, group in groupby(enumerate(tasks), key=lambda pair: pair[1])]


def escape_latex(value: str) -> str:
    return "".join(LATEX.get(c, c) for c in value)
