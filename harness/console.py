"""What commands print on, and how tables, counts, times and errors read."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table


_columns = os.environ.get("COLUMNS", "" if sys.stdout.isatty() else "0")
_width = 140 if _columns.strip("0") == "" != _columns else None  # a file or a log has no width of its own
out = Console(width=_width, markup=False)  # names, paths and reasons may hold what rich would take for markup
err = Console(stderr=True, width=_width, markup=False)


def format_count(n: int, noun: str) -> str:
    """A number with its noun: 1 cell, 2 cells."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def new_table(
    title: str,
    names: Sequence[str],
    numbers: Sequence[str],
    notes: Sequence[str] = (),
    *,
    width: int = 0,
    caption: str = "",
) -> Table:
    """Columns from the left: names, then numbers (`width` characters or more), then notes.

    On a narrow screen names are cut and notes are wrapped, numbers never.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=title, title_justify="left", caption=caption or None, caption_justify="left", box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    for name in names:
        table.add_column(name, no_wrap=True)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True, min_width=max(width, len(number)) if width else None)
    for note in notes:
        table.add_column(note)
    return table


def duration(seconds: float) -> str:
    """90 -> 1 min 30 s."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def one_line(error: object, most: int | None = 500) -> str:
    """The text of an error on one line, cut after `most` characters; uncut if None. Never raises."""
    try:
        text = str(error)
    except Exception as broken:
        text = f"(an error whose text cannot be read: {type(broken).__name__})"
    text = text if most is None else text[: 20 * most]  # which may be megabytes of white space and words
    return printable(" ".join(text.split()))[:most]


def printable(text: str) -> str:
    """The text with control characters, and characters that no UTF-8 has, written as escapes: \\x1b, \\udce9."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def expand_home(text: str) -> Path:
    """A path with `~` and `$VARIABLES` filled in, as a shell does it; unlike a shell's, unknown variables stay."""
    return Path(os.path.expandvars(os.path.expanduser(text)))


def quote(value: object, most: int = 80) -> str:
    """A value as an error quotes it: on one line, cut after `most` characters. Never raises."""
    try:
        text = repr(value)
    except Exception:  # a whole number of thousands of digits, or an object of somebody else's
        text = f"(a {type(value).__name__})"
    text = one_line(text, None)
    return text if len(text) <= most else f"{text[: most - 3]}..."
