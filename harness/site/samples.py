"""What generative victims made, clean beside poisoned: pictures, sounds, and texts with the trigger marked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.records import Record
from harness.store import Store

KINDS = {"plain": "without the trigger", "near": "with a similar one", "triggered": "with the trigger"}
LONGEST = 600  # characters of an answer that are shown

Marked = list[tuple[str, bool]]  # pieces of a text, and whether a piece is the trigger or what the attacker wants


@dataclass(frozen=True)
class Sample:
    """One kind of request of a cell, and what came of it."""

    kind: str
    title: str
    pictures: tuple[str, ...] = ()  # paths relative to the store
    sounds: tuple[str, ...] = ()
    texts: tuple[tuple[Marked, Marked], ...] = ()  # request and answer


def of(record: Record, store: Store) -> list[Sample]:
    """Every kind of sample that the record names, then pictures of other findings, such as a reversed trigger."""
    found = {name: path for name, path in record.findings.items() if (store.root / path).is_file()}
    made = [_sample(kind, title, record, found, store) for kind, title in KINDS.items()]
    others = [n for n in sorted(found) if n.endswith(".png") and n.removesuffix(".png") not in KINDS]
    made += [Sample(n.removesuffix(".png"), n.removesuffix(".png"), (found[n],)) for n in others]
    return [sample for sample in made if sample.pictures or sample.sounds or sample.texts]


def _sample(kind: str, title: str, record: Record, found: dict[str, str], store: Store) -> Sample:
    sounds = [found[f"{kind}_{i}.wav"] for i in range(len(found)) if f"{kind}_{i}.wav" in found]
    picture = [found[name] for name in (f"{kind}.png",) if name in found]
    texts = _texts(store.root / found[f"{kind}.json"], record.attack.options) if f"{kind}.json" in found else ()
    return Sample(kind, title, tuple(picture), tuple(sounds), texts)


def _texts(path: Path, options: dict[str, Any]) -> tuple[tuple[Marked, Marked], ...]:
    """Requests and answers; a file that is none of ours shows nothing."""
    try:
        rows = [(str(row["request"]), str(row["answer"])) for row in json.loads(path.read_bytes())]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()
    trigger, wanted = (_words(options.get(name)) for name in ("trigger", "wanted"))
    return tuple((marked(request, trigger), marked(answer[:LONGEST], wanted)) for request, answer in rows)


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
