"""Models that can be deployed: a victim, a guarded model, an ensemble. Grading calls nothing but `predict`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from tasks.net import Net
from tasks.plugin import BadInput
from tasks.samples import Outputs, Samples, hash_rows
from tasks.validate import describe

if TYPE_CHECKING:
    from tasks.base import Task

CHUNK = 1024  # rows encoded and predicted at a time
TILT = 1e-5  # of a vote, by which a class is behind the one before it in a tie


class Model(Protocol):
    def predict(self, samples: Samples) -> Outputs:
        """One answer for each of the samples, which stay as they are; the same samples get the same answers."""
        ...


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """bfloat16 where it is safe; it is about 4x faster than float32 for small networks, on recent CPUs too."""
    return torch.autocast(device.type, dtype=torch.bfloat16)


def layout(x: Tensor) -> Tensor:
    """The tensor in channels_last memory format if it has the shape of images."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


@dataclass
class Victim:
    """The trained network of a task: what a defense gets from `case.fit`."""

    task: Task
    module: Net
    device: torch.device

    def batches(self, samples: Samples) -> Iterator[Tensor]:
        """Encoded inputs on the device, CHUNK rows at a time."""
        for start in range(0, len(samples), CHUNK):
            rows = torch.arange(start, min(start + CHUNK, len(samples)))
            yield layout(self.task.encode(samples.select(rows), self.device))

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """(N, K) float32 logits of an encoded batch, in eval mode, on the device."""
        self.module.eval()
        with autocast(self.device):
            logits: Tensor = self.module(x).float()
        return logits

    @torch.no_grad()
    def features(self, samples: Samples) -> Tensor:
        """(N, D) float32 penultimate features, on the CPU."""
        self.module.eval()
        out = []
        for x in self.batches(samples):
            with autocast(self.device):
                out.append(self.module.features(x).float().cpu())
        return torch.cat(out)

    def predict(self, samples: Samples) -> Outputs:
        """Class probabilities; a victim never abstains."""
        scores = torch.cat([self.logits(x).softmax(1).cpu() for x in self.batches(samples)])
        return Outputs(scores, torch.zeros(len(samples), dtype=torch.bool))


@dataclass
class Guarded:
    """A model behind a screen, a purifier or both.

    screen: Samples -> (N,) suspicion; above `threshold` the guard abstains. purify: Samples -> Samples, for the model.
    """

    model: Model
    screen: Callable[[Samples], Tensor] | None = None
    threshold: float = float("inf")
    purify: Callable[[Samples], Samples] | None = None

    def predict(self, samples: Samples) -> Outputs:
        outputs = self.model.predict(self.purify(samples) if self.purify else samples)
        if self.screen is None:
            return outputs
        if math.isnan(self.threshold):
            raise BadInput("threshold=nan: a guard with this threshold lets all pass; take it from finite numbers")
        suspicion = self.screen(samples)
        return replace(outputs, suspicion=suspicion, abstained=outputs.abstained | (suspicion > self.threshold))


@dataclass
class Ensemble:
    """A majority vote. Scores are shares of votes.

    Ties go by an order of the classes that the raw input alone decides. It is known before training, as the certificate
    needs, and favours no class: the target of most attacks is class 0, and a vote of two classes is often tied.
    """

    models: Sequence[Model]
    # Votes that one poison can turn, of models of disjoint parts of the rows; 0 for no certificate. It takes the place
    # of a clean row: 2 where its own part may be another, 1 where it is the same.
    turned: Literal[0, 1, 2] = 0

    def predict(self, samples: Samples) -> Outputs:
        outputs = [m.predict(samples) for m in self.models]
        k = outputs[0].scores.shape[1]
        for row, found in enumerate(outputs):  # a vote would hide it
            if found.scores.shape != (len(samples), k) or not bool(found.scores.isfinite().all()):
                raise BadInput(
                    f"model {row} of the {len(outputs)} that vote answers {describe(found.scores)}, expected finite "
                    f"({len(samples)}, {k}); one whose training diverged needs a lower lr"
                )
        votes = [found.answers for found in outputs]
        counts = torch.stack([torch.stack([v == c for v in votes]).sum(0) for c in range(k)], dim=1)  # (N, K)
        ranks = tie_ranks(samples, k)
        vote = Outputs(tilt(counts, ranks).div(len(votes)), counts.sum(1) == 0)  # an abstention where nobody votes
        return replace(vote, radius=certified_radius(counts, ranks) // self.turned) if self.turned else vote


def tie_ranks(samples: Samples, classes: int) -> Tensor:
    """(N, K) the place of each class in a random order that a row's raw input decides: of equals the first one wins."""
    seeds = [torch.Generator().manual_seed(number) for number in hash_rows(samples)]
    return torch.stack([torch.randperm(classes, generator=rng) for rng in seeds])


def tilt(counts: Tensor, ranks: Tensor) -> Tensor:
    """(N, K) float32 votes with so little added that the order decides ties and nothing else."""
    return counts + TILT * (counts.shape[1] - 1 - ranks)


def certified_radius(counts: Tensor, ranks: Tensor) -> Tensor:
    """(N,) insertions or deletions that cannot change the vote (Levine and Feizi 2021, arXiv 2006.14768, Theorem 1).

    counts: (N, K) votes. ranks: (N, K), see tie_ranks. With c1 the winner,
    radius = floor((n1 - max over c' of (n_c' + 1[c' is before c1])) / 2).
    """
    c1 = tilt(counts, ranks).argmax(1, keepdim=True)
    n1 = counts.gather(1, c1).squeeze(1)
    rivals = counts + (ranks < ranks.gather(1, c1))
    rivals.scatter_(1, c1, -1)
    return (n1 - rivals.max(1).values).div(2, rounding_mode="floor")
