"""The tests that evidence speaks of, with their rates of false alarms; and what was not tested."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.certify.evidence import Evidence
from harness.certify.findings import AuditFile, VetFile
from harness.certify.schema import Suite, Test
from harness.console import format_count
from harness.plugins.registry import fits
from harness.store.records import Record

INTERVAL = 0.05  # of 95 % intervals


def list_tests(one: Evidence) -> list[Test]:
    """Every test of an audit or a vetting, and the kinds of cells of a run."""
    if one.vet:
        return [*_row_checks(one.folder, one.vet), *_sources(one.folder, one.vet)]
    if one.audit:
        return [*_triggers(one.folder, one.audit), *_detectors(one.folder, one.audit)]
    return _cells(one.folder, one.records)


def _row_checks(of: str, vet: VetFile) -> Iterator[Test]:
    alarms = {check.check for check in vet.alarms()}
    rate, k = vet.settings.rate, vet.threshold()
    promise = (
        f"of single rows, by {vet.trusted.rows} trusted rows; exact where clean rows are like these"
        if k else "not known: there are too few trusted rows"
    )  # fmt: skip
    for check in vet.checks:
        of_clean = f", {check.expected:.1f} of clean data" if check.expected is not None else ""
        yield Test(
            of=of, test=check.check, rate=rate if k else 1.0, promise=promise, n=vet.data.rows, p=check.excess,
            alarm=check.check in alarms if k else None, result=f"{check.flagged:,} rows flagged{of_clean}",
        )  # fmt: skip


def _sources(of: str, vet: VetFile) -> Iterator[Test]:
    if vet.data.sources and vet.checks:
        smallest = min((p for check in vet.checks for p in check.sources.values()), default=None)
        yield Test(
            of=of, test="sources", rate=vet.settings.level, n=len(vet.data.sources), p=smallest,
            promise="of any source, after Holm's correction; exact where the rows of a class are exchangeable",
            alarm=bool(vet.accused), result=f"{len(vet.accused)} of {len(vet.data.sources)} sources accused",
        )  # fmt: skip


def _triggers(of: str, audit: AuditFile) -> Iterator[Test]:
    shifts, called = audit.behaviour.triggers, audit.called()
    if shifts:
        most = max(shifts, key=lambda shift: shift.share)
        names = len({shift.trigger for shift in shifts})
        yield Test(
            of=of, test="known triggers", rate=audit.settings.level, n=audit.settings.rows,
            promise="of any trigger, after Holm's correction, against random changes of the same size; a clean model "
            "that is sensitive to a trigger's kind of change may break it",
            p=min(shift.adjusted for shift in shifts), alarm=bool(called),
            result=f"{names} triggers tried; {most.trigger} turns the most rows ({most.share:.0%})",
        )  # fmt: skip


def _detectors(of: str, audit: AuditFile) -> Iterator[Test]:
    k = audit.null_models.number
    for found in audit.detectors:
        beside = found.beside == "clean models"
        yield Test(
            of=of, test=f"{found.detector}, beside {found.beside}" if beside else found.detector,
            rate=audit.settings.level, n=k if beside else len(audit.data.classes), p=found.adjusted,
            promise=f"exact if the model was trained as the {k} clean ones were" if beside
            else "weak: right only where the classes of a clean model are alike",
            alarm=found.adjusted <= audit.settings.level,
            result=f"class {found.target!r} is the most unusual, score {found.score:.3g}",
        )  # fmt: skip


def _cells(of: str, records: list[Record]) -> list[Test]:
    """One line per task: how many attacks were run against how many defenses."""
    found = []
    for task in dict.fromkeys(record.task.label for record in records):
        done = [r for r in records if r.task.label == task and r.status == "done"]
        attacks, defenses = ({getattr(r, kind).label for r in done} for kind in ("attack", "defense"))
        seeds = {r.seed for r in done}
        found.append(
            Test(
                of=of, test=f"attacks x defenses on {task}", rate=INTERVAL, n=len(done), p=None, alarm=None,
                promise="of 95 % intervals over seeds, and of Holm-corrected protection factors; from three seeds on",
                result=f"{format_count(len(attacks), 'attack')}, {format_count(len(defenses), 'defense')} (controls "
                f"included), {format_count(len(seeds), 'seed')}",
            )
        )  # fmt: skip
    return found


def list_untested(one: Evidence, suite: Suite) -> list[str]:
    """One sentence for each thing that this evidence says nothing of."""
    lines = _unvetted(one.vet) if one.vet else _unaudited(one.audit) if one.audit else _unrun(one, suite)
    return [f"{one.name}: {line}" for line in lines]


def _unvetted(vet: VetFile) -> Iterator[str]:
    for name, why in vet.left_out.items():
        yield f"the check {name} was not run: {why}"
    if not vet.data.sources:
        yield "nobody knows who delivered the rows, so no source was tested"
    if not vet.settings.victim:
        yield "no victim was trained, so no check saw what a model makes of the rows"


def _unaudited(audit: AuditFile) -> Iterator[str]:
    for name, why in audit.behaviour.unfit.items():
        yield f"the trigger {name} was not tried: {why}"
    idle = sorted({s.trigger for s in audit.behaviour.triggers if s.strength == 1} - _compared(audit))
    if idle:
        yield f"not compared with random changes, as they turn too few rows or another one came first: {_join(idle)}"
    if audit.unsearched:
        yield f"no detector was run: {audit.unsearched}"
    if not audit.null_models.number:
        yield "no clean models were trained to compare with"
    if audit.settings.quick:
        yield "a quick audit: fewer rows, shorter searches, and it ends with the first trigger that is called"


def _compared(audit: AuditFile) -> set[str]:
    return {shift.trigger for shift in audit.behaviour.triggers if shift.draws}


def _unrun(one: Evidence, suite: Suite) -> Iterator[str]:
    done = [record for record in one.records if record.status == "done"]
    for modality in dict.fromkeys(record.modality for record in one.records):
        here = [record for record in done if record.modality == modality]
        for kind, known, used in (
            ("attacks", suite.attacks, {record.attack.name for record in here}),
            ("defenses", suite.defenses, {record.defense.name for record in here}),
        ):
            all_ = sorted(name for name, modalities in known.items() if fits(modality, modalities))
            missing = sorted(set(all_) - used)
            if missing:
                few = f"{len(missing)} of {len(all_)} {kind} that the suite has for {modality}"
                yield f"{few} were not run: {_join(missing)}"
    for task in dict.fromkeys(record.task.label for record in done):
        rows = [record for record in done if record.task.label == task]
        most, size = max(record.dose for record in rows), max(record.train_size or 0 for record in rows)
        yield f"{task}: no dose above {most:,}{f' of {size:,} training rows' if size else ''}"
    lost = sum(record.status not in ("done", "not applicable") for record in one.records)
    pending = len(one.plan) - len(one.records)
    if lost or pending:
        yield f"{lost} cells failed or timed out, {pending} are pending"


def _join(names: Iterable[str]) -> str:
    return ", ".join(names)
