"""A part of a grid: which cells, by name or label."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.errors import BadGrid
from harness.grid.grid import expand
from harness.grid.mapping import grid_from_mapping
from harness.grid.select import select_cells

GRID = {
    "tasks": ["digits", "synthetic_tones"], "attacks": ["badnets", "tone_clip"], "doses": [0, 5],
    "defenses": ["none", "oracle"], "seeds": [0, 1],
}  # fmt: skip


def labels(only: Sequence[str] = (), skip: Sequence[str] = ()) -> list[str]:
    return [cell.label for cell in select_cells(expand(grid_from_mapping(GRID)), only, skip)]


def test_cells_are_chosen_by_name_or_label() -> None:
    everything = labels()
    assert labels(["digits"]) == [label for label in everything if label.startswith("digits/")]
    assert labels(["digits", "tone_clip"]) == everything
    assert labels(["*/5/oracle/*"]) == [label for label in everything if "/5/oracle/" in label]
    assert labels(["badnets"], ["oracle", "*/1"]) == ["digits/badnets/0/none/0", "digits/badnets/5/none/0"]
    with pytest.raises(BadGrid, match=r"--skip 'orakle': fits no cell; a cell of this grid is called digits/badnets/0"):
        labels(skip=["orakle"])
