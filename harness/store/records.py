"""Records, the outcomes of cells as JSON, and plan.json, which lists the cells that a run should have."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from typing_extensions import TypedDict  # pydantic refuses that of typing before Python 3.12

from harness.console import one_line
from harness.errors import DamagedPlan, NewerSchema
from harness.plugins.registry import MOST, PluginEntry
from harness.store.folder import PLAN, Store, write_atomically
from harness.store.plain import as_plain_tree

SCHEMA = 2  # 2: target, target_name, notes
Status = Literal["done", "failed", "not applicable", "timed out"]
KEPT = ("key", "label", "task", "attack", "dose", "defense", "seed")
TEXTS = ("modality", "stage", "started", "clean_metric")  # some of them a plug-in writes
SETTLED = ("done", "not applicable")  # a cell that is neither is run again on request


class PlannedCell(TypedDict):
    """A cell as plan.json has it: its key and label, and the columns that identify it in a table of cells."""

    key: str
    label: str
    task: str
    task_name: str
    attack: str
    attack_name: str
    dose: int
    defense: str
    defense_name: str
    seed: int


Whole = Annotated[int, Field(ge=-MOST, le=MOST)]


class Measured(BaseModel):
    value: FiniteFloat
    n: Whole


class PluginRecord(BaseModel):
    """A plug-in as a cell used it, every option with its value."""

    name: str
    label: str
    options: dict[str, Any]
    label_options: dict[str, Any] = {}  # those that the label shows: the ones that the grid sets
    source: str = ""  # whose code it is; see registry.PluginEntry
    about: PluginEntry | None = None  # for a plug-in that is not the suite's own, because a reader may not have it


class Record(BaseModel):
    """The outcome of one cell, with everything that is needed to believe and repeat it."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA
    key: str
    label: str
    task: PluginRecord
    modality: str
    clean_metric: str = "accuracy"  # the measure that the metric `utility` holds
    attack: PluginRecord
    target: Whole | None = None  # the class that the attack wants
    target_name: str = ""
    dose: Whole
    train_size: Whole | None = None
    defense: PluginRecord
    stage: str
    seed: Whole
    status: Status
    reason: str = ""  # of a cell that is not done, one line
    traceback: str = ""
    metrics: dict[str, Measured] = {}
    seconds: dict[str, FiniteFloat] = {}  # load, poison, defend, grade; total
    fit_seconds: FiniteFloat = 0.0  # training time of all fits of this cell, shared victims included
    fits: list[dict[str, Any]] = []  # key, seconds and whether it was trained now, of every fit
    artefacts: list[str] = []  # keys of every victim, base, surrogate and judge that this cell used
    clean_used: Whole = 0  # clean rows the defense drew from the reserve
    findings: dict[str, str] = {}  # name -> file under the store
    peak_memory_bytes: Whole = 0  # of the process so far
    gpu_peak_bytes: dict[str, Whole] = {}
    dataset_fingerprint: str = ""
    notes: list[str] = []  # what was decided for the user in reading the data, one sentence each
    started: str = ""  # ISO 8601, UTC
    provenance: dict[str, Any] = {}  # version, commit, dirty, libraries, device, threads


def save(store: Store, record: Record) -> Path:
    return store.write_record(record.model_dump())


def storable(record: Record) -> Record:
    """The record as a store can hold it, see `as_plain_tree`; a failed one where its fields are beyond that.

    Never raises, for one cell must not stop a run.
    """
    tree = as_plain_tree(record.model_dump(warnings=False))
    try:
        return Record.model_validate(tree)
    except ValidationError as error:
        reason = f"its record cannot be stored: {one_line(_first_problem(error))}"
        kept = {name: tree[name] for name in KEPT} | {name: one_line(tree[name]) for name in TEXTS}
        return Record.model_validate(kept | {"status": "failed", "reason": reason})


def load_all(store: Store) -> dict[str, Record]:
    """The newest readable record of every key; a damaged file is named in a warning and counts as missing.

    Raises NewerSchema when any record was written by a newer version.
    """
    newest: dict[str, Record] = {}
    for path in sorted((store.root / "records").glob("*.json"), key=_by_attempt):
        record = load(path)
        if record is not None:
            newest[record.key] = record
    return newest


def load(path: Path) -> Record | None:
    """One record, or None with a warning when the file is damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        _warn(path.name, str(error).splitlines()[0])
        return None
    return parse_record(str(path), data)


def parse_record(where: str, data: bytes) -> Record | None:
    """The record in a file's content, or None with a warning when it is damaged. Raises NewerSchema."""
    record, fault = _parse(where, data)
    if fault:
        _warn(Path(where).name, fault)
    return record


def find_fault(where: str, data: bytes) -> str:
    """What is wrong with the content of this record's file, in a few words; "" if nothing is. Raises NewerSchema."""
    return _parse(where, data)[1]


def _parse(where: str, data: bytes) -> tuple[Record | None, str]:
    """The record of a file, or else what is wrong with it."""
    try:
        record = Record.model_validate_json(data)
    except ValidationError as error:
        _check_schema(where, data)
        return None, f"is no record ({_first_problem(error)})"
    if record.schema_version > SCHEMA:
        _check_schema(where, data)
    if record.key != Path(where).name.partition(".")[0]:
        return None, f"is the record of another cell: its key is {record.key[:40]!r}"
    return record, ""


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))[:80]
    return f"{field!r}: {first['msg']}" if field else str(first["msg"])


def is_sound(where: str, data: bytes) -> bool:
    """Whether this is the undamaged content of this record's file. Raises NewerSchema."""
    return not find_fault(where, data)


def _warn(name: str, fault: str) -> None:
    warnings.warn(f"damaged record {name} ({fault}): it counts as missing", stacklevel=4)


def _check_schema(where: str, data: bytes) -> None:
    """Raise NewerSchema if that is why a file cannot be read."""
    try:
        schema = json.loads(data)["schema_version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerSchema(f"{where}: schema {schema}, this tinydrop reads up to {SCHEMA}; upgrade it")


def load_newest(store: Store, key: str) -> Record | None:
    """The newest record of this key; None, with a warning, for a damaged one."""
    n = store.count_attempts(key)
    return load(store.record_path(key, n)) if n else None


def load_settled(store: Store, key: str) -> Record | None:
    """The newest record of this key, if the cell need not be run again."""
    record = load_newest(store, key)
    return record if record and record.status in SETTLED else None


def find_records(cell: str, records: list[Record]) -> list[Record]:
    """The records with this label; or else with a key that begins so; or else with these names and any options."""
    for matches in (
        lambda r: r.label == cell,
        lambda r: r.key.startswith(cell),
        lambda r: f"{r.task.name}/{r.attack.name}/{r.dose}/{r.defense.name}/{r.seed}" == cell,
    ):
        if found := [record for record in records if matches(record)]:
            return found
    return []


def read_gpu_peaks(store: Store, most: int = 1000) -> list[int]:
    """The peak GPU memory of recorded cells, bytes; of the first `most` records by key, which is as good as random."""
    sample = [load(path) for path in sorted((store.root / "records").glob("*.json"))[:most]]
    return [max(record.gpu_peak_bytes.values(), default=0) for record in sample if record]


def write_plan(store: Store, grid: dict[str, Any], cells: Sequence[Mapping[str, object]]) -> None:
    """plan.json: the cells of the newest run of this folder, so that `status` can name what is pending."""
    plan = {"schema_version": SCHEMA, "grid": grid, "cells": list(cells)}
    write_atomically(store.root / PLAN, json.dumps(as_plain_tree(plan)))


def read_plan(store: Store) -> list[PlannedCell]:
    """The planned cells. Raises DamagedPlan, and FileNotFoundError with the way out."""
    return _read_plan_file(store).cells


def read_planned_grid(store: Store) -> dict[str, Any]:
    """The grid of the newest run, as it was passed to `write_plan`. Raises what `read_plan` raises."""
    return _read_plan_file(store).grid


class _PlanFile(BaseModel):
    grid: dict[str, Any]
    cells: list[PlannedCell]


def _read_plan_file(store: Store) -> _PlanFile:
    path = store.root / PLAN
    if not path.is_file():
        raise FileNotFoundError(f"DIR: {store.address!r} holds no run (no plan.json); start one with `tinydrop run`")
    data = path.read_bytes()
    _check_schema(str(path), data)
    try:
        return _PlanFile.model_validate_json(data)
    except ValidationError as error:
        why = _first_problem(error)
    raise DamagedPlan(f"{path}: is no plan ({why}); `tinydrop run` of the grid writes it again")


def attempt_number(name: str) -> int:
    """1 of <key>.json, 2 of <key>.2.json, ..."""
    _, _, number = name.removesuffix(".json").partition(".")
    return int(number) if number.isdigit() else 1


def _by_attempt(path: Path) -> tuple[str, int]:
    return path.name.partition(".")[0], attempt_number(path.name)
