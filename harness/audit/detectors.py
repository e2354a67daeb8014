"""The suite's detectors on one model, and how unusual what they find is, beside clean models or other classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from scipy import stats
from torch import Tensor

from defenses.base import Case, Defense
from defenses.inspection.mm_bd import MmBd
from defenses.inspection.neural_cleanse import NeuralCleanse, anomaly
from harness.audit.subject import Audited
from harness.cell.case import CellCase, Fitter
from harness.keys.seeds import derive
from tasks.base import Task
from tasks.deployed import Victim
from tasks.samples import Samples

FEWEST = 4  # classes: one, and three others that say what is usual
LARGEST_STEP = 50_000_000  # numbers that a step of a search may hold; a network needs some ten times as many
LEAST = 1e-6  # of a statistic whose logarithm is taken


@dataclass(frozen=True)
class Effort:
    """How long the detectors search. Shorter than their defaults: clean models are searched just as long."""

    detectors: tuple[Defense, ...] = (
        NeuralCleanse(clean_rows=100, starts=1, epochs=30, batch_size=20),
        MmBd(starts=10, steps=200),
    )


QUICK = Effort((NeuralCleanse(clean_rows=40, starts=1, epochs=12, batch_size=8), MmBd(starts=4, steps=40)))


def why_not(audited: Audited, effort: Effort, clean: Samples) -> str:
    """Why the detectors cannot search this network; "" if they can."""
    task = audited.victim.task
    if not audited.has_grid:
        return "its input is no grid of numbers that could be searched"
    if len(task.classes) < FEWEST:
        return f"{len(task.classes)} classes are too few to say which one is unusual; it takes {FEWEST}"
    row = task.encode(clean.select([0]), audited.victim.device)
    numbers = (
        row.numel()
        * len(task.classes)
        * max(d.batch_size if isinstance(d, NeuralCleanse) else getattr(d, "starts", 1) for d in effort.detectors)
    )
    if numbers > LARGEST_STEP:
        return f"one step would hold {numbers:,} numbers, for every class a batch; the most is {LARGEST_STEP:,}"
    return ""


@dataclass(frozen=True)
class Reading:
    """What one detector says of one model."""

    detector: str
    score: float  # its own: the anomaly index of neural_cleanse, -log10 p of mm_bd
    by_class: Tensor  # (K,) its statistic of every class, a logarithm, higher = worse
    pictures: dict[str, Tensor] = field(default_factory=dict)  # float (C, H, W) in [0, 1]


@dataclass
class Given:
    """In the place of the fitter of a cell: the model is there already, and nothing is trained on."""

    victim: Victim
    task: Task
    device: torch.device
    who: str = ""

    def __call__(self, samples: Samples, *, init: Victim | None = None, **ignored: Any) -> Victim:
        return init or self.victim


def inspect(detector: Defense, victim: Victim, clean: Samples, seed: int) -> Reading:
    """What a detector finds in a model, with clean rows alone. The model is not changed."""
    rng = torch.Generator().manual_seed(derive(seed, "inspect", detector.name))
    given = cast(Fitter, Given(victim, victim.task, victim.device, detector.name))
    case = CellCase(clean, clean, given, rng)
    if isinstance(detector, NeuralCleanse):
        return _cleanse(detector, case)
    detector.defend(case)
    margins = case.findings.saved["margins"]
    return Reading(detector.name, float(case.findings.model or 0.0), margins.double().clamp(min=LEAST).log())


def _cleanse(detector: NeuralCleanse, case: Case) -> Reading:
    """The smallest mask of every class; `defend` keeps that of the suspected class alone, and unlearns it."""
    x = case.task.encode(case.clean(detector.clean_rows), case.device).float()
    low, high = (0.0, 255.0) if case.task.modality == "image" else (float(x.min()), float(x.max()))
    x = (x - low) / (high - low)
    classes = len(case.task.classes)
    masks, patterns = detector.search(case.fit(case.train).module, x, low, high, classes, case.rng)
    norms = masks.sum((1, 2, 3)).detach().cpu()
    index, _ = anomaly(norms)
    found = {
        f"trigger_{label}": (mask * pattern).detach().cpu()
        for label, (mask, pattern) in enumerate(zip(masks, patterns))
    }
    return Reading(detector.name, index, -norms.double().clamp(min=LEAST).log(), found)


@dataclass(frozen=True)
class Calibrated:
    """A p value and the class that it is about. nulls: clean models behind it, 0 for the other classes alone."""

    detector: str
    score: float
    p: float
    target: int
    nulls: int
    adjusted: float = 1.0  # by Holm, over the detectors


def beside_models(seen: Reading, nulls: Sequence[Tensor]) -> Calibrated:
    """Against k clean models of the same architecture, whose statistics are (K,) each; k is 2 or more.

    Of every model, that of the user too, the largest lead over the k others in one class is taken, in standard
    deviations of these; p = (1 + how many clean models lead as far) / (k + 1). The k + 1 leads are exchangeable where
    the user's model is one more clean model, so p is exact, whatever the detector, and however unlike the classes.
    """
    table = torch.stack([seen.by_class, *nulls])  # (k + 1, K)
    leads = leave_one_out(table)
    most = leads.amax(1)
    p = (1 + int((most[1:] >= most[0]).sum())) / len(table)
    return Calibrated(seen.detector, seen.score, p, int(leads[0].argmax()), len(nulls))


def beside_shares(name: str, seen: Tensor, nulls: Sequence[Tensor]) -> Calibrated:
    """As `beside_models`, of what triggers do: shares (triggers, K) of rows; a lead is a difference of shares."""
    table = torch.stack([seen, *nulls]).double()  # (k + 1, triggers, K)
    total, k = table.sum(0), len(nulls)
    leads = table - (total - table) / k
    most = leads.amax((1, 2))
    p = (1 + int((most[1:] >= most[0]).sum())) / len(table)
    return Calibrated(name, float(most[0]), p, int(leads[0].amax(0).argmax()), k)


def leave_one_out(table: Tensor) -> Tensor:
    """(M, K) how far every model leads the mean of all others, in each class, in standard deviations of these."""
    rows = []
    for i in range(len(table)):
        others = torch.cat([table[:i], table[i + 1 :]])
        rows.append((table[i] - others.mean(0)) / others.std(0).clamp(min=LEAST))
    return torch.stack(rows)


def beside_classes(seen: Reading) -> Calibrated:
    """Against the model's own other classes, one class left out at a time (Grubbs 1950, one-sided).

    A weaker guarantee: p is right only where the classes of a clean model are alike, and their statistics normal in
    the logarithm. Classes of real data are not, so a clean model is suspected more often than p says.
    """
    x, k = seen.by_class, len(seen.by_class)
    leads = torch.empty(k, dtype=torch.float64)
    for c in range(k):
        others = torch.cat([x[:c], x[c + 1 :]])
        leads[c] = (x[c] - others.mean()) / (others.std().clamp(min=LEAST) * math.sqrt(1 + 1 / (k - 1)))
    target = int(leads.argmax())
    p = min(1.0, k * float(stats.t.sf(float(leads[target]), k - 2)))
    return Calibrated(seen.detector, seen.score, p, target, 0)


def smallest_p(nulls: int) -> float:
    """The least p value that so many clean models can give."""
    return 1 / (nulls + 1)


def models_needed(level: float, detectors: int) -> int:
    """The fewest clean models with which one of several detectors can reach this level after Holm's correction."""
    return math.ceil(round(detectors / level, 9)) - 1
