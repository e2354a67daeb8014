"""The table of cells: one row per record, kept as Parquet beside them, so that only new files are opened."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from harness.console import one_line, printable
from harness.plugins.registry import Spec
from harness.report.datasets import MARK
from harness.store import records
from harness.store.folder import Store, write_atomically
from harness.store.records import PluginRecord, Record

LOWER_IS_BETTER = ("perplexity", "Frechet distance")  # clean metrics
CACHE = "cells.parquet"
CACHE_FORMAT = 4  # of the rows; a file of another format is written again
FILE_COLUMNS = ["file", "size", "changed"]  # of a record: name, bytes, and when the system last saw it change (ns)
PLUGINS = ("task", "attack", "defense")  # columns of labels; <column>_name and <column>_options take them apart
PLUGIN_COLUMNS = [f"{column}{part}" for column in PLUGINS for part in ("", "_name", "_options")]
CELL_COLUMNS = [
    *PLUGIN_COLUMNS, "modality", "stage", "target", "target_name", "dose", "seed", "status", "reason", "notes",
    "train_size", "data",
    "clean_metric",
]  # fmt: skip
COST_COLUMNS = ["seconds", "fit_seconds", "clean_used", "peak_memory_bytes", "device", "commit", "key"]


def cell_table(store: Store, keys: Iterable[str] | None = None, anew: bool = False) -> pd.DataFrame:
    """The newest readable record of every key, as a row of `cells_frame`; with `keys`, only these, in their order.

    Records are append-only, so a file that was read once is opened again only if its size or its time says that it was
    written since. The cache can be deleted at any time (`tinydrop verify` does). It is written again where it cannot be
    read, or with `anew`, which opens every record. Raises NewerSchema as `records.load`.
    """
    folder, cache = store.root / "records", store.root / CACHE
    files = _list_files(folder)
    known = _read_cache(cache, files[:0] if anew else files)
    fresh = _read_records(folder, files[~files.file.isin(known.file)] if len(known) < len(files) else files[:0])
    parts = [part.dropna(axis="columns", how="all") for part in (known, fresh) if len(part)]
    frame = pd.concat(parts) if parts else known
    if len(fresh):
        _write_cache(cache, frame)
    newest = frame.sort_values(["key", "attempt"]).drop_duplicates("key", keep="last").set_index("key", drop=False)
    if keys is not None:
        newest = newest.loc[[key for key in dict.fromkeys(keys) if key in newest.index]]
    return order_columns(newest.drop(columns=[*FILE_COLUMNS, "attempt", "format"]).dropna(axis="columns", how="all"))


def _list_files(folder: Path) -> pd.DataFrame:
    """The files of records, with FILE_COLUMNS."""
    rows = []
    if folder.is_dir():
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".json"):
                    stat = entry.stat()
                    rows.append((entry.name, stat.st_size, stat.st_ctime_ns))
    return pd.DataFrame(rows, columns=FILE_COLUMNS)


def _read_records(folder: Path, files: pd.DataFrame) -> pd.DataFrame:
    readable = []

    def read_each() -> Iterator[Record]:  # one by one: a hundred thousand at once would be gigabytes
        for file in files.sort_values("file").itertuples(index=False):
            if (record := records.load(folder / file.file)) is not None:
                readable.append((*file, records.attempt_number(file.file)))
                yield record

    frame = cells_frame(read_each())
    return frame.join(pd.DataFrame(readable, columns=[*FILE_COLUMNS, "attempt"]).assign(format=CACHE_FORMAT))


def _read_cache(path: Path, files: pd.DataFrame) -> pd.DataFrame:
    """The rows of the cache whose files have not changed since they were read."""
    try:
        frame = pd.read_parquet(path)
        if (frame.format == CACHE_FORMAT).all():
            return frame.merge(files, on=FILE_COLUMNS)
    except (OSError, ValueError, LookupError, AttributeError):  # not there, not Parquet, or not ours
        pass
    return pd.DataFrame(columns=[*FILE_COLUMNS, "key", "attempt", "format"])


def _write_cache(path: Path, frame: pd.DataFrame) -> None:
    data = io.BytesIO()
    frame.to_parquet(data, index=False)
    with suppress(OSError):  # in a folder that others own, every record is read each time
        write_atomically(path, data.getvalue())


def cells_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record, in the order given: cell, status, every metric (and its n as <metric>_n), costs."""
    rows = []
    for r in records:
        row: dict[str, Any] = {
            **_plugin_columns("task", r.task), **_plugin_columns("attack", r.attack),
            **_plugin_columns("defense", r.defense), "modality": r.modality, "stage": r.stage, "dose": r.dose,
            "seed": r.seed, "status": r.status, "reason": one_line(r.reason, None), "train_size": r.train_size,
            "data": r.dataset_fingerprint, "clean_metric": r.clean_metric,
        }  # fmt: skip
        if r.notes:
            row["notes"] = json.dumps(r.notes)
        if r.target is not None:
            row |= {"target": r.target, "target_name": printable(r.target_name)}
        for name, metric in r.metrics.items():
            row |= {part: row.get(part, value) for part, value in ((name, metric.value), (f"{name}_n", metric.n))}
        row |= {
            "seconds": r.seconds.get("total"), "fit_seconds": r.fit_seconds, "clean_used": r.clean_used,
            "peak_memory_bytes": r.peak_memory_bytes, "device": r.provenance.get("device", ""),
            "commit": r.provenance.get("commit", ""), "key": r.key,
        }  # fmt: skip
        rows.append(row)
    return order_columns(pd.DataFrame(rows))


def _plugin_columns(column: str, plugged: PluginRecord) -> dict[str, str]:
    """The label of a plug-in, its name, and as JSON the options that the label shows: those a grid has set."""
    return {
        column: printable(plugged.label),
        f"{column}_name": plugged.name,
        f"{column}_options": json.dumps(plugged.label_options),
    }


def order_columns(cells: pd.DataFrame) -> pd.DataFrame:
    """The same rows; what a cell is, then metrics by name, then costs, whichever cell was read first."""
    first, last = (pd.Index(names).intersection(cells.columns, sort=False) for names in (CELL_COLUMNS, COST_COLUMNS))
    metrics = sorted(set(cells.columns) - {*first, *last})
    return cells[[*first, *metrics, *last]].reset_index(drop=True)


def metric_names(cells: pd.DataFrame) -> list[str]:
    """The metrics of a table of cells: every column that has its number of items beside it, as <metric>_n."""
    return [name for name in cells.columns if f"{name}_n" in cells.columns]


def notes_by_task(cells: pd.DataFrame) -> dict[str, list[str]]:
    """By the label of a task: what was decided for the user in reading its data, each sentence once."""
    notes: dict[str, dict[str, None]] = {}
    for row in cells[["task", "notes"]].drop_duplicates().itertuples() if "notes" in cells else ():
        if isinstance(row.notes, str) and row.notes:
            notes.setdefault(str(row.task), {}).update(dict.fromkeys(_parse_notes(row.notes)))
    return {task: list(said) for task, said in notes.items()}


def _parse_notes(text: str) -> list[str]:
    """The sentences of a cell of the column `notes`; the whole text where a published table was edited by hand."""
    try:
        return [str(note) for note in list(json.loads(text))]
    except (ValueError, TypeError, RecursionError):
        return [text]


def options_by_label(cells: pd.DataFrame, column: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name and options of every plug-in of a column ("task", "attack" or "defense"), by label."""
    plugins = cells.drop_duplicates(column)
    parts = zip(plugins[column], plugins[f"{column}_name"], plugins[f"{column}_options"])
    return {label: (name, json.loads(options)) for label, name, options in parts}


def labels_without(cells: pd.DataFrame, column: str, option: str) -> dict[str, str]:
    """By label, for every plug-in of a column: the label it would have if this option were not set."""
    labels = {}
    for label, (name, options) in options_by_label(cells, column).items():
        others = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in options.items() if k != option)
        mark = MARK.search(label)
        labels[label] = Spec(name, others).label + (mark[0] if mark else "") if option in options else label
    return labels


def read_cells(path: Path) -> pd.DataFrame:
    """A published table of cells, from which every other table can be built without the records."""
    # These may be empty, or look like numbers.
    words = ("target_name", "reason", "notes", "data", "device", "commit", "key")
    cells = pd.read_csv(path, dtype=dict.fromkeys(words, str), keep_default_na=False, na_values=[""])
    return restore_texts(cells.fillna({word: "" for word in words if word in cells}))


# A spreadsheet would run a text that begins so as a formula; an apostrophe before it makes it a text to all of them.
FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def neutralise_texts(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before every text, and every column's name, that a spreadsheet would run."""
    return _change_texts(frame, lambda text: f"'{text}" if FORMULA.match(text) and not _is_number(text) else text)


def restore_texts(frame: pd.DataFrame) -> pd.DataFrame:
    """The table that `neutralise_texts` was given."""
    return _change_texts(frame, lambda text: text[1:] if text[:1] == "'" and FORMULA.match(text) else text)


def _change_texts(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    def change_value(value: Any) -> Any:
        return change(value) if isinstance(value, str) else value

    texts = [name for name in frame if not is_numeric_dtype(frame[name])]
    changed = frame.assign(**{str(name): frame[name].map(change_value) for name in texts})
    return changed.rename(columns=change_value)


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        return isfinite(float(text))
    return False
