"""What a leaderboard is made of: runs, published tables, archives; joined so that no cell counts twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from harness.console import one_line
from harness.errors import BadSubmission
from harness.plugins.registry import KINDS, PluginEntry, entries
from harness.report.cells import cell_table, order_columns, read_cells
from harness.report.datasets import join_labels, keep_apart
from harness.site import archive
from harness.site.plausibility import find_table_doubt
from harness.store import ledger, maintenance, records
from harness.store.folder import PLAN, Store

IDENTITY = ["task", "attack", "dose", "defense", "seed"]  # two rows that agree in these are the same cell
PLANNED = [*IDENTITY, "task_name", "attack_name", "defense_name"]  # columns of cells without a record


@dataclass(frozen=True)
class Source:
    """One thing named on the command line."""

    name: str
    cells: pd.DataFrame  # as harness.report.cells.cells_frame
    store: Store | None = None  # where there are records
    head: str = ""  # of its ledger
    missing: pd.DataFrame | None = None  # planned cells without a record: the columns of PLANNED


@dataclass(frozen=True)
class Joined:
    """All sources as one."""

    cells: pd.DataFrame  # one row per cell, `source` says where it is from
    missing: pd.DataFrame  # planned somewhere, recorded nowhere: the columns of PLANNED
    repeated: pd.DataFrame  # ASR of cells that were measured more than once: first, again, source
    sources: tuple[Source, ...]

    def store(self, source: str) -> Store | None:
        return next(s.store for s in self.sources if s.name == source)


@contextmanager
def open_sources(paths: Sequence[Path]) -> Iterator[list[Source]]:
    """The sources at these paths; what archives held is gone when the block ends.

    Raises FileNotFoundError for a path that holds no run, BrokenLedger for a run that is not as it was written,
    BadSubmission for a table that cannot be, otherwise it and NewerSchema as `archive.unpack`.
    """
    with ExitStack() as stack:
        found: list[Source] = []
        for path in paths:
            name = path.name if path.is_absolute() else path.as_posix()
            name += f" ({len(found) + 1})" if any(s.name == name for s in found) else ""
            if path.is_file():
                found.append(_run(name, stack.enter_context(archive.unpack(path))))
            elif (path / "cells.csv").is_file():
                found.append(Source(name, _published(path / "cells.csv")))
            elif (path / "records").is_dir():
                found.append(_run(name, _as_written(Store(path))))
            else:
                raise FileNotFoundError(f"DIR: {str(path)!r} has neither records nor a cells.csv, and is no archive")
        yield found


def _published(path: Path) -> pd.DataFrame:
    """A table of cells, if it is one."""
    try:
        cells = read_cells(path)
        why = find_table_doubt(cells)
    except ValueError as error:  # no CSV, or not UTF-8
        why = f"is no table ({one_line(error, 200)})"
    if why:
        raise BadSubmission(f"{path}: {why}; `tinydrop report` of a run writes such tables")
    return cells


def _as_written(store: Store) -> Store:
    """This store, if what a site shows of it is what its ledger says. One from before there were ledgers has none."""
    if (store.root / ledger.LEDGER_FILE).is_file():
        maintenance.refuse_damaged(store, only=lambda name: not name.startswith("artefacts/"))  # gigabytes, of no page
    return store


def _run(name: str, store: Store) -> Source:
    entries = ledger.read_ledger(store.root)
    head = entries[-1].hash if entries else ""
    if not (store.root / PLAN).is_file():
        return Source(name, cell_table(store, anew=True), store, head)
    plan = records.read_plan(store)
    cells = cell_table(store, (cell["key"] for cell in plan), anew=True)
    known = set(cells.key) if len(cells) else set()
    missing = pd.DataFrame([cell for cell in plan if cell["key"] not in known], columns=PLANNED)
    return Source(name, cells, store, head, missing)


def join_sources(sources: Sequence[Source]) -> Joined:
    """One table. A cell that several sources have is taken from the first that has it done, or else from the first."""
    parts = [s.cells.assign(source=s.name) for s in sources if len(s.cells)]
    if not parts:
        raise FileNotFoundError("DIR: no finished cell yet in any of them; see `tinydrop status`")
    every = pd.concat(parts, ignore_index=True)
    for name in every.columns.intersection(["target_name", "reason", "notes", "data", "device", "commit", "key"]):
        every[name] = every[name].astype(object).where(every[name].notna(), "")
    every = keep_apart(every)
    done_first = (every.status != "done").sort_values(kind="stable").index
    first = every.loc[done_first, IDENTITY].drop_duplicates()
    cells = every.loc[sorted(first.index)].reset_index(drop=True)
    plans = [s.missing for s in sources if s.missing is not None and len(s.missing)]
    missing = pd.concat(plans, ignore_index=True).drop_duplicates() if plans else pd.DataFrame(columns=PLANNED)
    if len(missing):
        recorded = pd.MultiIndex.from_frame(join_labels(cells)[IDENTITY])
        missing = missing[~pd.MultiIndex.from_frame(missing[IDENTITY]).isin(recorded)]
    return Joined(order_columns(cells), missing, _repeated(every, cells), tuple(sources))


def known_plugins(found: Joined) -> dict[str, dict[str, PluginEntry]]:
    """By kind and name: the plug-ins known here, and of others what they said of themselves when they were run."""
    known = {kind: dict(entries(kind)) for kind in KINDS}
    for kind in KINDS:
        column = kind.removesuffix("s")
        unknown = ~found.cells[f"{column}_name"].isin(known[kind])
        for _, row in found.cells[unknown].drop_duplicates([column, "source"]).iterrows():
            store = found.store(row.source)
            record = records.load_newest(store, row.key) if store else None
            plugged = getattr(record, column, None)
            if plugged and plugged.about:
                known[kind].setdefault(plugged.name, plugged.about)
    return known


def _repeated(every: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Cells that were run more than once, not copies of one record."""
    nothing = pd.DataFrame({"asr": [], "asr_again": [], "source": []})
    if "asr" not in every:
        return nothing
    rest = every[~every.key.isin(cells.key) & every.asr.notna()].drop_duplicates("key")
    pairs = rest[[*IDENTITY, "asr", "source"]].merge(cells[[*IDENTITY, "asr"]], on=IDENTITY, suffixes=("_again", ""))
    return pairs.dropna(subset=["asr", "asr_again"]) if len(pairs) else nothing
