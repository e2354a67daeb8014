"""audit.json and vet.json as they are read from a folder: checked for their form, and against themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from scipy import stats

from harness.console import one_line
from harness.errors import BadEvidence
from harness.report.compare import holm

CLOSE = 1e-4  # relative: the numbers in audit.json have six digits
Probability = Annotated[FiniteFloat, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
T = TypeVar("T", bound=BaseModel)


class Strict(BaseModel):
    """Nothing is left out, nothing is added, no text stands for a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class AuditedModel(Strict):
    source: str
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    kind: str


class CleanRows(Strict):
    source: str
    classes: Annotated[list[str], Field(min_length=2)]
    prepare: str
    rows: Count
    accuracy: Probability
    notes: list[str]


class AuditSettings(Strict):
    quick: bool
    level: Probability
    seed: Count
    rows: Count
    draws: Count
    works: Probability


class Shift(Strict):
    trigger: str
    strength: FiniteFloat
    share: Probability
    target: str = Field(alias="class")
    shares: dict[str, Probability]
    draws: Count
    random: Probability
    p: Probability
    adjusted: Probability


class Behaviour(Strict):
    triggers: list[Shift]
    unfit: dict[str, str]


class Detected(Strict):
    detector: str
    score: FiniteFloat
    target: str = Field(alias="class")
    p: Probability
    adjusted: Probability
    beside: Literal["clean models", "other classes"]


class NullModels(Strict):
    number: Count
    smallest_p: Probability | None
    accuracy: list[Probability]


class Verdict(Strict):
    suspicious: bool
    target: str | None = Field(alias="class")
    because: list[str]


class AuditFile(Strict):
    """audit.json, as harness/audit/README.md describes it."""

    schema_version: Literal[1] = Field(alias="schema")
    model: AuditedModel
    data: CleanRows
    settings: AuditSettings
    behaviour: Behaviour
    detectors: list[Detected]
    unsearched: str
    null_models: NullModels
    verdict: Verdict

    def called(self) -> list[Shift]:
        """The triggers that are called a backdoor, by the rule of the audit."""
        works = {s.trigger for s in self.behaviour.triggers if s.strength == 1 and s.share >= self.settings.works}
        return [s for s in self.behaviour.triggers if s.trigger in works and s.adjusted <= self.settings.level]

    def alarms(self) -> list[Detected]:
        return [d for d in self.detectors if d.adjusted <= self.settings.level]

    def contradictions(self) -> Iterator[str]:
        """Where one number of the file does not follow from the others: the field, what it says, what follows."""
        shifts, nulls = self.behaviour.triggers, self.null_models
        for i, shift in enumerate(shifts):
            where = f"behaviour.triggers.{i}"
            if not _close(shift.share, shift.shares.get(shift.target, -1.0)) or set(shift.shares) != set(
                self.data.classes
            ):
                yield f"{where}.share: {shift.share} is not that of class {shift.target!r}"
            elif shift.share < max(shift.shares.values()) * (1 - CLOSE):
                yield f"{where}.share: {shift.share} is not the largest"
            if not shift.draws and shift.p != 1:
                yield f"{where}.p: {shift.p}, but no random change was drawn"
            if shift.draws and shift.p < (1 - CLOSE) / (shift.draws + 1):
                yield f"{where}.p: {shift.p} is less than {shift.draws} random changes can give"
        yield from _check_holm("behaviour.triggers", [s.p for s in shifts], [s.adjusted for s in shifts])
        yield from _check_holm("detectors", [d.p for d in self.detectors], [d.adjusted for d in self.detectors])
        for i, found in enumerate(self.detectors):
            if (found.beside == "clean models") != bool(nulls.number):
                yield f"detectors.{i}.beside: {found.beside!r}, with {nulls.number} clean models"
            if nulls.number and found.p < (1 - CLOSE) / (nulls.number + 1):
                yield f"detectors.{i}.p: {found.p} is less than {nulls.number} clean models can give"
        if len(nulls.accuracy) != nulls.number:
            yield f"null_models.number: {nulls.number}, but there are {len(nulls.accuracy)} accuracies"
        if self.unsearched and len(self.detectors) > bool(nulls.number):  # of known triggers, beside clean models
            yield f"unsearched: {self.unsearched!r}, with {len(self.detectors)} readings of detectors"
        suspected = {shift.target for shift in self.called()} | {found.target for found in self.alarms()}
        if self.verdict.suspicious != bool(suspected):
            yield f"verdict.suspicious: {self.verdict.suspicious}, but {len(suspected)} classes are called by a test"
        if not (self.verdict.target in suspected if suspected else self.verdict.target is None):
            yield f"verdict.class: {self.verdict.target!r} is called by no test"


class VettedData(Strict):
    source: str
    content: str
    fingerprint: str
    rows: Count
    classes: list[str]
    sources: dict[str, Count]


class Trusted(Strict):
    source: str
    content: str
    rows: Count


class VetSettings(Strict):
    rate: Annotated[FiniteFloat, Field(gt=0, lt=1)]
    level: Probability
    seed: Count
    victim: bool


class RowCheck(Strict):
    check: str
    flagged: Count
    expected: FiniteFloat | None
    excess: Probability | None
    sources: dict[str, Probability]


class VetFile(Strict):
    """vet.json, as harness/audit/README.md describes it."""

    schema_version: Literal[1] = Field(alias="schema")
    data: VettedData
    trusted: Trusted
    settings: VetSettings
    checks: list[RowCheck]
    left_out: dict[str, str]
    accused: dict[str, str]
    quarantine: list[Count]

    def alarms(self) -> list[RowCheck]:
        """Checks that flag more rows than chance does."""
        level = self.settings.level / max(len(self.checks), 1)
        return [check for check in self.checks if check.excess is not None and check.excess <= level]

    def threshold(self) -> int:
        """Which of the trusted rows, the most suspicious first, gives the threshold; 0: they are too few for one."""
        return int(self.settings.rate * (self.trusted.rows + 1))

    def contradictions(self) -> Iterator[str]:
        """Where one number of the file does not follow from the others: the field, what it says, what follows."""
        rows, k = self.data.rows, self.threshold()
        chance = stats.betabinom(rows, k, self.trusted.rows + 1 - k) if k and self.trusted.rows else None
        for i, check in enumerate(self.checks):
            where = f"checks.{i}"
            if check.flagged > rows:
                yield f"{where}.flagged: {check.flagged} of {rows} rows"
            excess = None if chance is None else float(chance.sf(check.flagged - 1))
            if not _close(check.excess, excess):
                yield f"{where}.excess: {check.excess}, but of {check.flagged} flagged rows follows {excess}"
            if not _close(check.expected, None if chance is None else float(chance.mean())):
                yield f"{where}.expected: {check.expected} does not follow from the rate and the trusted rows"
            if set(check.sources) != set(self.data.sources):
                yield f"{where}.sources: are not those of the data"
        for source in self.data.sources:
            accused = any(check.sources.get(source, 1.0) <= self.settings.level for check in self.checks)
            if accused != (source in self.accused):
                yield f"accused: {source!r} is {'missing' if accused else 'accused by no check'}"
        if any(not 1 <= row <= rows for row in self.quarantine) or len(set(self.quarantine)) < len(self.quarantine):
            yield f"quarantine: has numbers twice or outside 1 to {rows}"
        if bool(self.quarantine) != bool(self.alarms() or self.accused):
            yield f"quarantine: {len(self.quarantine)} rows, which is not what the checks say"


def read_audit(where: str, data: bytes) -> AuditFile:
    """Raises BadEvidence as `_read`, and for the audit of a language model, for which there is no level yet."""
    raw: Any = None
    with suppress(ValueError, RecursionError):
        raw = parse_json(data)
    about = raw.get("data") if isinstance(raw, dict) else None
    if isinstance(about, dict) and "perplexity" in about:
        raise BadEvidence(f"{where}: is of a language model; only audits of classifiers can be certified so far")
    return _read(AuditFile, where, data)


def read_vet(where: str, data: bytes) -> VetFile:
    return _read(VetFile, where, data)


def parse_json(data: bytes) -> Any:
    """JSON in UTF-8, without NaN and with every key once. Raises ValueError."""
    return json.loads(data.decode("utf-8"), object_pairs_hook=_each_once, parse_constant=_no_number)


def first_problem(error: ValidationError) -> str:
    """The first field that does not fit, and why."""
    first = error.errors(include_url=False, include_input=False)[0]
    return one_line(f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}", 200)


def _read(kind: type[T], where: str, data: bytes) -> T:
    """Raises BadEvidence for a file of another form, or one that contradicts itself."""
    try:
        found = kind.model_validate_json(json.dumps(parse_json(data)))
    except ValidationError as error:
        raise BadEvidence(f"{where}: {first_problem(error)}") from None
    except (ValueError, RecursionError) as error:
        raise BadEvidence(f"{where}: is no JSON ({one_line(error, 100)})") from None
    for problem in found.contradictions():  # type: ignore[attr-defined]
        raise BadEvidence(f"{where}: {one_line(problem, 300)}; its numbers contradict each other")
    return found


def _check_holm(where: str, p: Sequence[float], adjusted: Sequence[float]) -> Iterator[str]:
    for i, (said, follows) in enumerate(zip(adjusted, holm(np.array(p, dtype=float)).tolist(), strict=True)):
        if not _close(said, follows):
            yield f"{where}.{i}.adjusted: {said}, but by Holm's correction follows {follows:.6g}"


def _close(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=CLOSE, abs_tol=1e-12)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")
