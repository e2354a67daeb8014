"""ED50 without a full sweep: doses are bisected until one lies on the slope of its curve or two hold the crossing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from harness.grid.grid import Cell
from harness.report.dose_response import abbott
from harness.store.records import Record

ON_SLOPE = 0.2  # an ASR at least so far from both ends of its way tells, with one more dose, where the middle is


def wanted(cells: Iterable[Cell], found: Mapping[str, Record], share: float = 0.5) -> list[Cell]:
    """The cells to run next: at most one of every curve (task, attack, defense, seed); empty when all are bracketed.

    found: records by key. Every seed is bisected for itself, because seeds are the replicates.
    """

    def curve(cell: Cell) -> tuple[str, str, str, int]:
        return cell.task.label, cell.attack.label, cell.defense.label, cell.seed

    rising = sorted(cells, key=lambda c: (curve(c), c.dose))
    probes = [next_probe(list(rungs), found, share) for _, rungs in groupby(rising, key=curve)]
    return [cell for cell in probes if cell is not None]


def next_probe(rungs: list[Cell], found: Mapping[str, Record], share: float) -> Cell | None:
    """Of one curve's cells, by rising dose: the one to run next, or None where nothing more can be learnt."""
    below, above, seen = -1, len(rungs), 0
    while above - below > 1:
        middle = (below + above) // 2
        record = found.get(rungs[middle].key)
        if record is None:
            return rungs[middle]
        if record.status != "done" or "asr" not in record.metrics:
            return None
        chance = record.metrics["asr_floor"].value
        way = abbott(record.metrics["asr"].value, chance) if chance < 1 else 1.0
        seen += rungs[middle].dose > 0
        if way >= share:
            above = middle
        else:
            below = middle
        held = below >= 0 and above < len(rungs)  # a crossing that is not held could lie anywhere beyond
        if held and seen > 1 and ON_SLOPE <= way <= 1 - ON_SLOPE:
            return None
    return None
