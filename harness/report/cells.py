"""All records of a store as one table, kept as Parquet beside them, so that only new files are opened."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from harness.store import records
from harness.store.folder import Store, write_atomically
from harness.store.records import Record

if TYPE_CHECKING:
    from pathlib import Path


NAME = "cells.parquet"
FORMAT = 2  # of the rows; another one is made anew
FILE = ["file", "size", "changed"]  # of a record: name, bytes, and when the system last saw it change (ns)


def cell_table(store: Store, keys: Iterable[str] | None = None, anew: bool = False) -> pd.DataFrame:
    """The newest readable record of every key, as `cells_frame` has it; of these keys, in their order, if any are said.

    Records are append-only, so a file that was read once need not be opened again unless its size or its time says that
    it was written on since. The copy can be thrown away at any time (`tinydrop verify` does), and is made anew where it
    cannot be read, or with `anew`, which opens every record. Raises NewerSchema as `records.load`.
    """
    folder = store.root / "records"
    there = _there(folder)
    known = _kept(store.root / NAME, there[:0] if anew else there)
    fresh = _read(folder, there[~there.file.isin(known.file)] if len(known) < len(there) else there[:0])
    frame = pd.concat([part for part in (known, fresh) if len(part)]) if len(known) or len(fresh) else known
    if len(fresh):
        _keep(store.root / NAME, frame)
    newest = frame.sort_values(["key", "attempt"]).drop_duplicates("key", keep="last").set_index("key", drop=False)
    if keys is not None:
        newest = newest.loc[[key for key in dict.fromkeys(keys) if key in newest.index]]
    return ordered(newest.drop(columns=[*FILE, "attempt", "format"]).dropna(axis="columns", how="all"))


def _there(folder: Path) -> pd.DataFrame:
    """The files of records: the columns of FILE."""
    found = []
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".json"):
                    stat = entry.stat()
                    found.append((entry.name, stat.st_size, stat.st_ctime_ns))
    return pd.DataFrame(found, columns=FILE)


def _read(folder: Path, files: pd.DataFrame) -> pd.DataFrame:
    sound = []

    def read() -> Iterator[Record]:  # one by one: a hundred thousand at once would be gigabytes
        for file in files.sort_values("file").itertuples(index=False):
            if (record := records.load(folder / file.file)) is not None:
                sound.append((*file, records.attempt_number(file.file)))
                yield record

    frame = cells_frame(read())
    return frame.join(pd.DataFrame(sound, columns=[*FILE, "attempt"]).assign(format=FORMAT))


def _kept(path: Path, there: pd.DataFrame) -> pd.DataFrame:
    """The rows of the copy whose files are as they were when they were read."""
    try:
        frame = pd.read_parquet(path)
        if (frame.format == FORMAT).all():
            return frame.merge(there, on=FILE)
    except (OSError, ValueError, LookupError, AttributeError):  # not there, not Parquet, or not ours
        pass
    return pd.DataFrame(columns=[*FILE, "key", "attempt", "format"])


def _keep(path: Path, frame: pd.DataFrame) -> None:
    data = io.BytesIO()
    frame.to_parquet(data, index=False)
    with suppress(OSError):  # in a folder that others own everything is read anew
        write_atomically(path, data.getvalue())


CELL = [
    "task",
    "modality",
    "attack",
    "defense",
    "stage",
    "dose",
    "seed",
    "status",
    "reason",
    "train_size",
    "clean_metric",
]


COSTS = ["seconds", "fit_seconds", "clean_used", "device", "commit", "key"]


def cells_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record, in the order given: cell, status, every metric (and its n as <metric>_n), costs."""
    rows = []
    for r in records:
        row = {
            "task": r.task.label, "modality": r.modality, "attack": r.attack.label, "defense": r.defense.label,
            "stage": r.stage, "dose": r.dose, "seed": r.seed, "status": r.status, "reason": r.reason,
            "train_size": r.train_size, "clean_metric": r.clean_metric,
        }  # fmt: skip
        for name, metric in r.metrics.items():
            row[name], row[f"{name}_n"] = metric.value, metric.n
        row |= {
            "seconds": r.seconds.get("total"), "fit_seconds": r.fit_seconds, "clean_used": r.clean_used,
            "device": r.provenance.get("device", ""), "commit": r.provenance.get("commit", ""), "key": r.key,
        }  # fmt: skip
        rows.append(row)
    return ordered(pd.DataFrame(rows))


def ordered(cells: pd.DataFrame) -> pd.DataFrame:
    """The same rows; what a cell is, then metrics by name, then costs: whichever cell was read first."""
    first, last = (pd.Index(names).intersection(cells.columns, sort=False) for names in (CELL, COSTS))
    metrics = sorted(set(cells.columns) - {*first, *last})
    return cells[[*first, *metrics, *last]].reset_index(drop=True)


def read_cells(path: Path) -> pd.DataFrame:
    """A published table of cells, so that everything else can be made again without the records."""
    words = ("reason", "device", "commit", "key")  # which may be empty, or look like numbers
    cells = pd.read_csv(path, dtype=dict.fromkeys(words, str)).fillna(dict.fromkeys(words, ""))
    return cells if "clean_metric" in cells else cells.assign(clean_metric="accuracy")  # before it was written down
