"""The look of every printed table, and of what is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def counted(n: int, noun: str) -> str:
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
