"""Samples as they are shown: what belongs together stands together, clean beside poisoned, one by one."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from harness.cell.gallery import find_tiles
from harness.site.samples import KINDS, Marked, Sample

TOGETHER = {
    "Training rows, clean and poisoned": ("clean", "poisoned"),
    "What the model makes of the same requests": ("plain", "near", "triggered"),
}


@dataclass(frozen=True)
class Tile:
    """One picture of a file with several in a row: the file, its size, and where the picture lies in it; pixels."""

    path: str
    size: tuple[int, int]
    left: int
    width: int


@dataclass(frozen=True)
class Item:
    """One sample: a picture, a sound with its spectrogram, or a text."""

    title: str
    label: str = ""
    tile: Tile | None = None
    sound: str = ""  # a path
    seconds: float = 0.0
    top: float = 0.0  # of the spectrogram, kHz
    asked: Marked = ()  # type: ignore[assignment]
    text: Marked = ()  # type: ignore[assignment]


@dataclass(frozen=True)
class Group:
    """Rows of items that differ in one thing alone."""

    title: str
    medium: str  # pictures, sounds or texts
    rows: Sequence[Sequence[Item]]


def groups(made: Sequence[Sample], root: Path) -> list[Group]:
    """What a cell shows. root: of the store that the samples' paths are relative to."""
    by_kind = {sample.kind: sample for sample in made}
    found = [_group(title, [by_kind[k] for k in kinds if k in by_kind], root) for title, kinds in TOGETHER.items()]
    known = {kind for kinds in TOGETHER.values() for kind in kinds}
    found += [_group(sample.title, [sample], root) for sample in made if sample.kind not in known]
    return [group for group in found if group.rows]


def _group(title: str, samples: Sequence[Sample], root: Path) -> Group:
    medium = "sounds" if any(s.sounds for s in samples) else "texts" if any(s.texts for s in samples) else "pictures"
    columns = [_items(sample, root) for sample in samples]
    return Group(title, medium, [[item for item in row if item] for row in zip_longest(*columns)])


def _items(sample: Sample, root: Path) -> list[Item]:
    if sample.texts:
        return [Item(sample.title, asked=asked, text=text) for asked, text in sample.texts]
    n = max(len(sample.labels), len(sample.sounds), int(sample.kind not in KINDS))  # what a defense found stays whole
    shown = [tile for path in sample.pictures for tile in _tiles(path, root, n)]
    rows = zip_longest(shown, sample.sounds, sample.labels)
    return [
        Item(sample.title, label or "", tile, sound or "", *(_heard(root / sound) if sound else ()))
        for tile, sound, label in rows
    ]


def _tiles(path: str, root: Path, n: int) -> list[Tile]:
    """None of a file that is no picture."""
    try:
        with Image.open(root / path) as image:
            size = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return []
    return [Tile(path, size, left, width) for left, width in find_tiles(size, n)]


def _heard(path: Path) -> tuple[float, float]:
    """Seconds, and the highest frequency in kHz; zeros of a file that is no sound."""
    try:
        with wave.open(str(path)) as sound:
            return sound.getnframes() / sound.getframerate(), sound.getframerate() / 2000
    except (OSError, EOFError, wave.Error, ZeroDivisionError):
        return 0.0, 0.0
