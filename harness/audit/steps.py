"""The steps of an audit, from a model and clean rows to what was found."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from harness.audit import behaviour, detectors, nulls
from harness.audit.behaviour import Plan, Shift, Step
from harness.audit.cells import Cell
from harness.audit.data import open_data
from harness.audit.detectors import Calibrated, Effort, Reading
from harness.audit.media import Inputs, require_medium
from harness.audit.models import Loaded, load_model
from harness.audit.nulls import NullModel
from harness.audit.subject import Audited, read_order, require_skill, wrap
from harness.console import duration, expand_home, quote
from harness.keys.seeds import derive
from tasks.base import Task
from tasks.image import ImageTask
from tasks.plugin import BadInput
from tasks.samples import Samples

SHOWN = 6  # rows shown in the page
HELD_OUT, HELD_OUT_QUICK = 500, 200  # clean rows on which accuracy is measured; the first of them are stamped
TRIGGERS = "known triggers"  # the name of the comparison of clean models by what triggers do to them
QUICK = Plan(rows=32, strengths=(1.0, 0.5), draws=399, stop_at_first=True)
Stage = Callable[[str, int | None], AbstractContextManager[Step]]  # its title and the number of its steps, if known
Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """What is asked for; the options of the command."""

    model: str
    data: str = ""
    architecture: str = ""
    prepare: str = ""
    size: int | None = None
    grey: bool = False
    classes: str = ""
    triggers: str = ""
    null_models: int = 0
    quick: bool = False
    level: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Audit:
    """What was found. shown: by title raw rows, or recovered triggers float (1, C, H, W) in [0, 1]; rate: of sounds."""

    request: Request
    kind: str
    digest: str  # SHA-256 of the model's file, "" for a function
    prepare: str
    names: tuple[str, ...]  # of the classes
    accuracy: float
    rows: int  # on which it was measured
    plan: Plan
    shifts: list[Shift]
    unfit: dict[str, str]  # triggers that do not fit, and why
    unsearched: str  # why no detector was run; "" where they were
    detected: list[Calibrated]
    null_accuracy: list[float]
    notes: tuple[str, ...]
    rate: int = 0
    shown: dict[str, Inputs] = field(default_factory=dict)

    @property
    def called(self) -> list[Shift]:
        """What the behaviour test calls a backdoor, the surest first."""
        works = {s.trigger for s in self.shifts if s.strength == 1.0 and s.share >= self.plan.works}
        found = [s for s in self.shifts if s.trigger in works and s.adjusted <= self.request.level]
        return sorted(found, key=lambda s: (s.adjusted, -s.share, -s.strength))

    @property
    def alarms(self) -> list[Calibrated]:
        """Detectors that call the model backdoored, the surest first."""
        return sorted((d for d in self.detected if d.adjusted <= self.request.level), key=lambda d: d.adjusted)

    @property
    def verdict(self) -> Literal["suspicious", "nothing found"]:
        return "suspicious" if self.called or self.alarms else "nothing found"

    @property
    def target(self) -> int | None:
        """The class that is believed to be the attacker's: of the behaviour test, or else of the surest detector."""
        return self.called[0].target if self.called else self.alarms[0].target if self.alarms else None


def audit(request: Request, cell: Cell | None, stage: Stage, say: Say) -> Audit:
    """Everything. Raises BadInput for a model or data that cannot be audited, before any long step."""
    if request.triggers:
        raise BadInput(f"--triggers {quote(request.triggers)}: is for language models; leave it out")
    if cell is None and not request.data:
        raise BadInput("--data: is missing; name a folder of clean pictures, one sub-folder per class, or a task")
    if cell and (request.architecture or (not request.data and (request.size is not None or request.grey))):
        raise BadInput("--architecture, --size, --grey: a cell has its own network and data; leave them out")
    task = (
        require_medium(cell.task) if cell and not request.data else open_data(request.data, request.size, request.grey)
    )
    loaded = cell.load() if cell else load_model(request.model, request.architecture, task)
    prepare = request.prepare or default_preparation(task, loaded)
    splits = task.load()
    held_out = choose(splits.test, HELD_OUT_QUICK if request.quick else HELD_OUT, request.seed)
    audited = wrap(loaded, task, prepare, read_order(request.classes, task), held_out)
    if request.null_models and audited.fresh is None:
        raise BadInput(
            f"--null-models {request.null_models}: {audited.why_not}; leave it out, or name an --architecture"
        )
    if request.null_models == 1:
        raise BadInput("--null-models 1: one clean model has no spread; valid: 0, or 2 and more")
    accuracy = require_skill(audited, task, held_out, prepare)
    prepared = f", pictures prepared by {prepare!r}" if prepare else ""
    say(f"{audited.kind}{prepared}: accuracy {accuracy:.2f} on {len(held_out)} clean rows")
    clean = choose(splits.reserve, len(splits.reserve), request.seed)
    plan = plan_for(request)
    steps = _Steps(request, audited, plan, clean, held_out, stage, say)
    with stage("known triggers", None) as step:
        shifts = behaviour.try_triggers(audited.victim, held_out, plan, request.seed, step)
    readings = steps.inspect()
    compared = steps.train_nulls(splits.train) if request.null_models else []
    detected = beside(readings, compared, audited, held_out, plan, request.seed)
    digest = digest_file(cell.weights if cell else expand_home(request.model))
    unfit = behaviour.find_unfit(audited.victim, held_out)
    shown = _show(audited, held_out, shifts, readings, detected, request.seed)
    return Audit(
        request, audited.kind, digest, prepare, tuple(map(str, task.classes)), accuracy, len(held_out), plan, shifts,
        unfit, steps.why_unsearched, detected, [null.accuracy for null in compared], splits.notes, task.rate, shown,
    )  # fmt: skip


class _Steps:
    """The long steps, which say how far they are."""

    def __init__(
        self, request: Request, audited: Audited, plan: Plan, clean: Samples, held_out: Samples, stage: Stage, say: Say
    ) -> None:
        self.request, self.audited, self.plan = request, audited, plan
        self.clean, self.held_out, self.stage, self.say = clean, held_out, stage, say
        effort = detectors.QUICK if request.quick else Effort()
        self.why_unsearched = detectors.why_not(audited, effort, clean)
        self.detectors = () if self.why_unsearched else effort.detectors
        self.seconds = 0.0  # of the detectors on one model

    def inspect(self) -> list[Reading]:
        """What every detector says of the user's model."""
        start, readings = time.perf_counter(), []
        with self.stage("detectors", len(self.detectors)) as step:
            for detector in self.detectors:
                readings.append(detectors.inspect(detector, self.audited.victim, self.clean, self.request.seed))
                step()
        self.seconds = time.perf_counter() - start
        return readings

    def train_nulls(self, train: Samples) -> list[NullModel]:
        """Clean models, and what is said of them; the number and the time are said before."""
        number, level = self.request.null_models, self.request.level
        each = nulls.estimate_seconds(self.audited, train) + self.seconds
        tests = len(self.detectors) + 1
        needed = detectors.models_needed(level, tests)
        self.say(
            f"{number} clean models are trained on {len(train):,} rows: about {duration(number * each)}; their "
            f"smallest p value is {detectors.smallest_p(number):.3f}"
            + (f", and to call a model by one of {tests} tests takes {needed} of them" if number < needed else "")
        )
        found = []
        with self.stage("clean models", number) as step:
            for i in range(number):
                null = nulls.train_null(self.audited, train, derive(self.request.seed, "null", i))
                seed = self.request.seed
                found.append(nulls.examine(null, self.detectors, self.clean, self.held_out, self.plan, seed))
                step()
        return found


def beside(
    readings: list[Reading], compared: list[NullModel], audited: Audited, held_out: Samples, plan: Plan, seed: int
) -> list[Calibrated]:
    """The detectors' p values, and with clean models that of what known triggers do; Holm-corrected over these."""
    if compared:
        found = [detectors.beside_models(r, [null.by_class[r.detector] for null in compared]) for r in readings]
        shares = behaviour.measure_shares(audited.victim, held_out, plan, seed)
        found.append(detectors.beside_shares(TRIGGERS, shares, [null.shares for null in compared]))
    else:
        found = [detectors.beside_classes(reading) for reading in readings]
    adjusted = behaviour.holm([d.p for d in found])
    return [replace(d, adjusted=p) for d, p in zip(found, adjusted, strict=True)]


def plan_for(request: Request) -> Plan:
    """How much is done; more random changes for a lower level, which fewer could not reach."""
    plan = QUICK if request.quick else Plan()
    draws = max(plan.draws, math.ceil(plan.draws * plan.level / request.level))
    return replace(plan, level=request.level, draws=draws)


def default_preparation(task: Task, loaded: Loaded) -> str:
    """How pictures are prepared where the user does not say; "" where there are none."""
    if not isinstance(task, ImageTask):
        return ""
    return "raw" if loaded.own else "imagenet" if task.channels == 3 else "half"


def choose(samples: Samples, n: int, seed: int) -> Samples:
    """n rows at random, or all in another order: files of a folder are sorted by class."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(derive(seed, "rows")))
    return samples.select(order[:n])


def digest_file(path: Path) -> str:
    """SHA-256 of the model's file; "" for a function."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _show(
    audited: Audited, held_out: Samples, shifts: list[Shift], readings: list[Reading], detected: list[Calibrated],
    seed: int,
) -> dict[str, Inputs]:  # fmt: skip
    """By title: the strongest trigger on clean rows, and the smallest trigger that inversion found for a class."""
    found: dict[str, Inputs] = {}
    strongest = max((s for s in shifts if s.strength == 1.0), key=lambda s: s.share, default=None)
    if strongest is not None:
        clean, stamped = behaviour.show(strongest.trigger, audited.victim, held_out, SHOWN, seed)
        found |= {"clean rows": clean, f"the same rows with {strongest.trigger}": stamped}
    for reading in readings:
        target = next(d.target for d in detected if d.detector == reading.detector)
        if (picture := reading.pictures.get(f"trigger_{target}")) is not None:
            name = audited.victim.task.classes[target]
            found[f"what {reading.detector} recovered for class {name!r}"] = picture[None]
    return found
