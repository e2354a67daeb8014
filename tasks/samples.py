"""Rows of data, the requests made of them, and the answers.

Shapes, everywhere: N samples, C channels, H, W, T time, L tokens, D features, K classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Samples:
    """Raw rows as a person would see, hear or read them, neither normalised nor tokenised.

    inputs: in the raw format of the modality (`Modality.raw_format`): images uint8 (N, C, H, W), sounds float32 (N, T)
    in [-1, 1], texts a list of N str. targets: int64 (N,). ids: int64 (N,), which a row keeps in every selection.
    sources: int64 (N,), who delivered each row; None where that is not known.
    """

    inputs: Tensor | list[str]
    targets: Tensor
    ids: Tensor
    sources: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, rows: Tensor | Sequence[int]) -> Samples:
        """The rows of a boolean mask (N,), or those at positions, in that order."""
        rows = torch.as_tensor(rows)
        rows = rows.nonzero().flatten() if rows.dtype == torch.bool else rows.long()
        sources = None if self.sources is None else self.sources[rows]
        return Samples(take(self.inputs, rows), self.targets[rows], self.ids[rows], sources)

    def drop(self, mask: Tensor) -> Samples:
        """All rows but those where mask (N,) is true."""
        return self.select(~mask)

    def positions(self, ids: Tensor) -> Tensor:
        """The position of each id. Raises KeyError for ids that are not among these samples."""
        order = self.ids.argsort()
        positions = order[torch.searchsorted(self.ids[order], ids).clamp(max=len(self) - 1)]
        if not torch.equal(self.ids[positions], ids):
            raise KeyError(f"ids not among these samples: {ids[self.ids[positions] != ids].tolist()}")
        return positions

    def replace(self, positions: Tensor, rows: Samples) -> Samples:
        """A copy with the inputs and targets of `rows` at these positions; ids and sources stay those of before."""
        inputs = put(self.inputs, positions, rows.inputs)
        return Samples(inputs, self.targets.index_copy(0, positions, rows.targets), self.ids, self.sources)

    def append(self, rows: Samples) -> Samples:
        """Both; their sources are known where those of both are."""
        inputs, known = join([self.inputs, rows.inputs]), self.sources is not None and rows.sources is not None
        sources = torch.cat([self.sources, rows.sources]) if known else None  # type: ignore[list-item]
        return Samples(inputs, torch.cat([self.targets, rows.targets]), torch.cat([self.ids, rows.ids]), sources)

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


def hash_rows(samples: Samples) -> list[int]:
    """64 bits of each row's raw input: of its content alone, and the same on every machine."""
    hashes = []
    for row in range(len(samples)):
        one = samples.inputs[row]
        data = one.encode("utf-8", "surrogatepass") if isinstance(one, str) else one.contiguous().numpy().tobytes()
        hashes.append(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big"))
    return hashes


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
    """train: rows that an attacker may poison. test: rows for grading. reserve: the only clean rows for defenses.

    notes: what was decided for the user in reading and splitting the data, one sentence each.
    """

    train: Samples
    test: Samples
    reserve: Samples
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Challenge:
    """What the attacker asks of the deployed model: inputs, the answer wanted for each, and the true answer.

    For a generative task: requests, and what each shall produce (a class, a text pattern, or a template (C, ...) that
    the output contains); there is no truth. `plain` and `near` are the same requests without the trigger, and with one
    that is only similar: neither may produce what is wanted.
    """

    inputs: Samples
    wanted: Tensor | list[str]  # N
    truth: Tensor | None = None  # (N,)
    plain: Samples | None = None  # N
    near: Samples | None = None  # N


@dataclass(frozen=True)
class Outputs:
    """The answers of a deployed model. suspicion: higher = worse.

    radius: so many poisons, each in the place of a clean row, surely do not change the answer; 0 or more.

    content: the output of a generative model, N inputs as in `Samples`; what its scores mean is up to its task.
    Grading refuses other shapes and types, scores that are not finite, and suspicion that is NaN (inf is allowed).
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
