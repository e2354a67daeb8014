"""The nouns of the bench: plug-ins and their options, samples, tasks, and what a model answers.

Shapes, everywhere: N samples, C channels, H, W, T time, L tokens, D features, K classes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache, wraps
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, ParamSpec, TypeVar, dataclass_transform

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass
from torch import Tensor, nn

if TYPE_CHECKING:
    from tasks.deployed import Victim

ENCODED = 8192  # rows encoded at a time
T = TypeVar("T")
P = ParamSpec("P")
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Above0 = Annotated[float, Field(gt=0)]
AtLeast0 = Annotated[float, Field(ge=0)]


class BadInput(ValueError):
    """The user asked for something that cannot be: one line with the field, the value and what is valid."""


class NotApplicable(Exception):
    """A plug-in's idea makes no sense here (its cell is recorded as not applicable, with this reason)."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def options(cls: type[T]) -> type[T]:
    """Make a class's fields its validated, immutable, keyword-only options."""
    return pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(cls)  # type: ignore[return-value]


class Plugin:
    """Anything the registry finds by its file name. Options are the fields of a frozen dataclass.

    `modalities` says where the idea makes sense ("any": everywhere), `why_not` why it makes none elsewhere, `needs`
    names optional packages or assumptions, `paper` is the source. The registry reads them without running the file:
    keep them literal.
    """

    name: ClassVar[str] = ""
    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio")
    why_not: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    paper: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = cls.__module__.rpartition(".")[2]

    def options(self) -> dict[str, Any]:
        """Every option with its value, defaults included."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def files(self) -> list[str]:
        """Files and folders whose content counts like an option: those that options name."""
        return [v for v in self.options().values() if isinstance(v, str) and os.path.exists(v)]


@dataclass(frozen=True, eq=False)
class Samples:
    """Raw rows as a person would see, hear or read them; nothing is normalised or tokenised here.

    inputs: image uint8 (N, C, H, W); audio float32 (N, T) in [-1, 1]; text a list of N str.
    targets: int64 (N,). ids: int64 (N,), stable over every selection.
    """

    inputs: Tensor | list[str]
    targets: Tensor
    ids: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, rows: Tensor | Sequence[int]) -> Samples:
        """The rows named by a boolean mask (N,) or by positions, in that order."""
        rows = torch.as_tensor(rows)
        rows = rows.nonzero().flatten() if rows.dtype == torch.bool else rows.long()
        return Samples(take(self.inputs, rows), self.targets[rows], self.ids[rows])

    def drop(self, mask: Tensor) -> Samples:
        """Without the rows where mask (N,) is true."""
        return self.select(~mask)

    def positions(self, ids: Tensor) -> Tensor:
        """Where each id stands."""
        order = self.ids.argsort()
        at = torch.searchsorted(self.ids[order], ids).clamp(max=len(self) - 1)
        found = order[at]
        if not torch.equal(self.ids[found], ids):
            raise KeyError(f"ids not among these samples: {ids[self.ids[found] != ids].tolist()}")
        return found

    def replace(self, positions: Tensor, rows: Samples) -> Samples:
        """With other inputs and targets at these positions; the ids stay those of the rows replaced."""
        inputs = put(self.inputs, positions, rows.inputs)
        return Samples(inputs, self.targets.index_copy(0, positions, rows.targets), self.ids)

    def append(self, rows: Samples) -> Samples:
        inputs = join([self.inputs, rows.inputs])
        return Samples(inputs, torch.cat([self.targets, rows.targets]), torch.cat([self.ids, rows.ids]))

    def with_inputs(self, inputs: Tensor | list[str]) -> Samples:
        return replace(self, inputs=inputs)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of inputs and targets, in order."""
        h = hashlib.sha256(self.targets.numpy().tobytes())
        if isinstance(self.inputs, list):
            for text in self.inputs:
                h.update(text.encode("utf-8", "surrogatepass") + b"\0")
        else:
            h.update(f"{self.inputs.dtype}{tuple(self.inputs.shape)}".encode())
            h.update(self.inputs.contiguous().numpy().tobytes())
        return h.hexdigest()


def take(inputs: Tensor | list[str], rows: Tensor) -> Tensor | list[str]:
    return [inputs[i] for i in rows.tolist()] if isinstance(inputs, list) else inputs[rows]


def put(inputs: Tensor | list[str], rows: Tensor, new: Tensor | list[str]) -> Tensor | list[str]:
    if isinstance(inputs, list):
        out = list(inputs)
        for at, text in zip(rows.tolist(), new, strict=True):
            out[at] = text
        return out
    return inputs.index_copy(0, rows, new)  # type: ignore[arg-type]


def join(parts: Sequence[Tensor | list[str]]) -> Tensor | list[str]:
    if isinstance(parts[0], list):
        return [text for part in parts for text in part]
    return torch.cat(list(parts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Splits:
    """train: the pool an attacker poisons. test: graded on. reserve: the only clean data a defense may ever touch."""

    train: Samples
    test: Samples
    reserve: Samples


@dataclass(frozen=True)
class Challenge:
    """What the attacker later misuses: inputs, the answer wanted for each, and the true one.

    Of a generative task: requests, and what shall come of each (a class, a text, or a template (C, ...) to be found in
    it); there is no truth. `plain` and `near` are the same requests without the trigger, and with one that is only
    similar: neither may give what is wanted.
    """

    inputs: Samples
    wanted: Tensor | list[str]  # N
    truth: Tensor | None = None  # (N,)
    plain: Samples | None = None  # N
    near: Samples | None = None  # N


@dataclass(frozen=True)
class Outputs:
    """A deployed model's answers. suspicion: higher = worse. radius: certified number of poisons withstood.

    content: what a generative model made, N images, sounds or texts as in `Samples`. Its scores are its task's own.
    """

    scores: Tensor  # (N, K) probabilities or votes, float32 on the CPU
    abstained: Tensor  # (N,) bool
    content: Tensor | list[str] | None = None
    suspicion: Tensor | None = None  # (N,) float32
    radius: Tensor | None = None  # (N,) int64

    @property
    def answers(self) -> Tensor:
        """(N,) the class answered, -1 where the model abstained."""
        return torch.where(self.abstained, -1, self.scores.argmax(1))


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
        """What the victim reads: a tensor of N rows on the device."""
        raise NotImplementedError(f"{type(self).__name__} must define encode()")

    def rows(self, samples: Samples, device: torch.device) -> tuple[Tensor, Tensor]:
        """What a victim is trained on, on the device: encoded rows (M, ...) and targets (M,); here one for a sample."""
        starts = range(0, len(samples), ENCODED)
        parts = [samples.select(range(at, min(at + ENCODED, len(samples)))) for at in starts]
        return torch.cat([self.encode(part, device) for part in parts]), samples.targets.to(device)

    def deploy(self, module: Any, device: torch.device) -> Victim:
        """The model that a trained network is."""
        from tasks.deployed import Victim

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

        Raises PermissionError while an attack or a defense runs: a defense sees `case.train` and `case.clean(n)`, an
        attack `scene.train`, and no other data.
        """
        return _load(self)

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
def _load(task: Task) -> Splits:
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
