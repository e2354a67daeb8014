"""Names of classes as users write them: their order, names that cannot be, and names that look alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

MISSING = ("nan", "none", "null", "na", "n/a")  # what other programs write for no value
UNSEEN = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0") | {chr(c) for c in range(0xFE00, 0xFE10)}  # beside format
# characters: fillers, a blank braille cell, joiners and selectors of variants


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """The distinct names as a person would number them: by value where all are numbers, otherwise 2 before 10."""
    distinct = sorted(set(names))
    numbers = {name: number for name in distinct if (number := as_number(name)) is not None}
    if len(numbers) == len(distinct):
        return tuple(sorted(distinct, key=numbers.__getitem__))
    return tuple(sorted(distinct, key=_split_digits))


def as_number(name: str) -> Decimal | None:
    """The finite number that a name spells, if it does."""
    try:
        number = Decimal(name)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _split_digits(name: str) -> list[str | tuple[int, str]]:
    """Text and digits in turn; the digits compare as int() of them would, which refuses more than 4300."""
    parts = re.split(r"([0-9]+)", name)
    stripped = [part.lstrip("0") for part in parts]
    return [(len(s), s) if i % 2 else part for i, (part, s) in enumerate(zip(parts, stripped, strict=True))]


def fault_of(name: str) -> str:
    """Why this cannot be the name of a class; "" if it can."""
    kinds = {unicodedata.category(c) for c in name}
    if "Cs" in kinds:
        return "is not valid UTF-8"
    if "Cc" in kinds:
        return "holds a control character"
    return "" if fold_name(name) else "is blank"


def fold_name(name: str) -> str:
    """What remains of a name without case, spaces, invisible characters and the ways in which Unicode writes it."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in plain if not (c.isspace() or c in UNSEEN or unicodedata.category(c) in ("Cf", "Cc")))


def describe_doubtful_names(names: Iterable[str]) -> tuple[str, ...]:
    """One sentence for every group of names that hardly differ, and for every name that other programs mean as none."""
    alike: dict[str | Decimal, list[str]] = {}
    for name in names:
        folded = fold_name(name)
        number = as_number(folded)
        alike.setdefault(folded if number is None else number, []).append(name)
    notes = []
    for group in alike.values():
        if len(group) > 1:
            looks = {unicodedata.normalize("NFC", repr(name)) for name in group}
            written = ", ".join(map(repr if len(looks) == len(group) else ascii, group))
            notes.append(f"classes {written} differ in case, spaces, invisible characters or spelling of a number only")
    lacking = [name for group in alike.values() for name in group if name.casefold() in MISSING]
    return (*notes, *(f"class {name!r}: other programs write this for a missing label" for name in lacking))
