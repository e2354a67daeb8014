"""What a model, a judge or a measure hands back, checked once, where grading receives it; `run` and `check` alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import NoReturn

import torch
from torch import Tensor

from defenses.base import Defense
from defenses.controls.none import None_
from harness.console import one_line
from harness.errors import BrokenDefense, BrokenTask, Diverged
from tasks.base import Task, sealed
from tasks.deployed import Model, Victim
from tasks.plugin import BadInput, NotApplicable
from tasks.samples import Challenge, Outputs, Samples
from tasks.validate import describe, find_flaw, is_finite, is_plain

RESERVED = ("utility", "asr", "robust_accuracy", "train_", "input_", "target_", "model_", "challenge_", "clean_",
            "certified_")  # fmt: skip  # how the names of metrics begin that are not a task's own


@dataclass(frozen=True)
class Answerer:
    """Who answers for a model: the defense that deploys it, or, where nobody defends, the task that makes the victim.

    asked: what the model is asked for, in words.
    """

    task: Task
    defense: Defense | None
    asked: str

    @property
    def undefended(self) -> bool:
        return self.defense is None or isinstance(self.defense, None_)

    @property
    def error(self) -> type[BrokenDefense | BrokenTask]:
        return BrokenTask if self.undefended else BrokenDefense

    def __str__(self) -> str:
        recipe = self.task.recipe()
        victim = f"the victim of {self.task.name} (lr={recipe.lr:g}, epochs={recipe.epochs})"
        return victim if self.undefended else self.defense.name  # type: ignore[union-attr]

    def refuse(self, problem: str) -> NoReturn:
        raise self.error(f"{self}: predict({self.asked}): {problem}")


def ask(task: Task, model: Model, samples: Samples, asked: str, defense: Defense | None = None) -> Outputs:
    """What the model answers to samples, checked, without gradients. It may not load data while it answers.

    asked: the samples in words. defense: who deploys the model; None for a victim that nobody defends.
    Raises BrokenDefense or BrokenTask, Diverged for a victim that answers NaN, or BadInput of the model's own.
    """
    who = Answerer(task, defense, f"{asked}, {len(samples)} inputs")
    try:
        with sealed():
            outputs = model.predict(samples)
    except (NotApplicable, OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except BadInput as error:
        raise BadInput(f"{who}: predict({who.asked}): {error}") from error
    except Exception as error:
        raise who.error(f"{who}: predict({who.asked}) raised {type(error).__name__}: {one_line(error)}") from error
    return check_outputs(outputs, samples, who)


def check_outputs(outputs: object, samples: Samples, who: Answerer) -> Outputs:
    """The outputs, if they are answers to these samples; their tensors without gradients."""
    task, n = who.task, len(samples)
    if not isinstance(outputs, Outputs):
        who.refuse(f"returned {describe(outputs)}; return a tasks.samples.Outputs")
    columns = _columns(task, outputs)
    wanted = f"float32 ({n}, {'K' if columns is None else columns}) on the CPU"
    scores = outputs.scores
    if not is_plain(scores, torch.float32, 2) or len(scores) != n or columns not in (None, scores.shape[1]):
        way = "one row for each input and one column for each class" if who.task.columns is None else "one row each"
        who.refuse(f"scores are {describe(scores)}, expected {wanted}: {way}")
    if scores.numel() and not is_finite(scores):
        _refuse_scores(scores, who)
    _need(who, "abstained", outputs.abstained, (torch.bool,), n, "say of every input whether the model abstains")
    if outputs.suspicion is not None:
        floats = (torch.float32, torch.float64)
        _need(who, "suspicion", outputs.suspicion, floats, n, "one number for each input, higher = worse")
        missing = int(outputs.suspicion.isnan().sum())
        if missing:
            who.refuse(f"suspicion is NaN for {missing} of {n} inputs; give each a number, inf and -inf allowed")
    if outputs.radius is not None:
        _need(who, "radius", outputs.radius, (torch.int64,), n, "a number of poisons for each input")
        if n and int(outputs.radius.min()) < 0:
            who.refuse(f"radius is {int(outputs.radius.min())} at its lowest; certify 0 poisons or more")
    _check_content(outputs, samples, who)
    tensors = {name: value.detach() for name, value in vars(outputs).items() if isinstance(value, Tensor)}
    return replace(outputs, **tensors)


def judge(task: Task, outputs: Outputs, challenge: Challenge, referee: Victim | None = None) -> Tensor:
    """(N,) bool: the verdicts of the task's judge. Raises BrokenTask."""
    return check_verdicts(task, "judge", task.judge(outputs, challenge, referee), len(challenge.inputs))


def check_verdicts(task: Task, name: str, verdicts: object, n: int) -> Tensor:
    """Verdicts, if they are (N,) bool; name: which method of the task gave them."""
    if not isinstance(verdicts, Tensor) or not is_plain(verdicts, torch.bool) or len(verdicts) != n:
        raise BrokenTask(f"{task.name}.{name} returned {describe(verdicts)}, expected bool ({n},): a verdict on each")
    return verdicts


def utility(task: Task, outputs: Outputs, test: Samples, referee: Victim | None = None) -> float:
    """The task's measure of clean quality; an accuracy lies in [0, 1]. Raises BrokenTask."""
    value = check_measure(task, "utility", task.utility(outputs, test, referee))
    if task.clean_metric.endswith("accuracy") and not 0 <= value <= 1:
        raise BrokenTask(
            f"{task.name}.utility returned {value:g}, and {task.clean_metric} lies in 0 to 1; "
            "name in `clean_metric` what else it measures"
        )
    return value


def extra_metrics(task: Task, outputs: Outputs, test: Samples, referee: Victim | None = None) -> dict[str, float]:
    """The task's further measures of clean quality, by names that are its own. Raises BrokenTask."""
    found: object = task.extra_metrics(outputs, test, referee)
    if not isinstance(found, Mapping):
        raise BrokenTask(f"{task.name}.extra_metrics returned {describe(found)}, expected numbers by name")
    for name in found:
        if not isinstance(name, str) or name.startswith(RESERVED):
            raise BrokenTask(f"{task.name}.extra_metrics: {name!r} is the name of another metric; use one of its own")
    return {name: check_measure(task, f"extra_metrics: {name}", value) for name, value in found.items()}


def check_measure(task: Task, name: str, value: object) -> float:
    """A number that a task gives, if it is finite; name: which of its methods gave it."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise BrokenTask(f"{task.name}.{name} is {describe(value)}; give a float, of a tensor its .item()")
    if not math.isfinite(value):
        raise BrokenTask(f"{task.name}.{name} is {float(value)}; a measure must be a finite number")
    return float(value)


def check_distances(task: Task, name: str, values: object, n: int) -> Tensor:
    """(N,) distances of `Task.fidelity`, if they are finite numbers."""
    real = isinstance(values, Tensor) and not values.is_complex() and values.shape == (n,)
    if not isinstance(values, Tensor) or not real or not is_finite(values):
        raise BrokenTask(f"{task.name}.fidelity: {name} is {describe(values)}, expected finite numbers ({n},)")
    return values


def _columns(task: Task, outputs: Outputs) -> int | None:
    """How many columns scores have: one for each class, or for a generative model what its task says."""
    return task.columns if _generates(task, outputs) else len(task.classes)


def _generates(task: Task, outputs: Outputs) -> bool:
    """Whether victims of the task make content. Only one with a deployed model of its own can."""
    own_model = type(task).deploy is not Task.deploy
    return own_model and (outputs.content is not None or task.referee() is not None)


def _check_content(outputs: Outputs, samples: Samples, who: Answerer) -> None:
    if not _generates(who.task, outputs):
        return
    content, n = outputs.content, len(samples)
    if not isinstance(content, Tensor | list) or len(content) != n:
        size = f" of {len(content)}" if isinstance(content, list) else ""
        who.refuse(f"content is {describe(content)}{size}, expected {n}, one for each request")
    made = Samples(content, torch.zeros(n, dtype=torch.int64), torch.arange(n))
    flaw = find_flaw(made, who.task, "content", labels=False)
    if flaw:
        who.refuse(flaw)
    asked = samples.inputs
    if isinstance(content, Tensor) and isinstance(asked, Tensor) and content.shape != asked.shape:
        who.refuse(f"content is {describe(content)}, expected the shape of the requests, {tuple(asked.shape)}")


def _refuse_scores(scores: Tensor, who: Answerer) -> NoReturn:
    bad = int((~scores.isfinite()).any(1).sum())
    what = "NaN" if bool(scores.isnan().any()) else "infinity"
    said = f"{who} answers {what} for {bad} of {len(scores)} inputs ({who.asked.rpartition(', ')[0]})"
    if who.undefended:
        raise Diverged(f"{said}: training diverged; lower lr, or check the data for extreme values")
    raise BrokenDefense(f"{said}; a model whose training diverged needs a lower lr, and scores must be finite")


def _need(who: Answerer, name: str, value: object, dtypes: tuple[torch.dtype, ...], n: int, way: str) -> None:
    if not any(is_plain(value, dtype) for dtype in dtypes) or value.shape != (n,):  # type: ignore[attr-defined]
        wanted = str(dtypes[0]).removeprefix("torch.")
        who.refuse(f"{name} is {describe(value)}, expected {wanted} ({n},) on the CPU: {way}")
