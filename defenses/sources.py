"""Shared by the defenses that know who delivered each training row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from defenses.base import Case, Defense, refit_without
from tasks.deployed import Model
from tasks.plugin import NotApplicable
from tasks.sources import list_sources

SURE = 0.05  # chance that any honest source is accused


def require_sources(case: Case) -> Tensor:
    """(N,) who delivered each training row. Raises NotApplicable where nobody knows."""
    if case.train.sources is None:
        raise NotApplicable(f"nobody knows who delivered the rows: set data_sources of {case.task.name}")
    return case.train.sources


def quarantine(case: Case, sources: Tensor, p: dict[int, float], suspicion: dict[int, float]) -> Model:
    """Train without the sources whose p value stays below SURE after Holm's correction, never without all of them.

    p, suspicion: by source; both of every source in `sources` (N,).
    """
    accused = reject_holm(p)
    if len(accused) == len(p):
        accused.remove(max(p, key=lambda source: p[source]))
    flagged = torch.isin(sources, torch.tensor(sorted(accused), dtype=torch.int64))
    return refit_without(case, flagged, torch.tensor([suspicion[source] for source in sources.tolist()]))


def reject_holm(p: dict[int, float]) -> set[int]:
    """The hypotheses that Holm's procedure (1979) rejects at SURE, which bounds the chance of any false rejection."""
    rejected: set[int] = set()
    for rank, key in enumerate(sorted(p, key=lambda key: p[key])):
        if p[key] > SURE / (len(p) - rank):
            break
        rejected.add(key)
    return rejected


class _Heard(Exception):
    """A filter has said how suspicious the rows are; what it would then train is not needed."""


class _Listener:
    """A case that stops a filter as soon as it reports its suspicion."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self.heard: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._case, name)

    def report(self, *, train: Tensor | None = None, **others: object) -> None:
        if train is not None:
            self.heard = train
            raise _Heard


def suspicion_of(make: Callable[[], Defense], case: Case) -> Tensor:
    """(N,) the suspicion that a filter has of each training row, higher = worse."""
    listener = _Listener(case)
    with suppress(_Heard):
        make().defend(listener)
    assert listener.heard is not None
    return listener.heard


def savage_scores(suspicion: Tensor, targets: Tensor) -> Tensor:
    """(N,) for each row -log of the share of its class that is at least as suspicious (Savage, 1956): mean about 1.

    Most weight lies on the most suspicious rows, of which a source that poisons has more than its share.
    """
    scores = torch.zeros(len(suspicion), dtype=torch.float64)
    for c in set(targets.tolist()):
        rows = (targets == c).nonzero().flatten()
        values = suspicion[rows].double()
        as_high = len(rows) - torch.searchsorted(values.sort().values, values)  # itself included
        scores[rows] = -(as_high.double() / (len(rows) + 1)).log()
    return scores


def permutation_p(scores: Tensor, sources: Tensor, targets: Tensor, draws: int, seed: int) -> dict[int, float]:
    """For every source the chance of a sum of scores as high, were its rows any others of the same classes."""
    rng = np.random.default_rng(seed)
    known = list_sources(sources)
    column = torch.searchsorted(torch.tensor(known), sources).numpy()
    values, classes = scores.numpy(), targets.numpy()
    seen = np.bincount(column, weights=values, minlength=len(known))
    as_high = np.zeros(len(known))
    groups = [np.flatnonzero(classes == c) for c in np.unique(classes)]
    for _ in range(draws):
        drawn = values.copy()
        for rows in groups:
            drawn[rows] = values[rng.permutation(rows)]
        as_high += np.bincount(column, weights=drawn, minlength=len(known)) >= seen - 1e-9
    return {source: (1 + count) / (1 + draws) for source, count in zip(known, as_high.tolist())}
