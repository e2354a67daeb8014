"""From evidence to the fields of a certificate. The same evidence gives the same fields, on every machine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import pandas as pd

from harness.certify.evidence import Evidence
from harness.certify.levels import judge
from harness.certify.schema import (
    SCHEMA,
    Certificate,
    Data,
    LedgerHead,
    Measured,
    Model,
    Subject,
    Suite,
    TaskFacts,
    Training,
    Writer,
)
from harness.certify.tested import list_tests, list_untested
from harness.plugins.registry import entries, load_class
from harness.report.cells import cells_frame
from harness.report.datasets import keep_apart
from harness.report.doses import dose_frame
from harness.report.summary import summary_frame
from harness.store.records import Record

UNKNOWN = "not known"
DIGITS = 6


def describe_suite(evidence: Sequence[Evidence]) -> Suite:
    """What this tinydrop has: facts of the tasks of the runs, and every attack and defense that is no control."""
    tasks = {record.task.name for one in evidence for record in one.records}
    known = entries("tasks")
    facts: dict[str, TaskFacts] = {}
    for name in sorted(tasks & set(known)):
        cls: Any = load_class("tasks", name)
        facts[name] = TaskFacts(dataset=cls.dataset, revision=cls.revision, licence=cls.licence)
    both = [
        {name: list(e.modalities) for name, e in entries(kind).items() if not e.source and e.stage != "control"}
        for kind in ("attacks", "defenses")
    ]
    return Suite(tasks=facts, attacks=both[0], defenses=both[1])


def collect(
    evidence: Sequence[Evidence], date: str, written_by: Writer, suite: Suite, subjects: list[Subject]
) -> Certificate:
    """The certificate, without the hashes of its files.

    Raises BadEvidence, BrokenLedger, DamagedPlan, NewerSchema for evidence that does not hold.
    """
    training = [row for one in evidence for row in _training(one)]
    measured = [row for one in evidence for row in _measured(one)]
    return Certificate(
        schema_version=SCHEMA, date=date, written_by=written_by, suite=suite, subjects=subjects,
        data=[row for one in evidence for row in _data(one, suite)],
        training=training,
        models=[_model(one, evidence) for one in evidence if one.audit],
        tests=[test for one in evidence for test in list_tests(one)],
        measured=measured,
        levels=judge(evidence, training, measured),
        untested=[line for one in evidence for line in list_untested(one, suite)],
        ledgers=[
            LedgerHead(of=one.folder, head=one.entries[-1].hash, entries=len(one.entries))
            for one in evidence if one.kind == "run"
        ],
        files={},
    )  # fmt: skip


def _data(one: Evidence, suite: Suite) -> list[Data]:
    if one.vet:
        data = one.vet.data
        return [
            Data(of=one.folder, name=data.source, source=data.source, revision="", licence=UNKNOWN,
                 fingerprint=data.content, rows=data.rows, delivered_by=list(data.sources),
                 accused=list(one.vet.accused), quarantined=len(one.vet.quarantine), notes=[])
        ]  # fmt: skip
    if one.audit:
        clean = one.audit.data
        return [
            Data(of=one.folder, name=f"clean rows of the audit: {clean.source}", source=clean.source, revision="",
                 licence=UNKNOWN, fingerprint="", rows=clean.rows, delivered_by=[], accused=[], quarantined=None,
                 notes=clean.notes)
        ]  # fmt: skip
    versions = {(r.task.label, r.dataset_fingerprint): r for r in one.records if r.dataset_fingerprint}
    return [_recorded_data(one, record, suite) for record in versions.values()]


def _recorded_data(one: Evidence, record: Record, suite: Suite) -> Data:
    facts = suite.tasks.get(record.task.name, TaskFacts(dataset="", revision="", licence=""))
    path = str(record.task.options.get("path") or "").rstrip("/").rpartition("/")[2]  # of a user's own files
    return Data(
        of=one.folder, name=record.task.label, source=facts.dataset or path or UNKNOWN, revision=facts.revision,
        licence=facts.licence or UNKNOWN, fingerprint=record.dataset_fingerprint, rows=record.train_size,
        delivered_by=[], accused=[], quarantined=None, notes=record.notes,
    )  # fmt: skip


def _training(one: Evidence) -> list[Training]:
    found = []
    for task in dict.fromkeys(cell["task"] for cell in one.plan):
        cells = [cell for cell in one.plan if cell["task"] == task]
        of_task = [record for record in one.records if record.task.label == task]
        libraries: dict[str, set[str]] = {}
        for record in of_task:
            known = record.provenance.get("libraries") or {}
            versions = {**known, "python": record.provenance.get("python", "")}
            for name, version in {**versions, "tinydrop": record.provenance.get("tinydrop", "")}.items():
                if version:
                    libraries.setdefault(str(name), set()).add(str(version))
        statuses = Counter[str](record.status for record in of_task)
        statuses["pending"] = len(cells) - len(of_task)
        found.append(
            Training(
                of=one.folder, task=task, recipe=of_task[0].task.options if of_task else {},
                seeds=sorted({cell["seed"] for cell in cells}), code=_ordered(map(_commit, of_task)),
                libraries={name: sorted(libraries[name]) for name in sorted(libraries)},
                devices=_ordered(str(record.provenance.get("device", "")) for record in of_task),
                cells={status: statuses[status] for status in sorted(statuses)},
            )
        )  # fmt: skip
    return found


def _commit(record: Record) -> str:
    about = record.provenance
    return f"{about.get('commit') or UNKNOWN}{'+' * bool(about.get('dirty'))}"


def _ordered(texts: Iterable[str]) -> list[str]:
    return sorted(set(texts) - {""})


def _model(one: Evidence, evidence: Sequence[Evidence]) -> Model:
    assert one.audit is not None
    model, data = one.audit.model, one.audit.data
    cells = [
        f"{run.name}/{record.label}" for run in evidence if (name := run.artefacts.get(model.sha256))
        for record in run.records
        if record.defense.name == "none" and record.fits and str(record.fits[0].get("key")) == PurePath(name).stem
    ]  # fmt: skip
    return Model(
        of=one.folder, name=model.source, kind=model.kind, sha256=model.sha256, accuracy=data.accuracy, rows=data.rows,
        victim_of=cells,
    )  # fmt: skip


def _measured(one: Evidence) -> list[Measured]:
    """One row per curve. Cells of different data are kept apart, as in a report."""
    if not one.records:
        return []
    cells = keep_apart(cells_frame(one.records))
    summary = summary_frame(cells)
    doses = dose_frame(cells, summary)
    known = {} if doses.empty else {(row.task, row.attack, row.defense): row for row in doses.itertuples()}
    found = []
    for place, rows in summary.groupby(["task", "attack", "defense"], sort=False):
        done = rows[rows.n_done > 0].sort_values("dose")
        last = done.iloc[-1] if len(done) else rows.iloc[-1]
        row: Any = known.get(place)
        task, attack, defense = map(str, place)
        found.append(
            Measured(
                of=one.folder, task=task, attack=attack, defense=defense, control=str(last.stage) == "control",
                seeds=int(getattr(row, "seeds", 0)) or _seeds(cells, place), doses=[int(dose) for dose in done.dose],
                floor=_mean(done, "asr_floor"), asr=_number(last.get("asr")), utility=_number(last.get("utility")),
                clean_metric=str(last.clean_metric), works=bool(last.get("gate", False)),
                ed50=None if getattr(row, "ed50_censored", "") in ("<", ">") else _number(getattr(row, "ed50", None)),
                ed50_text=_text(row, "ed50_text"), protection_text=_text(row, "protection_text"),
                note=_text(row, "note"),
            )
        )  # fmt: skip
    return found


def _seeds(cells: pd.DataFrame, place: Any) -> int:
    """Seeds of a curve that has one dose only, so that `dose_frame` leaves it out."""
    same = (cells[["task", "attack", "defense"]] == list(place)).all(axis=1) & (cells.status == "done")
    return int(cells[same].seed.nunique())


def _mean(rows: pd.DataFrame, name: str) -> float | None:
    return _number(rows[name].mean()) if name in rows else None


def _number(value: Any) -> float | None:
    """Six digits, as results have them; None for nan and for what is beyond all doses."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{float(value):.{DIGITS}g}")


def _text(row: Any, name: str) -> str:
    text = getattr(row, name, "")
    return text if isinstance(text, str) else ""
