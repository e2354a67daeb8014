"""Samples side by side: each clean row beside the poisoned one, each output beside those of the same request."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from PIL import Image

from harness.cell.gallery import find_tiles
from harness.site.samples import Marked, Sample

TOGETHER = {
    "Training rows, clean and poisoned": ("clean", "poisoned"),
    "What the model makes of the same requests": ("plain", "near", "triggered"),
}


@dataclass(frozen=True)
class Tile:
    """One picture of a file that holds several in a row. Sizes in pixels."""

    path: str
    size: tuple[int, int]  # of the file: width, height
    left: int  # where this picture begins
    width: int  # of this picture


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
    """Rows of items that belong together, such as one request without and with the trigger."""

    title: str
    medium: str  # pictures, sounds or texts
    rows: Sequence[Sequence[Item]]


def group_samples(samples: Sequence[Sample], root: Path) -> list[Group]:
    """The groups of one cell. root: of the store that the samples' paths are relative to."""
    by_kind = {sample.kind: sample for sample in samples}
    groups = [_group(title, [by_kind[k] for k in kinds if k in by_kind], root) for title, kinds in TOGETHER.items()]
    grouped = {kind for kinds in TOGETHER.values() for kind in kinds}
    groups += [_group(sample.title, [sample], root) for sample in samples if sample.kind not in grouped]
    return [group for group in groups if group.rows]


def _group(title: str, samples: Sequence[Sample], root: Path) -> Group:
    medium = "sounds" if any(s.sounds for s in samples) else "texts" if any(s.texts for s in samples) else "pictures"
    columns = [_items(sample, root) for sample in samples]
    return Group(title, medium, [[item for item in row if item] for row in zip_longest(*columns)])


def _items(sample: Sample, root: Path) -> list[Item]:
    if sample.texts:
        return [Item(sample.title, asked=asked, text=text) for asked, text in sample.texts]
    n = max(len(sample.labels), len(sample.sounds), int(sample.is_finding))  # a finding is one picture, however wide
    pictures = [tile for path in sample.pictures for tile in _tiles(path, root, n)]
    rows = zip_longest(pictures, sample.sounds, sample.labels)
    return [
        Item(sample.title, label or "", tile, sound or "", *(_sound_size(root / sound) if sound else ()))
        for tile, sound, label in rows
    ]


def _tiles(path: str, root: Path, n: int) -> list[Tile]:
    """Empty for a file that is not a picture."""
    try:
        with Image.open(root / path) as image:
            size = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return []
    return [Tile(path, size, left, width) for left, width in find_tiles(size, n)]


def _sound_size(path: Path) -> tuple[float, float]:
    """Seconds, and the highest frequency in kHz; zeros for a file that is not a sound."""
    try:
        with wave.open(str(path)) as sound:
            return sound.getnframes() / sound.getframerate(), sound.getframerate() / 2000
    except (OSError, EOFError, wave.Error, ZeroDivisionError):
        return 0.0, 0.0
