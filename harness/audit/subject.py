"""The model under audit as the suite's detectors see it: a network that reads raw pictures, and whether it works."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest
from torch import Tensor, nn

from harness.audit.models import Loaded
from harness.cell.train import isolate_seed
from harness.console import one_line, quote
from tasks.base import Task
from tasks.deployed import Victim
from tasks.image import ImageTask
from tasks.net import Net
from tasks.plugin import BadInput
from tasks.samples import Samples

CPU = torch.device("cpu")
RAW_ROWS = 256  # that a network of raw inputs gets at a time
LEVEL = 0.01  # p value at which an accuracy counts as above chance
Numbers = tuple[float, ...]
PREPARATIONS: dict[
    str, tuple[Numbers, Numbers] | None
] = {  # mean and spread of values 0 to 1; None: the network gets values 0 to 255
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "half": ((0.5,), (0.5,)),
    "unit": ((0.0,), (1.0,)),
    "raw": None,
}


class Preparation(nn.Module):
    """Pictures of values 0 to 255, uint8 or float (N, C, H, W), to the float32 that the network reads."""

    mean: Tensor
    spread: Tensor

    def __init__(self, mean: tuple[float, ...], spread: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("spread", 255 * torch.tensor(spread)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        prepared: Tensor = (x.float() - self.mean) / self.spread
        return prepared


def read_preparation(text: str, channels: int) -> nn.Module:
    """From a name, or numbers as MEAN/STD: `0.49,0.48,0.45/0.25,0.24,0.26`. Raises BadInput."""
    where = f"--prepare {quote(text)}"
    if text in PREPARATIONS:
        numbers = PREPARATIONS[text]
    elif re.fullmatch(r"[\d.,eE+-]+/[\d.,eE+-]+", text):
        try:
            mean, spread = (tuple(float(word) for word in part.split(",")) for part in text.split("/"))
        except ValueError:
            raise BadInput(f"{where}: write MEAN/STD as numbers of 0 to 1: 0.49,0.48,0.45/0.25,0.24,0.26") from None
        numbers = mean, spread
    else:
        raise BadInput(f"{where}: valid: {', '.join(PREPARATIONS)}, or MEAN/STD: 0.49,0.48,0.45/0.25,0.24,0.26")
    if numbers is None:
        return Preparation((0.0,), (1 / 255,))
    if any(len(part) not in (1, channels) for part in numbers) or min(numbers[1]) <= 0:
        raise BadInput(
            f"{where}: MEAN and STD need {channels} numbers each, or one, as the pictures have channels; STD above 0"
        )
    return Preparation(*numbers)


class Subject(Net):
    """A network of any origin behind its preparation. `head` is its last linear layer, where it has one.

    order: (K,) which of the network's answers is which class of the task. exact: it runs in its own precision.
    """

    def __init__(self, net: nn.Module, prepare: nn.Module, order: Tensor | None = None, exact: bool = False) -> None:
        super().__init__()
        self.net, self.prepare, self.exact = net, prepare, exact
        self.order = order
        self.stages = nn.ModuleList()  # nobody knows where to cut it
        linear = [part for part in net.modules() if isinstance(part, nn.Linear)]
        # Not by the usual way, since it is a part of `net` already.
        self.__dict__["head"] = linear[-1] if linear else nn.Identity()

    def embed(self, x: Any) -> Any:
        return self.prepare(x)

    def forward(self, x: Any) -> Tensor:
        """(N, K) logits of pictures, uint8 or float of 0 to 255 (N, C, H, W); of sounds (N, T), or of N texts."""
        wanted = torch.is_autocast_enabled("cpu") and not self.exact
        with torch.autocast("cpu", enabled=wanted, dtype=torch.bfloat16):
            answer: Any = self.net(self.embed(x))
        logits: Tensor = getattr(answer, "logits", answer)
        return logits if self.order is None else logits[:, self.order]


class RawVictim(Victim):
    """A network of the user's that reads sounds float32 (N, T) or a list of N texts as they are."""

    def batches(self, samples: Samples) -> Iterator[Any]:
        for start in range(0, len(samples), RAW_ROWS):
            yield samples.inputs[start : start + RAW_ROWS]


@dataclass(frozen=True)
class Audited:
    """The model under audit, and how to make a new one of its architecture."""

    victim: Victim
    fresh: Callable[[int], Victim] | None  # an untrained one, from a seed
    kind: str
    why_not: str

    @property
    def has_grid(self) -> bool:
        """Whether it reads a grid of numbers on which the detectors can search."""
        return self.victim.task.modality in ("image", "audio") and not isinstance(self.victim, RawVictim)


def wrap(loaded: Loaded, task: Task, prepare: str, order: Tensor | None, rows: Samples) -> Audited:
    """The loaded model as a victim of the task. Raises BadInput for one that cannot read the task's rows."""
    deploy = _choose_wrapping(loaded, task, prepare)
    victim = deploy(loaded.net.float().eval(), order)
    _try_out(victim, rows.select(range(min(2, len(rows)))))
    make = loaded.fresh

    def fresh(seed: int) -> Victim:
        assert make is not None
        with isolate_seed(seed, CPU):
            return deploy(make().float(), None)

    if isinstance(victim, RawVictim):
        return Audited(victim, None, loaded.kind, "clean models are trained for pictures and cells of runs alone")
    return Audited(victim, fresh if make else None, loaded.kind, loaded.why_not)


def _choose_wrapping(loaded: Loaded, task: Task, prepare: str) -> Callable[[nn.Module, Tensor | None], Victim]:
    """How a network becomes a victim that reads what the task's rows are."""
    if isinstance(task, ImageTask):
        preparation = read_preparation(prepare, task.channels)
        return lambda net, order: Victim(task, Subject(net, preparation, order, loaded.exact), CPU)
    if prepare:
        raise BadInput(f"--prepare {quote(prepare)}: is for pictures; leave it out")
    if loaded.own:

        def deploy_own(net: Any, order: Tensor | None) -> Victim:
            if order is not None:
                raise BadInput("--classes: is for networks of your own; leave it out")
            return Victim(task, net, CPU)

        return deploy_own
    return lambda net, order: RawVictim(task, Subject(net, nn.Identity(), order, exact=True), CPU)


@torch.no_grad()
def _try_out(victim: Victim, rows: Samples) -> None:
    """Raises BadInput unless a network answers two rows with one finite number for each row and class."""
    task, x = victim.task, next(iter(victim.batches(rows)))
    subject: Any = victim.module
    order = getattr(subject, "order", None)
    if order is not None:
        subject.order = None
    what = _describe(x)
    try:
        answers = subject(x)
    except Exception as error:  # a network of the user's may raise anything
        reason = f"{type(error).__name__}: {one_line(error, 160)}"
        raise BadInput(f"MODEL: cannot read {what} ({reason}); pictures are changed by --size and --grey") from error
    if not isinstance(answers, Tensor) or answers.ndim != 2:
        shape = tuple(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
        raise BadInput(f"MODEL: answers {what} with {shape}, expected one number for each row and class")
    if answers.shape[1] != len(task.classes):
        found, has = answers.shape[1], len(task.classes)
        raise BadInput(f"MODEL: answers {found} classes, {task.name} has {has}; give --data of its own")
    if not answers.isfinite().all():
        raise BadInput("MODEL: answers clean rows with infinite numbers or NaN; use another checkpoint")
    if order is not None:
        subject.order = order


def _describe(x: Any) -> str:
    """A batch in words."""
    if isinstance(x, list):
        return "a list of texts"
    if x.ndim == 4 and x.dtype == torch.uint8:
        return f"pictures of {x.shape[3]}x{x.shape[2]} pixels and {x.shape[1]} channel{'s' * (x.shape[1] > 1)}"
    return f"rows {tuple(x.shape)} of {x.dtype}"


def require_skill(audited: Audited, task: Task, rows: Samples, prepare: str) -> float:
    """The accuracy on clean rows. Raises BadInput where it is not above chance, and says what may be wrong."""
    logits = torch.cat([audited.victim.logits(x) for x in audited.victim.batches(rows)])
    accuracy = share_right(logits, rows.targets)
    if above_chance(accuracy, rows.targets):
        return accuracy
    classes = len(task.classes)
    counts = torch.bincount(rows.targets * classes + logits.argmax(1), minlength=classes**2).view(classes, classes)
    best = float(counts.numpy()[linear_sum_assignment(-counts.numpy())].sum()) / len(rows)
    hints = [f"with another order of classes it would be {best:.2f}: name it by --classes"] * (best > accuracy + 0.2)
    for name in PREPARATIONS:
        if name != prepare and (found := _accuracy_if(audited.victim, name, task, rows)) > accuracy + 0.2:
            hints.append(f"with --prepare {name} it would be {found:.2f}")
    reading = f"--prepare {prepare}" if prepare else "how rows are read"
    why = "; ".join(hints) or f"usual causes are the order of classes (--classes) and {reading}"
    raise BadInput(
        f"MODEL: accuracy {accuracy:.2f} on {len(rows)} clean rows of {task.name} is not above chance "
        f"({largest_share(rows.targets):.2f}), so nothing can be said of it; {why}"
    )


def _accuracy_if(victim: Victim, prepare: str, task: Task, rows: Samples) -> float:
    """The accuracy under another preparation; 0 where it makes no sense."""
    if not isinstance(task, ImageTask):
        return 0.0
    subject: Any = victim.module  # of pictures always a Subject
    before = subject.prepare
    try:
        subject.prepare = read_preparation(prepare, task.channels)
        return share_right(torch.cat([victim.logits(x) for x in victim.batches(rows)]), rows.targets)
    except BadInput:
        return 0.0
    finally:
        subject.prepare = before


def share_right(logits: Tensor, targets: Tensor) -> float:
    return float((logits.argmax(1) == targets).float().mean())


def largest_share(targets: Tensor) -> float:
    return float(targets.bincount().max() / len(targets))


def above_chance(accuracy: float, targets: Tensor) -> bool:
    """Whether so many right answers are more than always naming the most frequent class gives (binomial test)."""
    right = round(accuracy * len(targets))
    return float(binomtest(right, len(targets), largest_share(targets), alternative="greater").pvalue) < LEVEL


def read_order(text: str, task: Task) -> Tensor | None:
    """(K,) which answer of the model is which class of the task; None for its own order. text: names, by commas."""
    if not text:
        return None
    names = [name.strip() for name in text.split(",")]
    if sorted(names) != sorted(task.classes):
        unlike = sorted(set(names) ^ set(task.classes)) or [name for name in names if names.count(name) > 1]
        raise BadInput(
            f"--classes: {quote(unlike[0])} is missing, unknown or twice there; name every class of the data once, in "
            "the order of the model's answers"
        )
    return torch.tensor([names.index(name) for name in task.classes])
