"""What is read of a recording is what a person hears of it, or the file is refused by name."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from harness.plugins.registry import create
from tasks.audio import decode
from tasks.audio.audio_folder import AudioFolder
from tasks.plugin import BadInput

RATE = 8000
WAVE = 0.3 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE) + 0.02 * np.random.default_rng(0).standard_normal(RATE)


def encoded(wave: np.ndarray = WAVE, subtype: str = "FLOAT", form: str = "WAV") -> bytes:
    out = io.BytesIO()
    soundfile.write(out, wave, RATE, format=form, subtype=subtype)
    return out.getvalue()


def read(data: bytes, length: int = RATE, seen: Counter[str] | None = None) -> Tensor:
    return decode(data, RATE, length, "this file", seen)


def name_case(value: object) -> str:
    return value if isinstance(value, str) else ""


def spoilt(value: float, at: int = 50) -> np.ndarray:
    wave = WAVE.copy()
    wave[at] = value
    return wave


def with_size(size: int) -> bytes:
    data = bytearray(encoded(subtype="PCM_16"))
    data[40:44] = size.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("form", "subtype", "error"),
    [
        ("WAV", "PCM_U8", 2**-7), ("WAV", "PCM_16", 2**-15), ("WAV", "PCM_24", 2**-15), ("WAV", "PCM_32", 2**-15),
        ("WAV", "FLOAT", 2**-15), ("WAV", "DOUBLE", 2**-15), ("WAV", "ULAW", 0.02), ("WAVEX", "PCM_16", 2**-15),
        ("RF64", "PCM_16", 2**-15), ("FLAC", "PCM_S8", 2**-7), ("FLAC", "PCM_16", 2**-15), ("FLAC", "PCM_24", 2**-15),
        ("OGG", "VORBIS", 0.1), ("MP3", "MPEG_LAYER_III", 0.2),
    ],
)  # fmt: skip
def test_every_depth_reads_as_the_same_sound(form: str, subtype: str, error: float) -> None:
    seen: Counter[str] = Counter()
    np.testing.assert_allclose(read(encoded(WAVE, subtype, form), seen=seen).numpy(), WAVE, atol=error)
    assert not seen.total()


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (encoded(WAVE * 32767), r"its samples reach 118\d\d\.\d, valid is -1 to 1; scale it, or save it as 16-bit"),
        (encoded(WAVE / np.abs(WAVE).max() * 1.2), "its samples reach 1.2, valid is -1 to 1"),
        (encoded(spoilt(-128.0)), "its samples reach 128"),
        (encoded(WAVE * 1e300, "DOUBLE"), "sample 0 is inf"),
        (encoded(spoilt(np.nan)), "sample 50 is nan; every sample must be a number from -1 to 1"),
        (encoded(spoilt(np.inf, 7999)), "sample 7999 is inf"),
        (encoded(spoilt(-np.inf, 0)), "sample 0 is -inf"),
        (encoded(np.stack([WAVE, spoilt(np.nan)], 1)), "sample 50 is nan"),
        (encoded(np.stack([WAVE, -WAVE], 1), "PCM_16"), "its 2 channels cancel out when averaged; save one of them"),
        (encoded(np.stack([WAVE, -0.95 * WAVE], 1)), "cancel out"),
        (encoded(WAVE[:0]), "contains no audio"),
        (encoded(form="AIFF"), "format AIFF: save it as WAV or FLAC"),
        (with_size(0), "its header says 0 bytes of sound, 16000 are there: the header is wrong"),
        (with_size(100), "its header says 100 bytes of sound, 16000 are there"),
        (with_size(20000), "cut short: its header says 20000 bytes of sound, 16000 are there"),
        (encoded()[:-1], "cut short: its header says 32000 bytes of sound, 31999 are there"),
        (encoded()[:100], "cut short"),
        (encoded()[:30], "No 'data' chunk"),
        (encoded(form="FLAC", subtype="PCM_16")[:-1], "damaged or cut short"),
        (encoded(form="FLAC", subtype="PCM_16")[:3000], "damaged or cut short"),
        (encoded(form="MP3", subtype="MPEG_LAYER_III")[:1000], "cut short"),
        (b"", "Format not recognised"),
        (b"ID3 no sound", "not a readable audio file"),
    ],
    ids=name_case,
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_whole_sound_is_refused_in_one_line(data: bytes, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint) as caught:
        read(data)
    assert str(caught.value).startswith("this file: ")
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (encoded(WAVE / np.abs(WAVE).max() * 1.05), "above full scale and clipped"),
        (encoded(np.tile(WAVE, 2)), "longer than 1 s and cut"),
        (encoded(WAVE[:10]), "shorter than 1 s and padded with silence"),
        (encoded(np.stack([WAVE, 0 * WAVE], 1)), "of several channels, which were averaged"),
        (encoded(0 * WAVE), "silent"),
        (encoded(WAVE / 32768), "silent"),
    ],
    ids=name_case,
)
def test_what_is_decided_is_counted(data: bytes, said: str) -> None:
    seen: Counter[str] = Counter()
    assert read(data, seen=seen).abs().max() <= 1
    assert +seen == {said: 1}


@pytest.mark.parametrize(
    "tail",
    [
        b"\0" * 100, b"LIST\x04\0\0\0abcd", b"_PMX\x02\0\0\0ab", b"\n", b"\r\n", b"TAG" + b"\xe9" * 125,
        b"TAG\xe9" + b"\0" * 124, b"ID3\x04\0\0\0\0\0\x0a" + b"\xff" * 10,
    ],
)  # fmt: skip
def test_what_follows_the_sound_is_no_sound(tail: bytes) -> None:
    data = encoded(subtype="PCM_16")
    assert torch.equal(read(data + tail), read(data))


def test_a_length_that_was_not_known_when_the_header_was_written() -> None:
    for size in (0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0x7FFFFFDB, 0x7FFFF000):
        assert torch.equal(read(with_size(size)), read(encoded(subtype="PCM_16")))


def test_a_flac_file_that_does_not_say_how_long_it_is() -> None:
    data = bytearray(encoded(form="FLAC", subtype="PCM_16"))
    data[21] &= 0xF0  # the 36 bits of STREAMINFO's number of samples
    data[22:26] = bytes(4)
    with pytest.raises(BadInput, match="its header does not give its length; encode it again from a file, not a pipe"):
        read(bytes(data))


# In a folder


def folder(root: Path, change: object = lambda wave: wave) -> AudioFolder:
    for k, name in enumerate(("high", "low")):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(4):
            wave = WAVE * (1 + k) / 2 * (1 + i / 10)
            soundfile.write(root / name / f"{i}.wav", change(wave), RATE, subtype="FLOAT")  # type: ignore[operator]
    task = create("tasks", "audio_folder", {"path": str(root), "rate": RATE, "reserve_size": 2})
    assert isinstance(task, AudioFolder)
    return task


def test_a_folder_in_the_range_of_integers_is_refused_by_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"high/0\.wav: its samples reach \d+.*low/0\.wav: .*; and 3 more$"):
        folder(tmp_path, lambda wave: wave * 32767).load()


def test_one_bad_recording_is_named_and_no_other(tmp_path: Path) -> None:
    task = folder(tmp_path)
    soundfile.write(tmp_path / "low" / "2.wav", spoilt(np.nan), RATE, subtype="FLOAT")
    with pytest.raises(BadInput, match=r"audio_folder\.path='[^']*': [^']*low/2\.wav: sample 50 is nan") as caught:
        task.load()
    assert "high" not in str(caught.value).split("': ")[1]


def test_silence_throughout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="every recording is silent in 16 bits"):
        folder(tmp_path, lambda wave: wave / 1e6).load()


def test_notes_say_how_many_were_cut_and_padded(tmp_path: Path) -> None:
    task = folder(tmp_path)
    soundfile.write(tmp_path / "low" / "long.wav", np.tile(0.9 * WAVE, 2), RATE)
    soundfile.write(tmp_path / "low" / "short.flac", WAVE[:99], RATE)
    soundfile.write(tmp_path / "high" / "brief.wav", WAVE[:98], RATE)
    notes = ("longer than 1 s and cut: 1 recording", "shorter than 1 s and padded with silence: 2 recordings")
    assert set(task.load().notes) >= set(notes)
    assert set(task.describe_choices(task.read()[0])) == set(notes)  # counted anew


def test_no_sample_at_all_names_the_option(tmp_path: Path) -> None:
    folder(tmp_path)
    with pytest.raises(BadInput, match=r"audio_folder\.seconds=1e-05: not one sample at 8000 Hz"):
        create("tasks", "audio_folder", {"path": str(tmp_path), "rate": RATE, "seconds": 1e-5}).read()  # type: ignore[attr-defined]
