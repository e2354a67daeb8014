"""What a defender gets (`case`), and the memoised `fit` behind it."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from harness.cell.train import Loss, blank, train_victim
from harness.keys.content import digest
from harness.keys.source import source_hash
from harness.store.folder import Store
from tasks.base import Recipe, Task, load_unsealed
from tasks.deployed import Victim
from tasks.plugin import BadInput
from tasks.samples import Samples

TRAINING = (
    "harness.cell.train",
    "harness.cell.dp",
    "harness.keys.seeds",
)  # the code of every victim, as GRADING of a cell
PRETRAINING = 0  # seed of every source victim: all cells of a transfer task share one body
KEPT = 64  # victims held in memory per process; small networks


@dataclass
class Fitter:
    """Trains victims of one task, each content once: in memory, in the store, or now."""

    task: Task
    store: Store
    device: torch.device
    seed: int
    compiled: bool = False
    fits: list[dict[str, Any]] = field(default_factory=list)  # one row per call: key, seconds, cached
    sources: set[str] = field(default_factory=set)  # keys of the bodies that its victims started from
    memory: OrderedDict[str, tuple[dict[str, Tensor], float]] = field(default_factory=OrderedDict)

    def __call__(
        self,
        samples: Samples,
        *,
        init: Victim | None = None,
        seed: int | None = None,
        loss: Loss | None = None,
        **recipe_changes: Any,
    ) -> Victim:
        recipe = changed(self.task.recipe(), recipe_changes)
        seed = self.seed if seed is None else seed
        init = init or self.pretrained(seed)
        key = self.key(samples, recipe, seed, init, loss)

        def make() -> dict[str, Tensor]:
            start = time.perf_counter()
            victim = train_victim(
                self.task, samples, recipe=recipe, seed=seed, device=self.device, init=init, loss=loss,
                compiled=self.compiled,
            )  # fmt: skip
            seconds = torch.tensor(time.perf_counter() - start, dtype=torch.float64)
            return {**victim.module.state_dict(), "tinydrop.seconds": seconds}

        if key in self.memory:
            (state, seconds), made = self.memory[key], False
        else:
            tensors, made = self.store.load_or_make_tensors(key, make)
            state = {k: v for k, v in tensors.items() if k != "tinydrop.seconds"}
            seconds = float(tensors["tinydrop.seconds"])
            self.memory[key] = state, seconds
            while len(self.memory) > KEPT:
                self.memory.popitem(last=False)
        self.fits.append({"key": key, "seconds": seconds, "trained": made})
        module = blank(self.task, recipe, seed, self.device, init)
        module.load_state_dict(state)
        return self.task.deploy(module.eval(), self.device)

    def pretrained(self, seed: int) -> Victim | None:
        """Where victims of a transfer-learning task start: a body trained once on its source, a head of the seed's."""
        source = self.task.source()
        if source is None:
            return None
        fit = Fitter(source, self.store, self.device, PRETRAINING, self.compiled)
        body = fit(load_unsealed(source).train).module.state_dict()  # not load(): a defense may be running
        self.sources |= fit.used
        module = blank(self.task, self.task.recipe(), seed, self.device, None)
        module.load_state_dict({k: v for k, v in body.items() if not k.startswith("head.")}, strict=False)
        return self.task.deploy(module.eval(), self.device)

    @property
    def used(self) -> frozenset[str]:
        """Keys of all artefacts behind what it trained."""
        return frozenset(row["key"] for row in self.fits) | self.sources

    def key(self, samples: Samples, recipe: Recipe, seed: int, init: Victim | None, loss: Loss | None) -> str:
        deterministic = torch.are_deterministic_algorithms_enabled()
        return digest(
            "fit", source_hash(*TRAINING), self.task, samples, recipe, seed, init, loss,
            self.device.type, deterministic, self.compiled,
        )  # fmt: skip


def changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with other fields; raises BadInput for a field it does not have."""
    unknown = set(changes) - set(vars(recipe))
    if unknown:
        raise BadInput(f"fit: unknown recipe field {sorted(unknown)[0]!r}; valid: {', '.join(sorted(vars(recipe)))}")
    return replace(recipe, **changes)


@dataclass
class Findings:
    """What a defense reported: read by the harness, never by another plug-in."""

    train: Tensor | None = None
    flagged: Tensor | None = None
    model: float | None = None
    target: int | None = None
    saved: dict[str, Tensor] = field(default_factory=dict)
    clean_used: int = 0


class CellCase:
    """defenses.base.Case for one cell. It is built of the poisoned set, the reserve and a fitter, and knows no more."""

    def __init__(self, train: Samples, reserve: Samples, fitter: Fitter, rng: torch.Generator) -> None:
        self.train = train
        self.task = fitter.task
        self.fit = fitter
        self.device = fitter.device
        self.rng = rng
        self.findings = Findings()
        self._reserve = reserve

    def clean(self, n: int) -> Samples:
        if n < 1:
            raise BadInput(f"clean(n={n}): ask for 1 row or more")
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
        for name, value in {"train": train, "flagged": flagged}.items():
            if value is not None and (not isinstance(value, Tensor) or value.shape != (len(self.train),)):
                got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise BadInput(f"report({name}=): {got}, expected a tensor of shape ({len(self.train)},)")
        found = self.findings
        found.train = found.train if train is None else train.detach().float().cpu()
        found.flagged = found.flagged if flagged is None else flagged.detach().bool().cpu()
        found.model = found.model if model is None else float(model)
        found.target = found.target if target is None else int(target)

    def save(self, name: str, tensor: Tensor) -> None:
        if not name.isidentifier():
            raise BadInput(f"save(name={name!r}): use letters, digits and underscores")
        self.findings.saved[name] = tensor.detach().float().cpu().clone()


class CellOracleCase(CellCase):
    """The same, and the mask: built for the defense `oracle` alone."""

    poisoned: Tensor
