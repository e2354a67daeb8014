"""Which rows train, test and stay in reserve: one rule for all tasks, as functions of targets (N,).

No class vanishes: the reserve takes at most a stated share of each, and every class has training and test rows. A task
of which that cannot be said is refused; what is decided for the user is returned as notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from tasks.plugin import BadInput

Draw = Literal["balanced", "proportional"]
# The most that the reserve may take of a class. A balanced draw needs more of rare classes than their share, and the
# reserves of published tasks, which results are compared by, take up to 35 of 65 rows.
MOST = {"balanced": Fraction(3, 5), "proportional": Fraction(1, 5)}
WORDS = {"balanced": "three fifths", "proportional": "a fifth"}
NAMED = 3  # classes named in a line


def require_classes(
    train: Tensor, test: Tensor, names: Sequence[str], train_from: str, test_from: str, one_source: bool
) -> None:
    """Raises BadInput where training or test rows are missing, at all or of a class, or have a label that is none.

    train_from, test_from: where the rows are from, in words; one_source: the test rows were taken out of the others.
    """
    for targets, source, part in ((train, train_from, "training"), (test, test_from, "test")):
        if not len(targets) and not (one_source and len(train) and len(names)):  # otherwise a class is to blame
            raise BadInput(f"{source}: there are no {part} rows")
        wrong = ((targets < 0) | (targets >= len(names))).nonzero().flatten()
        if len(names) and len(wrong):
            row = int(wrong[0])
            raise BadInput(f"{source}: {part} row {row} has label {int(targets[row])}, valid: 0 to {len(names) - 1}")
    counts = list(zip(count_rows(train, names), count_rows(test, names), strict=True))
    lacking = [c for c, pair in enumerate(counts) if not all(pair)]
    if lacking:
        of_train, of_test = counts[lacking[0]]
        more = f" ({len(lacking)} of {len(names)} classes lack one or both)" if len(lacking) > 1 else ""
        way_out = "give it two or more different rows" if one_source else "add rows of it"
        raise BadInput(
            f"{train_from if not of_train else test_from}: class {names[lacking[0]]!r} has {of_train} training and "
            f"{of_test} test rows{more}, and every class needs both; {way_out}, or leave the class out"
        )


def draw_reserve(
    targets: Tensor, size: int, names: Sequence[str], draw: Draw, where: str
) -> tuple[Tensor, tuple[str, ...]]:
    """(N,) mask of the reserve, the first rows of each class; and what is to be said of it.

    balanced: classes are as equal as the data allows; raises BadInput for a size that takes more than MOST of a class.
    proportional: as the classes are in the data, at least one row of each where MOST allows it; smaller than `size`
    where it must be, and BadInput if nothing is left of it. where: what the targets are of, in words.
    """
    counts = count_rows(targets, names)
    most = [int(MOST[draw] * n) for n in counts]
    total = min(size, sum(most))
    if draw == "balanced" and total < size:
        raise BadInput(
            f"reserve_size={size}: {where} has {format_rows(len(targets))}, of which {total} can be set aside: "
            f"at most {WORDS[draw]} of every class; lower reserve_size"
        )
    if not total:
        largest = f"{max(counts)} training row{'s' * (max(counts) != 1)}"
        raise BadInput(
            f"{where}: the largest class has {largest}, of which none can be set aside (reserve_size="
            f"{size}): at most {WORDS[draw]} of every class; give one of them 5 training rows or more"
        )
    quotas = fill_evenly(most, total) if draw == "balanced" else fill_in_proportion(counts, most, total)
    notes = []
    if total < size:
        notes.append(
            f"the reserve has {format_rows(total)}, not reserve_size={size}: at most {WORDS[draw]} of every class"
        )
    if absent := [c for c in range(len(names)) if not quotas[c]]:
        notes.append(f"the reserve (reserve_size={size}) has no row of {name_classes(absent, names, counts)}")
    return take_first(targets, quotas, names), tuple(notes)


def draw_balanced(
    targets: Tensor, size: int, names: Sequence[str], field: str, where: str
) -> tuple[Tensor, tuple[str, ...]]:
    """(N,) mask of `size` rows, the first of each class, as equal as the data allows; and what is to be said of it.

    field: the option that asks for it. Raises BadInput for more rows than there are, and for fewer than classes.
    """
    counts = count_rows(targets, names)
    if size > len(targets):
        raise BadInput(f"{field}={size}: {where} has {format_rows(len(targets))}")
    if size < len(names):
        raise BadInput(f"{field}={size}: {where} has {len(names)} classes, and every class needs a row")
    quotas = fill_evenly(counts, size)
    short = [c for c in range(len(names)) if quotas[c] == counts[c] < max(quotas) - 1]
    said = f"{field}={size} is not balanced: it takes every row of {name_classes(short, names, counts)}"
    return take_first(targets, quotas, names), (said,) if short else ()


def count_rows(targets: Tensor, names: Sequence[str]) -> list[int]:
    """The rows of each class; a task without classes counts as one."""
    return targets.bincount(minlength=len(names)).tolist() if len(names) else [len(targets)]


def fill_evenly(most: list[int], size: int) -> list[int]:
    """`size` rows dealt out to classes as equally as `most` allows, the rest to the first ones."""
    quotas = [0] * len(most)
    while left := size - sum(quotas):
        open_ = [c for c in range(len(most)) if quotas[c] < most[c]]
        each = max(1, min(left // len(open_), *(most[c] - quotas[c] for c in open_)))
        for c in open_[:left]:
            quotas[c] += each
    return quotas


def fill_in_proportion(counts: list[int], most: list[int], size: int) -> list[int]:
    """`size` rows dealt out in proportion to `counts`, of every class `most` at most and one at least if it can be.

    By largest remainders, ties to the first class.
    """
    n = sum(counts)
    quotas = [min(m, max(1, size * c // n)) for c, m in zip(counts, most, strict=True)]

    def missing(c: int) -> int:
        return size * counts[c] - quotas[c] * n

    while left := size - sum(quotas):
        step = 1 if left > 0 else -1
        if step > 0:
            open_ = [c for c in range(len(counts)) if quotas[c] < most[c]]
        else:  # too many classes got one row: take from those that have more, as long as there are such
            open_ = [c for c in range(len(counts)) if quotas[c] > 1] or [c for c in range(len(counts)) if quotas[c]]
        quotas[max(open_, key=lambda c: (step * missing(c), -step * c))] += step
    return quotas


def take_first(targets: Tensor, quotas: list[int], names: Sequence[str]) -> Tensor:
    """(N,) mask of the first rows of each class, as many as its quota."""
    targets = targets if len(names) else torch.zeros_like(targets)
    mask = torch.zeros(len(targets), dtype=torch.bool)
    for c, quota in enumerate(quotas):
        mask[(targets == c).nonzero().flatten()[:quota]] = True
    return mask


def name_classes(few: Sequence[int], names: Sequence[str], counts: Sequence[int]) -> str:
    """Some of the classes with their rows, in words: 'a' (3 rows), 'b' (1 row) and 4 more classes."""
    shown = ", ".join(f"{names[c]!r} ({format_rows(counts[c])})" for c in few[:NAMED])
    return shown + (f" and {len(few) - NAMED} more classes" if len(few) > NAMED else "")


def format_rows(n: int) -> str:
    return f"{n} row{'s' * (n != 1)}"
