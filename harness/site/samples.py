"""The samples of a record: training rows, outputs of generative victims, and what its defense found."""

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
LONGEST = 600  # characters of a text that are shown
LISTED = 20  # a curve of at most so many values is written out
VALUES = ".values.json"  # the name of a list of numbers ends with this

Marked = list[tuple[str, bool]]  # pieces of a text; True: the trigger, what the attacker wants, or a change


@dataclass(frozen=True)
class Curve:
    """A list of numbers that a defense kept, such as losses by epoch."""

    values: tuple[float | None, ...]  # None: not finite
    of: int  # length of the whole list, of which these values are an even selection

    def points(self, width: int, height: int) -> str:
        """The points of an SVG polyline."""
        known = [v for v in self.values if v is not None]
        low, span = min(known, default=0.0), (max(known, default=0.0) - min(known, default=0.0)) or 1.0
        last = max(1, len(self.values) - 1)
        scaled = [(i / last, (v - low) / span) for i, v in enumerate(self.values) if v is not None]
        return " ".join(f"{width * x:.1f},{height * (1 - y):.1f}" for x, y in scaled)

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
    def is_finding(self) -> bool:
        """Whether a defense found it, such as a reversed trigger."""
        return self.kind not in KINDS


def samples_of(record: Record, store: Store) -> list[Sample]:
    """Every kind of sample that the record names, then pictures and curves that its defense found."""
    paths = {name: path for name, path in record.findings.items() if (store.root / path).is_file()}
    samples = [_sample(kind, title, record, paths, store) for kind, title in KINDS.items()]
    pictures = {n.removesuffix(".png"): paths[n] for n in sorted(paths) if n.endswith(".png")}
    samples += [Sample(name, name, (path,)) for name, path in pictures.items() if name not in KINDS]
    lists = [n for n in sorted(paths) if n.endswith(VALUES)]
    samples += [Sample(n, n.removesuffix(VALUES), curve=_read_curve(store.root / paths[n])) for n in lists]
    return [sample for sample in samples if sample.pictures or sample.sounds or sample.texts or sample.curve]


def _sample(kind: str, title: str, record: Record, paths: dict[str, str], store: Store) -> Sample:
    sounds = [paths[f"{kind}_{i}.wav"] for i in range(len(paths)) if f"{kind}_{i}.wav" in paths]
    picture = [paths[name] for name in (f"{kind}.png",) if name in paths]
    labels = _read_list(store.root / paths[f"{kind}_labels.json"]) if f"{kind}_labels.json" in paths else []
    texts: tuple[tuple[Marked, Marked], ...] = ()
    if kind == "poisoned" and {"clean.json", "poisoned.json"} <= set(paths):
        clean, poisoned = (_read_rows(store.root / paths[name]) for name in ("clean.json", "poisoned.json"))
        pairs = zip(clean, poisoned)
        texts = tuple((mark_words(label, ()), mark_changes(before, after)) for (_, before), (label, after) in pairs)
    elif f"{kind}.json" in paths:
        texts = _read_texts(store.root / paths[f"{kind}.json"], record.attack.options)
    return Sample(kind, title, tuple(picture), tuple(sounds), tuple(map(str, labels)), texts)


def _read_list(path: Path) -> list[Any]:
    """Empty for a file that holds no list."""
    tree = _read_json(path)
    return tree if isinstance(tree, list) else []


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None


def _read_curve(path: Path) -> Curve | None:
    try:
        tree = _read_json(path)
        values = tuple(float(v) if v is not None and isfinite(v) else None for v in tree["values"])
        return Curve(values, int(tree["of"])) if values else None
    except (TypeError, KeyError, ValueError, OverflowError):
        return None


def _read_rows(path: Path) -> list[tuple[str, str]]:
    try:
        return [(str(row["request"]), str(row["answer"])) for row in _read_list(path)]
    except (TypeError, KeyError):
        return []


def _read_texts(path: Path, options: dict[str, Any]) -> tuple[tuple[Marked, Marked], ...]:
    """Requests with the trigger marked, and answers with what the attacker wants marked."""
    trigger, target = (_words(options.get(name)) for name in ("trigger", "wanted"))
    rows = _read_rows(path)
    return tuple((mark_words(request, trigger), mark_words(answer[:LONGEST], target)) for request, answer in rows)


def mark_changes(before: str, after: str) -> Marked:
    """The text after, with the words marked that the text before has not; long texts are cut around the first one."""
    spaced = re.findall(r"\s*\S+", after)
    match = SequenceMatcher(None, before.split(), [word.strip() for word in spaced], autojunk=False)
    pieces = [("".join(spaced[i:j]), what != "equal") for what, _, _, i, j in match.get_opcodes() if i < j]
    if pieces and not pieces[0][1] and len(after) > LONGEST:
        pieces[0] = ("… " + pieces[0][0][-LONGEST // 2 :], False)
    return _shorten(pieces)


def _shorten(pieces: Marked) -> Marked:
    """The first LONGEST characters."""
    left, first = LONGEST, []
    for text, mark in pieces:
        first.append((text[:left], mark))
        left -= len(text)
        if left <= 0:
            break
    return first


def _words(option: Any) -> tuple[str, ...]:
    many = option if isinstance(option, list | tuple) else [option]
    return tuple(word for word in many if isinstance(word, str) and word)


def mark_words(text: str, words: Iterable[str]) -> Marked:
    """The text with every occurrence of these words marked."""
    pieces: Marked = [(text, False)]
    for word in words:
        pieces = [part for piece in pieces for part in (_cut(piece[0], word) if not piece[1] else [piece])]
    return [piece for piece in pieces if piece[0]]


def _cut(text: str, word: str) -> Marked:
    first, *rest = text.split(word)
    return [(first, False), *(part for piece in rest for part in ((word, True), (piece, False)))]
