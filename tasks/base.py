"""A task: a dataset, a victim, how it is trained, and who judges attacks. Shapes are those of `tasks.samples`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.caches import cached
from tasks.deployed import Victim
from tasks.files import data_folder, fingerprint, group_parts, named_files, published_files, read_from
from tasks.modality import Modality
from tasks.plugin import Above0, AtLeast0, BadInput, Count, Plugin, Positive, options
from tasks.samples import Challenge, Outputs, Samples, Splits
from tasks.sources import deal_sources
from tasks.splits import Draw, draw_balanced, draw_reserve, require_classes
from tasks.validate import check_read

ENCODED = 8192  # rows encoded at a time
T = TypeVar("T")
P = ParamSpec("P")


@dataclass
class Batch:
    """A batch of encoded training data on the device, as a loss gets it."""

    x: Tensor  # (B, ...) encoded and augmented
    y: Tensor  # (B,) classes or (B, K) soft labels
    rows: Tensor  # (B,) positions in the samples passed to fit
    rng: torch.Generator  # on the device
    progress: float  # 0 at the first step, 1 at the last


@options
class Recipe:
    """How a victim is trained. A task gives its own recipe; a defense changes single fields through `case.fit`."""

    epochs: Positive = 10
    batch_size: Positive = 128
    lr: Above0 = 3e-3  # peak of the one-cycle schedule
    weight_decay: AtLeast0 = 0.05
    optimizer: Literal["adamw", "sgd"] = "adamw"  # momentum .9, which one_cycle moves between .95 and .85 (beta1 too)
    schedule: Literal["one_cycle", "constant"] = "one_cycle"
    augment: bool = True
    frozen: Literal["none", "body"] = "none"  # "body": only the head is trained
    dp_clip: Above0 | None = None  # per-sample gradient norm; None trains without privacy
    dp_noise: AtLeast0 = 0.0  # noise multiplier, relative to dp_clip


_sealed: ContextVar[bool] = ContextVar("sealed", default=False)


@contextmanager
def sealed(closed: bool = True) -> Iterator[None]:
    """While an attack or a defense runs, no task gives out its data.

    So the test set is out of reach for both, and the clean training set for a defense.
    """
    token = _sealed.set(closed)
    try:
        yield
    finally:
        _sealed.reset(token)


def refuse_while_sealed(read: Callable[P, T]) -> Callable[P, T]:
    """Makes a function that reads data raise PermissionError while an attack or a defense runs."""

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
class Task(Plugin, Modality):
    """A dataset, a victim family, a utility metric and a judge of attack success.

    A task writes `read`, `model` and `encode`; `load` is shared. `augment`, `loss`, `utility` and `judge` are those of
    classification and may be overridden.
    """

    classes: ClassVar[tuple[str, ...]] = ()
    dataset: ClassVar[str] = ""  # Hub id, or "embedded"
    revision: ClassVar[str] = ""
    folder: ClassVar[str] = ""  # of the dataset in TINYDROP_DATA
    licence: ClassVar[str] = ""
    rate: ClassVar[int] = 0  # audio: samples per second
    clean_metric: ClassVar[str] = "accuracy"  # the name of what `utility` measures
    columns: ClassVar[int | None] = None  # of the scores of a generative model's answers; None: any number
    # How the reserve is drawn. Published tasks keep the balanced one that their results were measured with, in which
    # classes are alike; of a user's own files, where a class may be rare, it is like the training set.
    reserve_draw: ClassVar[Draw] = "balanced"

    train_size: Positive | None = None  # rows, balanced over classes and drawn with subset_seed; None takes all
    test_size: Positive | None = None
    reserve_size: Positive = 200  # clean rows of the training split that are set aside for defenders
    # Who delivers the training rows: nobody knows, those that the data names ("real"), or so many, dealt out at random.
    data_sources: Positive | Literal["real"] | None = None
    attacker_sources: Positive = 1  # that the attacker holds, sees and poisons; only where `data_sources` is set
    subset_seed: Count = 0  # decides which rows train_size, test_size and reserve_size take
    epochs: Positive = 10
    batch_size: Positive = 128
    lr: Above0 = 3e-3  # peak learning rate
    weight_decay: AtLeast0 = 0.05
    augmentation: Literal["none", "standard", "strong"] = "standard"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "read" in vars(cls):
            cls.read = refuse_while_sealed(cls.read)  # type: ignore[method-assign]

    def read(self) -> tuple[Samples, Samples]:
        """The published training and test split, as raw inputs."""
        raise NotImplementedError(f"{type(self).__name__} must define read()")

    def files(self) -> list[str]:
        """What the options name, and what is read of the dataset's folder in TINYDROP_DATA; also of tasks behind it."""
        folder = data_folder(self.folder)
        found = [*super().files(), *(published_files(folder) if folder else [])]
        for other in (self.source(), self.referee()):
            found += other.files() if other is not None and other != self else []
        return list(dict.fromkeys(found))

    def describe_choices(self, train: Samples) -> tuple[str, ...]:
        """What was decided for the user in reading the data, one sentence each. train: the training set of `load`."""
        return ()

    def model(self) -> nn.Module:
        """A fresh victim (see tasks.net.Net), initialised from torch's current random state."""
        raise NotImplementedError(f"{type(self).__name__} must define model()")

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        """Samples as the victim reads them: a tensor of N rows on the device.

        Encoding depends on the task and never on the victim or its poison: a tokenizer, say, is trained on the task's
        clean training split, since in practice it is public and older than the poison.
        """
        raise NotImplementedError(f"{type(self).__name__} must define encode()")

    def rows(self, samples: Samples, device: torch.device) -> tuple[Tensor, Tensor]:
        """The training data of a victim, on the device: encoded rows (M, ...) and targets (M,); here one per sample."""
        starts = range(0, len(samples), ENCODED)
        parts = [samples.select(range(at, min(at + ENCODED, len(samples)))) for at in starts]
        return torch.cat([self.encode(part, device) for part in parts]), samples.targets.to(device)

    def deploy(self, module: Any, device: torch.device) -> Victim:
        """The deployable model around a trained network."""
        return Victim(self, module, device)

    def source(self) -> Task | None:
        """For transfer learning: the task that trains the body which the victims of this one start from."""
        return None

    def describe_base(self) -> tuple[str, ...]:
        """A warning where victims of all seeds start from one pre-trained network, which intervals do not reflect."""
        seed = getattr(self, "base_seed", None)
        if self.source() is None or seed is None:
            return ()
        return (warn_of_base(f"base_seed={seed}"),)

    def referee(self) -> Task | None:
        """The task whose clean victim judges what victims generate; None where answers are compared with labels."""
        return None

    @property
    def conditions(self) -> int:
        """The number of values that the target of a training row may take: 0 to this, exclusive."""
        return len(self.classes)

    def requests(self, test: Samples) -> Samples:
        """The requests that measure utility, one for each row of the clean test set."""
        return test

    @refuse_while_sealed
    def load(self) -> Splits:
        """The training set, the test set and the reserve. They are disjoint and read once per process.

        A task writes `read`, so that subsets, reserve and the refusal below are the same for all tasks.
        Raises PermissionError while an attack or a defense runs: a defense sees `case.train` and `case.clean(n)`, an
        attack `scene.train`, and no other data.
        """
        return load_unsealed(self)

    def recipe(self) -> Recipe:
        shared = {f.name for f in fields(Recipe)} & {f.name for f in fields(self)}
        return Recipe(**{k: getattr(self, k) for k in shared}, augment=self.augmentation != "none")

    def augment(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """A batch of encoded inputs, on the device, after random changes that keep the labels."""
        return x

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """(B,) cross-entropy; targets may be soft labels (B, K)."""
        return F.cross_entropy(module(batch.x).float(), batch.y, reduction="none")

    def utility(self, outputs: Outputs, test: Samples, referee: Victim | None = None) -> float:
        """Accuracy on the clean test set; an abstention is an error."""
        return (outputs.answers == test.targets).float().mean().item()

    def extra_metrics(self, outputs: Outputs, test: Samples, referee: Victim | None = None) -> dict[str, float]:
        """Further metrics of clean test data, by name."""
        return {}

    def judge(self, outputs: Outputs, challenge: Challenge, referee: Victim | None = None) -> Tensor:
        """(N,) bool: whether the attacker got what was wanted. Abstentions count against the attacker."""
        assert isinstance(challenge.wanted, Tensor)
        return outputs.answers == challenge.wanted

    def sensitivity(self, outputs: Outputs, challenge: Challenge, referee: Victim | None = None) -> dict[str, Tensor]:
        """Verdicts (N,) under other thresholds of the judge, by name; {} for a judge without a threshold."""
        return {}


def warn_of_base(which: str) -> str:
    """What is said where victims of all seeds start from one pre-trained network."""
    return f"all seeds start from one pre-trained network ({which}): intervals are given that one"


def copy_facts(cls: Any, *names: str) -> None:
    """Gives a task class that is made of a published task, `cls.published`, these class attributes of it."""
    published = cls.published() if hasattr(cls, "published") else None
    for name in names:
        if hasattr(published, name):
            setattr(cls, name, getattr(published, name))


def load_unsealed(task: Task) -> Splits:
    """`Task.load` for the harness and for tasks themselves, which may read data while an attack or a defense runs.

    Once per process, and again when the task's files have changed.
    """
    splits: Splits = _load(task, fingerprint(named_files(task)))
    return splits


@cached(maxsize=3)
def _load(task: Task, content: str) -> Splits:
    with sealed(False):  # the harness may read: it makes victims and tokenizers while a defense runs
        train, test = check_read(task, _read_declared(task))
    if fingerprint(named_files(task)) != content:
        raise BadInput(f"{task.name}: its files changed while they were read; run the same command again")
    names = task.classes
    train_from, test_from = name_source(task, "path"), name_source(task, "test_path", "path")
    require_classes(train.targets, test.targets, names, train_from, test_from, not task.options().get("test_path"))
    train = _shuffle(train, task)  # the published order is often sorted by class
    chosen, notes = draw_reserve(train.targets, task.reserve_size, names, task.reserve_draw, train_from)
    train, reserve = train.drop(chosen), train.select(chosen)
    if task.train_size is not None:
        where = f"what the reserve leaves of {train_from}"
        chosen, more = draw_balanced(train.targets, task.train_size, names, "train_size", where)
        train, notes = train.select(chosen), notes + more
    if task.test_size is not None:
        test = _shuffle(test, task)
        where = f"the test set of {test_from}"
        chosen, more = draw_balanced(test.targets, task.test_size, names, "test_size", where)
        test, notes = test.select(chosen), notes + more
    train, test, reserve = name_sources(task, train), replace(test, sources=None), replace(reserve, sources=None)
    return Splits(train, test, reserve, notes + task.describe_choices(train) + task.describe_base())


def name_sources(task: Task, train: Samples) -> Samples:
    """The training rows with the sources that the task's option `data_sources` asks for. Raises BadInput."""
    if task.data_sources is None:
        return replace(train, sources=None)
    if task.data_sources != "real":
        return replace(train, sources=deal_sources(train.targets, task.data_sources, task.subset_seed))
    if train.sources is None:
        raise BadInput(f"{task.name}.data_sources='real': its data does not say who delivered a row; give a number")
    return train


def _read_declared(task: Task) -> object:
    """What `read` gives. Raises BadInput for a folder of TINYDROP_DATA that the task does not name."""
    before = set(read_from)
    read_from.clear()
    try:
        found = task.read()
        if unnamed := read_from - {Path(top).resolve() for top in group_parts(task.files())}:
            name = min(unnamed).name
            raise BadInput(f"{task.name}: reads the folder {name!r} of TINYDROP_DATA; set folder: ClassVar = {name!r}")
    finally:
        read_from.update(before)
    return found


def _shuffle(samples: Samples, task: Task) -> Samples:
    return samples.select(torch.randperm(len(samples), generator=torch.Generator().manual_seed(task.subset_seed)))


def name_source(task: Task, *fields: str) -> str:
    """Where a task's rows are from, for an error message: the first of these options that is set, or else the task."""
    options = task.options()
    return next((f"{task.name}.{field}={options[field]!r}" for field in fields if options.get(field)), task.name)
