"""What a task is: a dataset, a victim, how it is trained, and who judges it. Shapes are those of `tasks.samples`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from functools import lru_cache, wraps
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.deployed import Victim
from tasks.plugin import Above0, AtLeast0, BadInput, Count, Plugin, Positive, options
from tasks.samples import Challenge, Outputs, Samples, Splits

ENCODED = 8192  # rows encoded at a time
T = TypeVar("T")
P = ParamSpec("P")


@dataclass
class Batch:
    """A slice of encoded training data on the device, as a loss sees it."""

    x: Tensor  # (B, ...) encoded and augmented
    y: Tensor  # (B,) classes or (B, K) soft labels
    rows: Tensor  # (B,) positions in the samples handed to fit
    rng: torch.Generator  # on the device
    progress: float  # 0 at the first step, 1 at the last


@options
class Recipe:
    """How a victim is trained. A task says its own; a defense changes single fields through `case.fit`."""

    epochs: Positive = 10
    batch_size: Positive = 128
    lr: Above0 = 3e-3  # peak of the one-cycle schedule
    weight_decay: AtLeast0 = 0.05
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    augment: bool = True
    frozen: Literal["none", "body"] = "none"  # "body": only the head is trained
    dp_clip: Above0 | None = None  # per-sample gradient norm; None trains without privacy
    dp_noise: AtLeast0 = 0.0  # noise multiplier, relative to dp_clip


_sealed: ContextVar[bool] = ContextVar("sealed", default=False)


@contextmanager
def sealed(closed: bool = True) -> Iterator[None]:
    """While an attack or a defense runs, no task gives out its data: the test set stays out of reach, to a defense the
    clean training set too."""
    token = _sealed.set(closed)
    try:
        yield
    finally:
        _sealed.reset(token)


def refused_while_sealed(read: Callable[P, T]) -> Callable[P, T]:
    """What reads data: raises PermissionError while an attack or a defense runs."""

    @wraps(read)
    def reader(*args: P.args, **kwargs: P.kwargs) -> T:
        if _sealed.get():
            raise PermissionError(
                "a plug-in may not load data while it runs: a defense may use case.train and case.clean(n), "
                "an attack scene.train"
            )
        return read(*args, **kwargs)

    return reader


@options
class Task(Plugin):
    """A dataset, a victim family, a utility metric and a judge of attack success.

    A task writes `read`, `model` and `encode`; `load` is shared. Classification's `augment`, `loss`, `utility` and
    `judge` are given here and may be overridden.
    """

    modality: ClassVar[str] = ""
    classes: ClassVar[tuple[str, ...]] = ()
    dataset: ClassVar[str] = ""  # Hub id, or "embedded"
    revision: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    rate: ClassVar[int] = 0  # audio: samples per second
    clean_metric: ClassVar[str] = "accuracy"  # what `utility` is called

    train_size: Positive | None = None  # rows, class-balanced and seeded; None takes all
    test_size: Positive | None = None
    reserve_size: Positive = 200  # clean rows set aside for defenders, out of the training split
    subset_seed: Count = 0  # which rows train_size, test_size and reserve_size take
    epochs: Positive = 10
    batch_size: Positive = 128
    lr: Above0 = 3e-3  # peak learning rate
    weight_decay: AtLeast0 = 0.05
    augmentation: Literal["none", "standard", "strong"] = "standard"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "read" in vars(cls):
            cls.read = refused_while_sealed(cls.read)  # type: ignore[method-assign]

    def read(self) -> tuple[Samples, Samples]:
        """The published train and test split, raw."""
        raise NotImplementedError(f"{type(self).__name__} must define read()")

    def model(self) -> nn.Module:
        """A fresh victim (see tasks.models.net.Net), initialised from torch's current random state."""
        raise NotImplementedError(f"{type(self).__name__} must define model()")

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        """What the victim reads: a tensor of N rows on the device.

        Encoding depends on the task and never on the victim or its poison: a tokenizer, say, is trained on the task's
        clean training split, since in practice it is public and older than the poison.
        """
        raise NotImplementedError(f"{type(self).__name__} must define encode()")

    def rows(self, samples: Samples, device: torch.device) -> tuple[Tensor, Tensor]:
        """What a victim is trained on, on the device: encoded rows (M, ...) and targets (M,); here one for a sample."""
        starts = range(0, len(samples), ENCODED)
        parts = [samples.select(range(at, min(at + ENCODED, len(samples)))) for at in starts]
        return torch.cat([self.encode(part, device) for part in parts]), samples.targets.to(device)

    def deploy(self, module: Any, device: torch.device) -> Victim:
        """The model that a trained network is."""
        return Victim(self, module, device)

    def source(self) -> Task | None:
        """Transfer learning: the task on whose training set the body was trained that this one's victims start from."""
        return None

    def referee(self) -> Task | None:
        """The task whose clean victim judges what this one's victims make; None where answers meet labels."""
        return None

    @property
    def conditions(self) -> int:
        """The values that a training row's target may take: 0 to this, exclusive."""
        return len(self.classes)

    def requests(self, test: Samples) -> Samples:
        """What a model is asked to show its utility, one for each row of the clean test set."""
        return test

    @refused_while_sealed
    def load(self) -> Splits:
        """Train, test and reserve, disjoint; read once per process.

        A task writes `read`, so that subsets, reserve and the refusal below are the same for all tasks.
        Raises PermissionError while an attack or a defense runs: a defense sees `case.train` and `case.clean(n)`, an
        attack `scene.train`, and no other data.
        """
        return load_unsealed(self)

    def recipe(self) -> Recipe:
        shared = {f.name for f in fields(Recipe)} & {f.name for f in fields(self)}
        return Recipe(**{k: getattr(self, k) for k in shared}, augment=self.augmentation != "none")

    def on_grid(self, inputs: Tensor) -> Tensor:
        """Raw inputs on the values that clean data takes, where those are coarser than the type can hold."""
        return inputs

    def augment(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Random label-preserving changes of a batch of encoded inputs, on the device."""
        return x

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """(B,) cross-entropy; soft labels (B, K) are allowed."""
        return F.cross_entropy(module(batch.x).float(), batch.y, reduction="none")

    def utility(self, outputs: Outputs, test: Samples, referee: Victim | None = None) -> float:
        """Clean accuracy on everything in the test set; an abstention is an error."""
        return (outputs.answers == test.targets).float().mean().item()

    def further(self, outputs: Outputs, test: Samples, referee: Victim | None = None) -> dict[str, float]:
        """Other clean metrics by name."""
        return {}

    def judge(self, outputs: Outputs, challenge: Challenge, referee: Victim | None = None) -> Tensor:
        """(N,) bool: did the attacker get what was asked for? Abstentions count against the attacker."""
        assert isinstance(challenge.wanted, Tensor)
        return outputs.answers == challenge.wanted

    def sensitivity(self, outputs: Outputs, challenge: Challenge, referee: Victim | None = None) -> dict[str, Tensor]:
        """The judge's verdicts (N,) under other thresholds, by name, where it has one."""
        return {}


@lru_cache(maxsize=3)
def load_unsealed(task: Task) -> Splits:
    """As `Task.load`, for the harness and for tasks themselves, which may read while an attack or a defense runs."""
    with sealed(False):  # the harness may: victims and tokenizers are made of published data while a defense runs
        train, test = task.read()
    k = len(task.classes)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(task.subset_seed))
    train = train.select(order)  # no meaning in the order: the published one is often sorted by class
    reserve_rows = balanced(train.targets, task.reserve_size, k, "reserve_size", f"{task.name}'s training split")
    rest = train.drop(reserve_rows)
    size = task.train_size
    kept = (
        rest if size is None else rest.select(balanced(rest.targets, size, k, "train_size", "what the reserve leaves"))
    )
    if task.test_size is not None:
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(task.subset_seed))
        test = test.select(order)
        test = test.select(balanced(test.targets, task.test_size, k, "test_size", f"{task.name}'s test split"))
    return Splits(kept, test, train.select(reserve_rows))


def balanced(targets: Tensor, size: int, k: int, field: str, where: str) -> Tensor:
    """(N,) mask of `size` rows, the first of each class, classes as equal as the data allows."""
    if size > len(targets):
        raise BadInput(f"{field}={size}: {where} has {len(targets)} rows")
    rank = torch.zeros_like(targets)
    for c in range(k):
        rank[targets == c] = torch.arange(int((targets == c).sum()))
    # Filling rank by rank takes one row of every class that still has one: balanced until a class runs dry.
    first = (rank * k + targets).argsort()[:size]
    return torch.zeros(len(targets), dtype=torch.bool).index_fill(0, first, True)
