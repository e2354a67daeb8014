"""Samples for people to read, look at and listen to: training rows before and after poisoning, and model outputs."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from tasks.base import Task
    from tasks.samples import Outputs, Samples

SHOWN = 8  # samples kept of every kind
SOUNDS = 4  # training rows kept where they are sounds
HEIGHT = 96  # pixels, the least of a picture or spectrogram


@dataclass(frozen=True)
class Made:
    """The first requests of one kind, and what a generative model made of each."""

    requests: list[str]  # texts, or the numbers of the conditions
    content: Tensor | list[str]  # see Modality.show
    abstained: list[bool]


def show_outputs(task: Task, requests: Samples, outputs: Outputs) -> Made | None:
    """The first outputs of a generative model. None for a classifier, and where the task cannot show its outputs."""
    content = None if outputs.content is None else task.show(outputs.content[:SHOWN])
    if content is None:
        return None
    asked = requests.inputs if isinstance(requests.inputs, list) else [str(c) for c in requests.targets.tolist()]
    return Made(asked[:SHOWN], content, outputs.abstained[:SHOWN].tolist())


@dataclass(frozen=True)
class Rows:
    """The first poisoned rows of a training set, or the clean rows that they replaced."""

    labels: list[str]  # empty where a target is not a class
    content: Tensor | list[str]  # see Modality.show


def show_rows(task: Task, samples: Samples) -> Rows | None:
    """The first training rows. None where the task cannot show its inputs, such as rows of a table."""
    content = task.show(samples.inputs[:SHOWN])
    if content is None:
        return None
    content = content[:SOUNDS] if _is_sound(content) else content
    classes = task.classes if task.referee() is None else ()
    labels = [str(classes[t]) for t in samples.targets[: len(content)].tolist()] if classes else []
    return Rows(labels, content)


def encode_rows(name: str, shown: Rows, rate: int) -> dict[str, bytes]:
    """The files of `encode_outputs`, and a JSON of the labels of pictures and sounds."""
    n = len(shown.content)
    files = encode_outputs(name, Made(shown.labels or [""] * n, shown.content, [False] * n), rate)
    labels = {} if isinstance(shown.content, list) else {f"{name}_labels.json": _as_json(shown.labels)}
    return files | labels


def encode_outputs(name: str, shown: Made, rate: int) -> dict[str, bytes]:
    """File names and contents: a JSON of texts, a PNG of pictures in a row, or WAVs and a PNG of their spectrograms.

    rate: samples per second of sounds. A text where the model abstained is left empty; pictures and sounds are kept.
    """
    if isinstance(shown.content, list):
        rows = [
            {"request": asked, "answer": "" if held else text, "abstained": held}
            for asked, text, held in zip(shown.requests, shown.content, shown.abstained, strict=True)
        ]
        return {f"{name}.json": _as_json(rows, indent=1)}
    if _is_sound(shown.content):
        clips = {f"{name}_{i}.wav": encode_wav(clip, rate) for i, clip in enumerate(shown.content)}
        return {f"{name}.png": encode_png(draw_spectrograms(shown.content)), **clips}
    return {f"{name}.png": encode_png(shown.content.permute(0, 2, 3, 1).numpy())}


def _as_json(tree: list[Any], indent: int | None = None) -> bytes:
    """JSON in UTF-8; a character that is not in it, from a damaged text or file name, becomes a question mark."""
    return json.dumps(tree, indent=indent, ensure_ascii=False).encode(errors="replace")


def _is_sound(content: Tensor | list[str]) -> bool:
    return isinstance(content, Tensor) and content.ndim == 2


def encode_png(pictures: np.ndarray) -> bytes:
    """A PNG of pictures uint8 (N, H, W, 1 or 3) side by side, a white line between them; small ones are enlarged."""
    n, h, w, c = pictures.shape
    row = np.full((h, n * (w + 1) - 1, c), 255, dtype=np.uint8)
    for i, picture in enumerate(pictures):
        row[:, i * (w + 1) : i * (w + 1) + w] = picture
    scale = max(1, -(-HEIGHT // h))
    image = Image.fromarray(row.squeeze(2) if c == 1 else row)
    out = io.BytesIO()
    image.resize((scale * row.shape[1], scale * h), Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def find_tiles(size: tuple[int, int], n: int = 0) -> list[tuple[int, int]]:
    """Left edge and width, in pixels, of each picture in a row by `encode_png`; for any other image, all of it.

    size: width and height of the row. n: the number of pictures; 0 if it is unknown, then they are taken for squares.
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


def draw_spectrograms(audio: Tensor, bands: int = 64) -> np.ndarray:
    """uint8 (N, bands, frames, 1) of sounds (N, T): linear frequency, low at the bottom, 60 dB from white to black."""
    from scipy.signal import stft

    _, _, spectrum = stft(audio.numpy(), nperseg=2 * bands, noverlap=bands)
    decibel = 20 * np.log10(np.abs(spectrum[:, 1:]) + 1e-9)
    shade = (decibel.max((1, 2), keepdims=True) - decibel) / 60
    pixels: np.ndarray = (255 * shade[:, ::-1].clip(0, 1)).astype(np.uint8)
    return pixels[..., None]


def encode_curve(values: Tensor, most: int = 1000) -> bytes:
    """A JSON of numbers (N,) for a curve: all, or up to `most` evenly spaced ones; null for one that is not finite."""
    shown = values[:: max(1, -(-len(values) // most))].tolist()
    numbers = [float(f"{value:.6g}") if isfinite(value) else None for value in shown]
    return json.dumps({"of": len(values), "values": numbers}).encode()


def encode_wav(clip: Tensor, rate: int) -> bytes:
    """A 16-bit WAV of a sound (T,)."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, clip.numpy(), rate, format="WAV", subtype="PCM_16")
    return out.getvalue()
