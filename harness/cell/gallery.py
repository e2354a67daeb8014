"""Samples for people to read, look at and listen to: training rows before and after poisoning, and what was made."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from tasks.base import Task
    from tasks.samples import Outputs, Samples

SHOWN = 8  # of every kind
SOUNDS = 4  # training rows that can be heard
HEIGHT = 96  # of a picture or spectrogram, pixels, at least


@dataclass(frozen=True)
class Made:
    """The first requests of one kind and what came of them."""

    requests: list[str]  # texts, or the conditions' numbers
    content: Tensor | list[str]  # as in Samples
    abstained: list[bool]


def show_outputs(task: Task, requests: Samples, outputs: Outputs) -> Made | None:
    """The first outputs of a generative model. None for a classifier."""
    if outputs.content is None:
        return None
    asked = requests.inputs if isinstance(requests.inputs, list) else [str(c) for c in requests.targets.tolist()]
    return Made(asked[:SHOWN], outputs.content[:SHOWN], outputs.abstained[:SHOWN].tolist())


@dataclass(frozen=True)
class Rows:
    """The first poisoned rows of a training set, or what they were before."""

    labels: list[str]  # none where a target is no class
    content: Tensor | list[str]  # as in Samples


def show_rows(task: Task, samples: Samples) -> Rows | None:
    """The first of these training rows; None for rows of a table, which cannot be looked at."""
    if task.modality == "tabular":
        return None
    most = SOUNDS if isinstance(samples.inputs, Tensor) and samples.inputs.ndim == 2 else SHOWN
    classes = task.classes if task.referee() is None else ()
    labels = [str(classes[t]) for t in samples.targets[:most].tolist()] if classes else []
    return Rows(labels, samples.inputs[:most])


def files_of_rows(name: str, shown: Rows, rate: int) -> dict[str, bytes]:
    """As `files`, with a JSON of the labels beside pictures and sounds."""
    n = len(shown.content)
    found = files(name, Made(shown.labels or [""] * n, shown.content, [False] * n), rate)
    labels = {} if isinstance(shown.content, list) else {f"{name}_labels.json": json.dumps(shown.labels).encode()}
    return found | labels


def files(name: str, shown: Made, rate: int) -> dict[str, bytes]:
    """File names and what they hold: a JSON of texts, a PNG of pictures in a row, or WAVs and a PNG of spectrograms.

    rate: of sounds, samples per second. An abstention is an empty text, and is left as it is elsewhere.
    """
    if isinstance(shown.content, list):
        rows = [
            {"request": asked, "answer": "" if held else text, "abstained": held}
            for asked, text, held in zip(shown.requests, shown.content, shown.abstained, strict=True)
        ]
        return {f"{name}.json": json.dumps(rows, indent=1, ensure_ascii=False).encode()}
    if shown.content.ndim == 2:
        clips = {f"{name}_{i}.wav": wav(clip, rate) for i, clip in enumerate(shown.content)}
        return {f"{name}.png": png(spectrograms(shown.content)), **clips}
    return {f"{name}.png": png(shown.content.permute(0, 2, 3, 1).numpy())}


def png(pictures: np.ndarray) -> bytes:
    """uint8 (N, H, W, 1 or 3) side by side, a white line between them, small ones enlarged."""
    n, h, w, c = pictures.shape
    row = np.full((h, n * (w + 1) - 1, c), 255, dtype=np.uint8)
    for i, picture in enumerate(pictures):
        row[:, i * (w + 1) : i * (w + 1) + w] = picture
    scale = max(1, -(-HEIGHT // h))
    image = Image.fromarray(row.squeeze(2) if c == 1 else row)
    out = io.BytesIO()
    image.resize((scale * row.shape[1], scale * h), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def tiles(size: tuple[int, int], n: int = 0) -> list[tuple[int, int]]:
    """Left edge and width of each picture in a row made by `png`, pixels; all of it where it is no such row.

    size: of the row. n: how many there are; 0 where nobody knows, then they are taken for squares.
    """
    width, height = size
    for h in range(1, height + 1):
        scale = max(1, -(-HEIGHT // h))
        if h * scale != height or width % scale:
            continue
        across = width // scale + 1
        count = n or across // (h + 1)
        if count and across % count == 0 and (n or across == count * (h + 1)):
            step = across // count
            return [(i * step * scale, (step - 1) * scale) for i in range(count)]
    return [(0, width)]


def spectrograms(audio: Tensor, bands: int = 64) -> np.ndarray:
    """uint8 (N, bands, frames, 1) of sounds (N, T): linear frequency, low at the bottom, 60 dB from white to black."""
    from scipy.signal import stft

    _, _, found = stft(audio.numpy(), nperseg=2 * bands, noverlap=bands)
    decibel = 20 * np.log10(np.abs(found[:, 1:]) + 1e-9)
    shade = (decibel.max((1, 2), keepdims=True) - decibel) / 60
    pixels: np.ndarray = (255 * shade[:, ::-1].clip(0, 1)).astype(np.uint8)
    return pixels[..., None]


def listed(values: Tensor, most: int = 1000) -> bytes:
    """JSON of numbers (N,) for a curve: all of them or so many, evenly spaced; null for one that is not finite."""
    shown = values[:: max(1, -(-len(values) // most))].tolist()
    numbers = [float(f"{value:.6g}") if isfinite(value) else None for value in shown]
    return json.dumps({"of": len(values), "values": numbers}).encode()


def wav(clip: Tensor, rate: int) -> bytes:
    """16-bit WAV of a sound (T,)."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, clip.numpy(), rate, format="WAV", subtype="PCM_16")
    return out.getvalue()
