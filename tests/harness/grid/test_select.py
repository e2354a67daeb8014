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


def test_labels_with_brackets_and_odd_case() -> None:
    tree = {**GRID, "attacks": [{"name": "badnets", "target": name} for name in (1, "[1]", "[ab]*", "a")],
            "tasks": [{"name": "image_folder", "path": "/data/[1]"}]}  # fmt: skip
    cells = expand(grid_from_mapping(tree))

    def chosen(pattern: str) -> set[str]:
        return {cell.attack.label for cell in select_cells(cells, [pattern], [])}

    for attack in {cell.attack.label for cell in cells}:
        assert chosen(attack) == {attack}, "a label means itself"
    for cell in cells:
        assert [c.key for c in select_cells(cells, [cell.label], [])] == [cell.key]
    assert chosen("badnets(target=[1a])") == {"badnets(target=1)", "badnets(target=a)"}, "nothing is called so"
    assert chosen("*/[0]") == {cell.attack.label for cell in cells}
    with pytest.raises(BadGrid, match=r"--only 'BadNets': fits no cell; did you mean 'badnets'\? a cell"):
        chosen("BadNets")
    with pytest.raises(BadGrid, match=r"--only '': fits no cell"):
        chosen("")
    with pytest.raises(BadGrid, match="no cell is left"):
        select_cells(cells, ["none"], ["none"])
