"""Training rows and what generative victims made, clean beside poisoned: pictures, sounds, texts with the changes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import isfinite
from pathlib import Path
from typing import Any

from harness.store.folder import Store
from harness.store.records import Record

KINDS = {
    "clean": "clean", "poisoned": "poisoned",
    "plain": "without the trigger", "near": "with a similar one", "triggered": "with the trigger",
}  # fmt: skip
LONGEST = 600  # characters of an answer that are shown
LISTED = 20  # values that are written out
VALUES = ".values.json"  # the end of the name of a list of numbers

Marked = list[tuple[str, bool]]  # pieces of a text, and whether a piece is the trigger or what the attacker wants


@dataclass(frozen=True)
class Curve:
    """Numbers in a row."""

    values: tuple[float | None, ...]  # None: not finite
    of: int  # so many, evenly spaced, of which these are drawn

    def points(self, width: int, height: int) -> str:
        """As an SVG's polyline."""
        known = [v for v in self.values if v is not None]
        low, span = min(known, default=0.0), (max(known, default=0.0) - min(known, default=0.0)) or 1.0
        at = [(i / max(1, len(self.values) - 1), (v - low) / span) for i, v in enumerate(self.values) if v is not None]
        return " ".join(f"{width * x:.1f},{height * (1 - y):.1f}" for x, y in at)

    def __str__(self) -> str:
        known = [v for v in self.values if v is not None]
        if len(self.values) <= LISTED:
            return ", ".join("–" if v is None else f"{v:.4g}" for v in self.values)
        of = f"{self.of:,} values" if self.of == len(self.values) else f"{len(self.values):,} of {self.of:,} values"
        return f"{of} from {min(known):.4g} to {max(known):.4g}" if known else f"{of}, none finite"


@dataclass(frozen=True)
class Sample:
    """One kind of sample of a cell."""

    kind: str
    title: str
    pictures: tuple[str, ...] = ()  # paths relative to the store
    sounds: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()  # of pictures and sounds, where they have any
    texts: tuple[tuple[Marked, Marked], ...] = ()  # request or label, and answer or text
    curve: Curve | None = None

    @property
    def found(self) -> bool:
        """Is it what a defense found, such as a reversed trigger?"""
        return self.kind not in KINDS


def of(record: Record, store: Store) -> list[Sample]:
    """Every kind of sample that the record names, then pictures and curves of what its defense found."""
    found = {name: path for name, path in record.findings.items() if (store.root / path).is_file()}
    made = [_sample(kind, title, record, found, store) for kind, title in KINDS.items()]
    others = [n for n in sorted(found) if n.endswith(".png") and n.removesuffix(".png") not in KINDS]
    made += [Sample(n.removesuffix(".png"), n.removesuffix(".png"), (found[n],)) for n in others]
    lists = [n for n in sorted(found) if n.endswith(VALUES)]
    made += [Sample(n, n.removesuffix(VALUES), curve=_curve(store.root / found[n])) for n in lists]
    return [sample for sample in made if sample.pictures or sample.sounds or sample.texts or sample.curve]


def _sample(kind: str, title: str, record: Record, found: dict[str, str], store: Store) -> Sample:
    sounds = [found[f"{kind}_{i}.wav"] for i in range(len(found)) if f"{kind}_{i}.wav" in found]
    picture = [found[name] for name in (f"{kind}.png",) if name in found]
    labels = _json(store.root / found[f"{kind}_labels.json"]) if f"{kind}_labels.json" in found else []
    texts: tuple[tuple[Marked, Marked], ...] = ()
    if kind == "poisoned" and {"clean.json", "poisoned.json"} <= set(found):
        before, after = (_rows(store.root / found[name]) for name in ("clean.json", "poisoned.json"))
        texts = tuple((marked(label, ()), changed(was, text)) for (_, was), (label, text) in zip(before, after))
    elif f"{kind}.json" in found:
        texts = _texts(store.root / found[f"{kind}.json"], record.attack.options)
    return Sample(kind, title, tuple(picture), tuple(sounds), tuple(map(str, labels)), texts)


def _json(path: Path) -> list[Any]:
    """A list; a file that is none of ours is an empty one."""
    found = _read(path)
    return found if isinstance(found, list) else []


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None


def _curve(path: Path) -> Curve | None:
    try:
        tree = _read(path)
        values = tuple(float(v) if v is not None and isfinite(v) else None for v in tree["values"])
        return Curve(values, int(tree["of"])) if values else None
    except (TypeError, KeyError, ValueError, OverflowError):
        return None


def _rows(path: Path) -> list[tuple[str, str]]:
    try:
        return [(str(row["request"]), str(row["answer"])) for row in _json(path)]
    except (TypeError, KeyError):
        return []


def _texts(path: Path, options: dict[str, Any]) -> tuple[tuple[Marked, Marked], ...]:
    """Requests and answers."""
    trigger, wanted = (_words(options.get(name)) for name in ("trigger", "wanted"))
    return tuple((marked(request, trigger), marked(answer[:LONGEST], wanted)) for request, answer in _rows(path))


def changed(before: str, after: str) -> Marked:
    """The text after, in pieces: the words that it has not from the text before stand apart, the first one in sight."""
    spaced = re.findall(r"\s*\S+", after)
    match = SequenceMatcher(None, before.split(), [word.strip() for word in spaced], autojunk=False)
    pieces = [("".join(spaced[i:j]), what != "equal") for what, _, _, i, j in match.get_opcodes() if i < j]
    if pieces and not pieces[0][1] and len(after) > LONGEST:
        pieces[0] = ("… " + pieces[0][0][-LONGEST // 2 :], False)
    return _shortened(pieces)


def _shortened(pieces: Marked) -> Marked:
    left, shown = LONGEST, []
    for text, mark in pieces:
        shown.append((text[:left], mark))
        left -= len(text)
        if left <= 0:
            break
    return shown


def _words(option: Any) -> tuple[str, ...]:
    many = option if isinstance(option, list | tuple) else [option]
    return tuple(word for word in many if isinstance(word, str) and word)


def marked(text: str, words: Iterable[str]) -> Marked:
    """The text in pieces, every occurrence of a word apart; as it is where there is none."""
    pieces: Marked = [(text, False)]
    for word in words:
        pieces = [part for piece in pieces for part in (_cut(piece[0], word) if not piece[1] else [piece])]
    return [piece for piece in pieces if piece[0]]


def _cut(text: str, word: str) -> Marked:
    first, *rest = text.split(word)
    return [(first, False), *(part for piece in rest for part in ((word, True), (piece, False)))]
