"""All records of a store as one table, kept as Parquet beside them, so that only new files are opened."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from harness import records
from harness.records import Record
from harness.report import cells_frame, ordered
from harness.store import Store, write_atomically

NAME = "cells.parquet"
FORMAT = 1  # of the rows; another one is made anew


def table(store: Store, keys: Iterable[str] | None = None) -> pd.DataFrame:
    """The newest readable record of every key, as `cells_frame` has it; of these keys, in their order, if any are said.

    Records are append-only, so a file that was read once need not be opened again. The copy can be thrown away at any
    time (`tinydrop verify` does), and is made anew where it cannot be read. Raises NewerSchema as `records.load`.
    """
    folder = store.root / "records"
    names = sorted(path.name for path in folder.glob("*.json")) if folder.is_dir() else []
    known = _kept(store.root / NAME)
    known = known[known.file.isin(names)]
    fresh = _read(folder, sorted(set(names) - set(known.file)))
    frame = pd.concat([part for part in (known, fresh) if len(part)]) if len(known) or len(fresh) else known
    if len(fresh):
        _keep(store.root / NAME, frame)
    newest = frame.sort_values(["key", "attempt"]).drop_duplicates("key", keep="last").set_index("key", drop=False)
    if keys is not None:
        newest = newest.loc[[key for key in dict.fromkeys(keys) if key in newest.index]]
    return ordered(newest.drop(columns=["file", "attempt", "format"]).dropna(axis="columns", how="all"))


def _read(folder: Path, names: list[str]) -> pd.DataFrame:
    sound = []

    def read() -> Iterator[Record]:  # one by one: a hundred thousand at once would be gigabytes
        for name in names:
            if (record := records.load(folder / name)) is not None:
                sound.append(name)
                yield record

    frame = cells_frame(read())
    return frame.assign(file=sound, attempt=[records.attempt(name) for name in sound], format=FORMAT)


def _kept(path: Path) -> pd.DataFrame:
    nothing = pd.DataFrame({"key": [], "file": [], "attempt": [], "format": []})
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError):  # not there, or not Parquet
        return nothing
    sound = set(nothing) <= set(frame) and (frame.format == FORMAT).all()
    return frame if sound else nothing


def _keep(path: Path, frame: pd.DataFrame) -> None:
    data = io.BytesIO()
    frame.to_parquet(data, index=False)
    write_atomically(path, data.getvalue())
