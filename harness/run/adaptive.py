"""ED50 without a full sweep: bisect the doses until one lies on the slope of its curve or two bracket the crossing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from harness.grid.grid import Cell
from harness.store.records import Record

ON_SLOPE = 0.2  # an ASR this far from floor and ceiling locates the middle together with one more dose


def next_cells(cells: Iterable[Cell], records: Mapping[str, Record], share: float = 0.5) -> list[Cell]:
    """The cells to run next: at most one of every curve (task, attack, defense, seed); empty when all are bracketed.

    records: by key. Every seed is bisected on its own, because seeds are the replicates.
    """

    def curve(cell: Cell) -> tuple[str, str, str, int]:
        return cell.task.label, cell.attack.label, cell.defense.label, cell.seed

    rising = sorted(cells, key=lambda c: (curve(c), c.dose))
    probes = [next_probe(list(rungs), records, share) for _, rungs in groupby(rising, key=curve)]
    return [cell for cell in probes if cell is not None]


def next_probe(rungs: list[Cell], records: Mapping[str, Record], share: float) -> Cell | None:
    """The next cell of one curve, whose cells come by rising dose; None if there is nothing more to learn."""
    from harness.report.dose_response import abbott  # imported late: scipy and sklearn, for adaptive runs alone

    below, above, seen = -1, len(rungs), 0
    while above - below > 1:
        middle = (below + above) // 2
        record = records.get(rungs[middle].key)
        if record is None:
            return rungs[middle]
        if record.status != "done" or "asr" not in record.metrics:
            return None
        chance = record.metrics["asr_floor"].value
        height = abbott(record.metrics["asr"].value, chance) if chance < 1 else 1.0  # of the way from floor to ceiling
        seen += rungs[middle].dose > 0
        if height >= share:
            above = middle
        else:
            below = middle
        bracketed = below >= 0 and above < len(rungs)  # otherwise the crossing could lie anywhere beyond
        if bracketed and seen > 1 and ON_SLOPE <= height <= 1 - ON_SLOPE:
            return None
    return None
