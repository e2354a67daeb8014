"""What a defender gets (`case`), and the memoised `fit` behind it."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from defenses.base import Defense
from defenses.controls.oracle import Oracle
from harness.cell import arguments
from harness.cell.arguments import change_recipe, named
from harness.cell.poison import Poisoned
from harness.cell.speedup import Speedup
from harness.cell.train import Loss, make_network, train_victim
from harness.keys.content import digest
from harness.keys.source import source_hash
from harness.store.folder import Store
from tasks.base import Recipe, Task, load_unsealed
from tasks.deployed import Victim
from tasks.samples import Samples

# The code that trains every victim, as harness.grid.grid.GRADING is the code that grades every cell.
TRAINING = ("harness.cell.train", "harness.cell.graphs", "harness.cell.dp", "harness.keys.seeds")
IN_MEMORY = 64  # victims that a fitter holds in memory; small networks
SECONDS = "tinydrop.seconds"  # beside a stored victim's weights: how long it was trained


@dataclass
class Fitter:
    """Trains victims of one task, each content once: it is taken from memory, from the store, or trained now."""

    task: Task
    store: Store
    device: torch.device
    seed: int
    speedup: Speedup = "none"
    who: str = ""  # the defense that it trains for, for error messages
    cell_seed: int | None = None  # of the cell, where `seed` is another one, such as a surrogate's
    fits: list[dict[str, Any]] = field(default_factory=list)  # one row per call: key, seconds, whether trained now
    sources: set[str] = field(default_factory=set)  # keys of the bodies that its victims started from
    memory: OrderedDict[str, dict[str, Tensor]] = field(default_factory=OrderedDict)  # weights and SECONDS by key

    def __call__(
        self,
        samples: Samples,
        *,
        init: Victim | None = None,
        seed: int | None = None,
        loss: Loss | None = None,
        **recipe_changes: Any,
    ) -> Victim:
        with named(self.who):
            arguments.check_fit(self.task, samples, init, seed, loss)
            recipe = change_recipe(self.task.recipe(), recipe_changes)
        seed = self.seed if seed is None else int(seed)
        init = init or self.pretrained(seed)
        key = self.key(samples, recipe, seed, init, loss)

        def train() -> dict[str, Tensor]:
            start = time.perf_counter()
            victim = train_victim(
                self.task, samples, recipe=recipe, seed=seed, device=self.device, init=init, loss=loss,
                speedup=self.speedup,
            )  # fmt: skip
            seconds = torch.tensor(time.perf_counter() - start, dtype=torch.float64)
            return {**victim.module.state_dict(), SECONDS: seconds}

        trained = False
        if key not in self.memory:
            self.memory[key], trained = self.store.load_or_make_tensors(key, train)
            if len(self.memory) > IN_MEMORY:
                self.memory.popitem(last=False)
        tensors = self.memory[key]
        self.fits.append({"key": key, "seconds": float(tensors[SECONDS]), "trained": trained})
        module = make_network(self.task, recipe, seed, self.device, init)
        module.load_state_dict({name: tensor for name, tensor in tensors.items() if name != SECONDS})
        return self.task.deploy(module.eval(), self.device)

    def pretrained(self, seed: int) -> Victim | None:
        """Where victims of a transfer-learning task start: a body trained on its source, a head of the seed's own.

        The task's `base_seed` says whether all seeds share one body. None for a task whose victims start from scratch.
        """
        source = self.task.source()
        if source is None:
            return None
        shared: int | None = getattr(self.task, "base_seed", 0)  # an option of the tasks that have a source
        own = self.seed if self.cell_seed is None else self.cell_seed
        fit = Fitter(source, self.store, self.device, own if shared is None else shared, self.speedup)
        body = fit(load_unsealed(source).train).module.state_dict()  # not load(): a defense may be running
        self.sources |= fit.used
        module = make_network(self.task, self.task.recipe(), seed, self.device, None)
        module.load_state_dict({k: v for k, v in body.items() if not k.startswith("head.")}, strict=False)
        return self.task.deploy(module.eval(), self.device)

    @property
    def used(self) -> frozenset[str]:
        """Keys of all artefacts behind the victims that it gave."""
        return frozenset(row["key"] for row in self.fits) | self.sources

    def key(self, samples: Samples, recipe: Recipe, seed: int, init: Victim | None, loss: Loss | None) -> str:
        """The content of a victim: everything that its weights depend on, as one hash."""
        deterministic = torch.are_deterministic_algorithms_enabled()
        return digest(
            "fit", source_hash(*TRAINING), self.task, samples, recipe, seed, init, loss,
            self.device.type, deterministic, self.speedup,
        )  # fmt: skip


@dataclass
class Findings:
    """What a defense reported. The harness reads it, never another plug-in."""

    train: Tensor | None = None
    flagged: Tensor | None = None
    model: float | None = None
    target: int | None = None
    saved: dict[str, Tensor] = field(default_factory=dict)
    clean_used: int = 0


class CellCase:
    """`defenses.base.Case` for one cell: all that it knows are the poisoned set, the reserve and a fitter."""

    def __init__(self, train: Samples, reserve: Samples, fitter: Fitter, rng: torch.Generator) -> None:
        self.train = train
        self.task = fitter.task
        self.fit = fitter
        self.device = fitter.device
        self.rng = rng
        self.findings = Findings()
        self._reserve = reserve
        self._who = fitter.who

    def clean(self, n: int) -> Samples:
        with named(self._who):
            n = arguments.read_count(n)
        rows = self._reserve.select(range(min(n, len(self._reserve))))
        self.findings.clean_used = max(len(rows), self.findings.clean_used)
        return rows

    def report(
        self,
        *,
        train: Tensor | None = None,
        flagged: Tensor | None = None,
        model: float | None = None,
        target: int | None = None,
    ) -> None:
        found, n = self.findings, len(self.train)
        with named(self._who):
            found.train = found.train if train is None else arguments.read_suspicion(train, n)
            found.flagged = found.flagged if flagged is None else arguments.read_flags(flagged, n)
            found.model = found.model if model is None else arguments.read_model_suspicion(model)
            found.target = found.target if target is None else arguments.read_class(target, self.task)

    def save(self, name: str, tensor: Tensor) -> None:
        with named(self._who):
            self.findings.saved[name] = arguments.read_finding(name, tensor)


class OracleCellCase(CellCase):
    """A case that also reveals which rows are poison, see `case_for`."""

    def __init__(
        self, train: Samples, reserve: Samples, fitter: Fitter, rng: torch.Generator, poisoned: Tensor
    ) -> None:
        super().__init__(train, reserve, fitter, rng)
        self.poisoned = poisoned  # (N,) bool


def case_for(defense: Defense, poisoned: Poisoned, reserve: Samples, fitter: Fitter, rng: torch.Generator) -> CellCase:
    """The case that a defense gets. The suite's own control `oracle` is told which rows are poison.

    No other class is, whatever its name: not a subclass of `oracle` and not a copy of its file.
    """
    fitter.who = defense.name
    if type(defense) is Oracle:
        return OracleCellCase(poisoned.train, reserve, fitter, rng, poisoned.mask)
    return CellCase(poisoned.train, reserve, fitter, rng)
