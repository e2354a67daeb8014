"""Vetting training data: routine checks of every row and every source, at a stated rate of false alarms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from defenses.base import Defense
from defenses.filtering.confident_learning import ConfidentLearning
from defenses.filtering.dedup import Dedup
from defenses.filtering.frequency import Frequency
from defenses.filtering.outlier import Outlier
from defenses.filtering.perplexity import Perplexity
from defenses.filtering.spectral_signatures import SpectralSignatures
from defenses.sources import permutation_p, savage_scores, suspicion_of
from harness.cell.case import CellCase, Fitter
from harness.console import expand_home, quote
from harness.plugins.registry import create
from harness.report import compare
from harness.store.folder import Store
from tasks.base import Task
from tasks.plugin import BadInput
from tasks.samples import Samples
from tasks.sources import list_sources

DRAWS = 9999  # permutations of rows between sources
CHECKS: dict[str, Callable[[], Defense]] = {
    "outlier": Outlier, "dedup": Dedup, "confident_learning": lambda: ConfidentLearning(classifier="logistic"),
    "frequency": Frequency, "perplexity": Perplexity,
}  # fmt: skip
READS_CLEAN = ("frequency", "perplexity")  # learn what clean rows are like, so they need trusted ones
VICTIM = "spectral_signatures"  # needs a trained victim


@dataclass(frozen=True)
class Check:
    """What one check says. p: (N,) of each row by the trusted rows, nan without them; flagged: (N,) bool."""

    name: str
    suspicion: Tensor
    flagged: Tensor
    p: Tensor
    expected: float  # rows flagged of clean data as large; nan where nobody knows
    excess: float  # p value of so many flagged rows; nan where nobody knows
    sources: dict[int, float]  # p value of each source, adjusted over all sources and checks


@dataclass(frozen=True)
class Vetted:
    """The rows in the order in which they were read, and what every check says of them."""

    rows: Samples
    trusted: int  # rows that give the false-alarm rate
    checks: list[Check]
    left_out: dict[str, str]  # checks that were not run, and why
    sources: tuple[str, ...]  # names
    level: float

    @property
    def quarantined(self) -> Tensor:
        """(N,) bool: rows that a check flags more of than chance does, and all rows of a source that stands out."""
        found = torch.zeros(len(self.rows), dtype=torch.bool)
        for check in self.checks:
            if check.excess <= self.level / len(self.checks):
                found |= check.flagged
        if self.accused:
            assert self.rows.sources is not None
            found |= torch.isin(self.rows.sources, torch.tensor(sorted(self.accused)))
        return found

    @property
    def accused(self) -> dict[int, str]:
        """The sources that stand out, and the check that says it most surely."""
        found: dict[int, str] = {}
        for check in sorted(self.checks, key=lambda check: min(check.sources.values(), default=1.0)):
            for source, p in check.sources.items():
                if p <= self.level:
                    found.setdefault(source, check.name)
        return found


def open_rows(path: str, text: str, label: str, source: str) -> tuple[Task, Samples]:
    """The task that reads a CSV file of texts, or a folder of pictures or recordings, and all of its rows."""
    place = expand_home(path)
    if place.is_file():
        columns = {"text_column": text, "label_column": label, "source_column": source}
        task: Any = create("tasks", "csv_text", {"path": path, **columns, "data_sources": "real" if source else None})
    elif place.is_dir():
        if source:
            raise BadInput(f"--source {quote(source)}: a folder has no columns; only a CSV file can name its sources")
        sounds = any(place.glob("*/*.wav")) or any(place.glob("*/*.flac"))
        task = create("tasks", "audio_folder" if sounds else "image_folder", {"path": path})
    else:
        raise BadInput(f"DATA {quote(path)}: no such file or folder")
    train, test = task.read()
    rows = train.append(test)
    return task, rows.select(rows.ids.argsort())


def vet(
    task: Task, rows: Samples, trusted: Samples | None, rate: float, level: float, seed: int, store: Store,
    victim: bool = False, step: Callable[[str], None] = lambda name: None,
) -> Vetted:  # fmt: skip
    """Run the checks. trusted: clean rows of the same kind: half of them show what clean rows are like to the checks
    that learn it, half are checked along with the others and give the threshold that a share `rate` of clean rows
    exceeds. level: of the tests of sources, and of the number of flagged rows; Holm-corrected.
    """
    reference, calibration = split_trusted(trusted)
    names = [*CHECKS, *([VICTIM] if victim else [])]
    checks, left_out = [], {}
    both = rows if calibration is None else append_unknown(rows, calibration)
    for name in names:
        make = CHECKS.get(name, SpectralSignatures)
        plugin: Any = make()
        if not {task.modality, "any"} & set(plugin.modalities):
            left_out[name] = plugin.why_not
        elif name in READS_CLEAN and reference is None:
            left_out[name] = "needs trusted rows"
        else:
            step(name)
            fitter = Fitter(task, store, torch.device("cpu"), seed)
            case = CellCase(both, rows if reference is None else reference, fitter, _rng(seed))
            suspicion = suspicion_of(make, case)
            checks.append(judge(name, suspicion[: len(rows)], suspicion[len(rows) :], rate))
    tested = test_sources(checks, rows, seed)
    names_of = tuple(getattr(task, "source_names", ())) if rows.sources is not None else ()
    return Vetted(rows, 0 if calibration is None else len(calibration), tested, left_out, names_of, level)


def judge(name: str, suspicion: Tensor, clean: Tensor, rate: float) -> Check:
    """A check of N rows by the suspicion of C clean ones; without any, the most suspicious share is only listed.

    The threshold is the k-th largest of the clean ones, k = rate * (C + 1) rounded down. Of N clean rows more than so
    many exceed it as a beta-binomial distribution says, which knows that the threshold was estimated.
    """
    n, c = len(suspicion), len(clean)
    k = int(rate * (c + 1))
    if not k:
        flagged = torch.zeros(n, dtype=torch.bool)
        flagged[suspicion.topk(max(1, int(rate * n))).indices] = True
        unknown = float("nan")
        return Check(name, suspicion, flagged, torch.full((n,), unknown), unknown, unknown, {})
    ordered = clean.double().sort().values
    p = (1 + c - torch.searchsorted(ordered, suspicion.double())).double() / (c + 1)
    flagged = suspicion > ordered[c - k]
    chance = stats.betabinom(n, k, c + 1 - k)
    return Check(name, suspicion, flagged, p, float(chance.mean()), float(chance.sf(int(flagged.sum()) - 1)), {})


def test_sources(checks: list[Check], rows: Samples, seed: int) -> list[Check]:
    """The same checks with a p value for every source: is it more suspicious than the other rows of its classes?"""
    if rows.sources is None:
        return checks
    raw = {
        (check.name, source): p
        for check in checks
        for source, p in permutation_p(
            savage_scores(check.suspicion, rows.targets), rows.sources, rows.targets, DRAWS, seed
        ).items()
    }
    adjusted = adjust(raw)
    known = list_sources(rows.sources)
    return [replace(check, sources={source: adjusted[check.name, source] for source in known}) for check in checks]


def adjust(p: dict[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    """p values adjusted for their number."""
    return dict(zip(p, compare.holm(np.array(list(p.values()))).tolist()))


def split_trusted(trusted: Samples | None) -> tuple[Samples | None, Samples | None]:
    """Every other row, and the rest. Raises BadInput for fewer than two."""
    if trusted is None:
        return None, None
    if len(trusted) < 2:
        raise BadInput(f"--trusted: has {len(trusted)} row; two or more are needed")
    odd = torch.arange(len(trusted)) % 2 == 1
    return trusted.drop(odd), trusted.select(odd)


def append_unknown(rows: Samples, others: Samples) -> Samples:
    """The rows and the others behind them, under ids of their own."""
    ids = torch.arange(len(others)) + int(rows.ids.max()) + 1
    return replace(rows, sources=None).append(replace(others, ids=ids, sources=None))


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
