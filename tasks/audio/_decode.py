"""The decoder of sounds, for folders and Parquet alike: what a person would hear of a file, or a refusal."""

from __future__ import annotations

import io
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tasks.audio._sounds import to_16_bit
from tasks.plugin import BadInput, one_line

if TYPE_CHECKING:
    from soundfile import SoundFile

LOUDEST = 1.1  # of floating-point samples: a little over full scale is clipped, as any player does; more is a mistake
CANCELLED = 0.01  # of the channels' mean power is left of their average: one of them is inverted
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
BLOCK = 2**20  # samples read at a time: a damaged header may promise more than there is memory for
# The length in the header of a WAV file that was written to a pipe: what ffmpeg, sox and arecord put there.
UNKNOWN = 0x7FFFF000
UNKNOWN_FRAMES = 2**63 - 1  # of a FLAC file, likewise, as libsndfile says it
TAG = re.compile(rb"TAG.{125}|ID3.*|[\r\n]{1,2}", re.DOTALL)  # ID3v1, ID3v2, or a stray end of line


def decode(source: str | bytes, rate: int, length: int, where: str, seen: Counter[str] | None = None) -> Tensor:
    """(T,) float32 of one recording, channels averaged, cut or padded with silence to `length` samples.

    `seen` counts what was done to it. Raises BadInput, which begins with `where`, if it cannot be read, is empty, cut
    short or damaged, has another sample rate, samples that are not finite or far outside [-1, 1], or channels that
    cancel out. A WAV file has no checksum, and an MP3 or Ogg file no length: damage that leaves a WAV file as long as
    its header says, and the missing end of those two, are not found.
    """
    seen = Counter() if seen is None else seen
    wave, peak = _read(source, rate, where)
    mono = wave.mean(1)
    if float(mono.square().mean()) < CANCELLED * float(wave.square().mean()):
        raise BadInput(f"{where}: its {wave.shape[1]} channels cancel out when averaged; save one of them")
    clip, seconds = to_16_bit(mono)[:length], f"{length / rate:g} s"
    seen[f"longer than {seconds} and cut"] += len(mono) > length
    seen[f"shorter than {seconds} and padded with silence"] += len(mono) < length
    seen["of several channels, which were averaged"] += wave.shape[1] > 1
    seen["above full scale and clipped"] += peak > 1
    seen["silent"] += not clip.any()
    return torch.nn.functional.pad(clip, (0, length - len(clip)))


def _read(source: str | bytes, rate: int, where: str) -> tuple[Tensor, float]:
    """float32 (T, channels) as stored, and the largest magnitude. Raises BadInput for samples that are no sound."""
    wave, kind = _parse(source, rate, where)
    if not len(wave):
        raise BadInput(f"{where}: contains no audio")
    if not wave.isfinite().all():
        at = int((~wave.isfinite().all(1)).nonzero()[0])
        value = float(wave[at][~wave[at].isfinite()][0])
        raise BadInput(f"{where}: sample {at} is {value}; every sample must be a number from -1 to 1")
    peak = float(wave.abs().max())
    if peak > LOUDEST and kind in ("FLOAT", "DOUBLE"):  # a lossy codec may overshoot
        raise BadInput(f"{where}: its samples reach {peak:g}, valid is -1 to 1; scale it, or save it as 16-bit")
    return wave, peak


def _parse(source: str | bytes, rate: int, where: str) -> tuple[Tensor, str]:
    """float32 (T, channels) as stored, and the kind of samples. Raises BadInput for what is no whole file of sound."""
    import soundfile

    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        check_wav(data)
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            if file.format not in FORMATS:
                raise ValueError(f"format {file.format}: save it as WAV or FLAC")
            if file.samplerate != rate:
                raise BadInput(
                    f"{where}: sample rate {file.samplerate} Hz, expected {rate} Hz; "
                    "resample it, or set the task's rate"
                )
            return torch.from_numpy(_read_all(file)), file.subtype
    except BadInput:
        raise
    except (soundfile.SoundFileError, OSError, ValueError, RuntimeError) as error:
        reason = one_line(str(error)).split(">: ")[-1][:120]  # without the address of the bytes
        raise BadInput(f"{where}: not a readable audio file ({reason})") from error


def _read_all(file: SoundFile) -> np.ndarray[Any, Any]:
    """float32 (T, channels). Raises ValueError if there is less than the header says."""
    from soundfile import SoundFileError

    blocks = [np.zeros((0, file.channels), np.float32)]
    try:
        while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
            blocks.append(block)
    except SoundFileError as error:
        if file.frames == UNKNOWN_FRAMES:
            raise ValueError("its header does not give its length; encode it again from a file, not a pipe") from error
        raise ValueError("damaged or cut short") from error
    wave = np.concatenate(blocks)
    if len(wave) < file.frames:
        raise ValueError(f"cut short: {len(wave)} of {file.frames} samples are there")
    return wave


def check_wav(data: bytes) -> None:
    """Raises ValueError for a WAV file that holds less or more sound than its header says; libsndfile goes on."""
    order = {b"RIFF": "little", b"RIFX": "big", b"RF64": "little"}.get(data[:4])
    if order is None or data[8:12] != b"WAVE":
        return
    at, long_size = 12, 0
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], order)  # type: ignore[arg-type]
        at += 8
        if kind == b"ds64":
            long_size = int.from_bytes(data[at + 8 : at + 16], "little")
        if kind == b"data":
            size = long_size or size
            there = len(data) - at
            if there < size >= UNKNOWN and not long_size:
                return
            if there < size:
                raise ValueError(f"cut short: its header says {size} bytes of sound, {there} are there")
            rest = data[at + size : at + size + 5].lstrip(b"\0")[:4]  # zeros: padding; letters: another chunk
            if not re.fullmatch(rb"[\w .-]*", rest) and not TAG.fullmatch(data, at + size):
                raise ValueError(f"its header says {size} bytes of sound, {there} are there: the header is wrong")
            return
        at += size + size % 2
