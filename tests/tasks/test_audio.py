"""Audio: log-mel frames and tasks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import needs_data
from sounds import loudest_hz, sine
from torch import Tensor

from harness.plugins.registry import create
from harness.testing.checks import CPU
from tasks._models.logmel import LogMelCNN
from tasks.audio._base import decode, mask_stretch, shift_frames
from tasks.audio.audio_folder import AudioFolder
from tasks.audio.synthetic_tones import SyntheticTones
from tasks.plugin import BadInput
from tasks.spectrogram import FLOOR, MEAN, STD, hop_size, logmel, mel_filters, window_size

RATES = (8000, 16000, 22050, 44100)


# Log-mel frames


def reference_logmel(wave: np.ndarray, rate: int, mels: int) -> np.ndarray:
    """(M, F), written once more, one frame and one filter at a time."""
    n, hop = window_size(rate), hop_size(rate)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
    padded = np.pad(wave.astype(np.float64), n // 2)
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = [700 * (10 ** (top / mels * k / 2595) - 1) for k in range(mels + 2)]
    out = np.zeros((mels, 1 + len(wave) // hop))
    for f in range(out.shape[1]):
        power = np.abs(np.fft.rfft(padded[f * hop : f * hop + n] * window)) ** 2 * (2 / window.sum()) ** 2
        hz = np.arange(len(power)) * rate / n
        for m in range(mels):
            weights = np.interp(hz, edges[m : m + 3], [0, 1, 0], left=0, right=0)
            out[m, f] = (np.log10((weights * power).sum() + FLOOR) - MEAN) / STD
    return out


@pytest.mark.parametrize("rate", [8000, 16000])
def test_logmel_agrees_with_a_loop_in_numpy(rate: int) -> None:
    wave = torch.randn(3, rate // 2, generator=torch.Generator().manual_seed(0)) * 0.1
    wave[2, rate // 4 :] = 0  # silence reaches the floor
    found = logmel(wave, rate, 32)
    assert found.shape == (3, 1, 32, 26)
    for i in range(3):
        np.testing.assert_allclose(found[i, 0].numpy(), reference_logmel(wave[i].numpy(), rate, 32), atol=2e-4)
    assert found.min().item() == pytest.approx((math.log10(FLOOR) - MEAN) / STD, abs=1e-4)


@pytest.mark.parametrize("rate", RATES)
def test_every_mel_band_hears_and_the_last_one_reaches_nyquist(rate: int) -> None:
    filters = mel_filters(rate, window_size(rate), 32)
    assert (filters.sum(0) > 0).all()
    assert filters[-1].argmax() == 31
    assert filters[-1, 31] == pytest.approx(1, abs=1e-4)
    near = logmel(sine(0.97 * rate / 2, rate)[None], rate, 32)[0, 0]
    silent = logmel(torch.zeros(1, rate), rate, 32)[0, 0]
    assert (near[31] - silent[31])[2:-2].min() > 2  # visible: more than four orders of magnitude of power


def test_logmel_lets_gradients_through_to_the_waveform() -> None:
    wave = (torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)) * 0.1).requires_grad_()
    LogMelCNN(4, width=4)(logmel(wave, 8000, 16)).sum().backward()
    assert wave.grad is not None
    assert torch.isfinite(wave.grad).all()
    assert (wave.grad != 0).any(1).all()


def test_embed_leaves_log_mel_frames_as_they_are() -> None:
    x = torch.randn(2, 1, 16, 20)
    assert torch.equal(LogMelCNN(3).embed(x), x)
    assert LogMelCNN(3, width=4)(x).shape == (2, 3)


# Augmentation


def test_shift_moves_frames_and_repeats_the_edge() -> None:
    x = torch.arange(10.0).expand(40, 1, 3, 10).contiguous()
    out = shift_frames(x, 2, torch.Generator().manual_seed(0))
    by = out[:, 0, 0, 5] - 5
    assert sorted(by.unique().tolist()) == [-2, -1, 0, 1, 2]
    for row, k in zip(out[:, 0], by):
        assert torch.equal(row, (torch.arange(10) + k).clamp(0, 9).expand(3, 10))


@pytest.mark.parametrize("dim", [2, 3])
def test_mask_sets_one_short_stretch_to_the_mean(dim: int) -> None:
    out = mask_stretch(torch.ones(200, 1, 12, 15), dim, 3, torch.Generator().manual_seed(0))
    other = 5 - dim
    assert (out.amin(other) == out.amax(other)).all()  # whole bands or whole frames
    gone = (out.amax(other)[:, 0] == 0).int()  # (N, size)
    assert sorted(gone.sum(1).unique().tolist()) == [0, 1, 2, 3]
    assert (gone.diff(dim=1).abs().sum(1) <= 2).all()  # one stretch
    assert (gone.sum(0) > 0).all()  # anywhere, both ends included


# Tasks


def test_synthetic_tones_are_the_same_every_time_and_on_the_16_bit_grid() -> None:
    task = SyntheticTones()
    first, second = task.read(), task.read()
    for a, b in zip(first, second):
        assert a.fingerprint == b.fingerprint
        assert isinstance(a.inputs, Tensor)
        assert a.inputs.dtype == torch.float32
        assert a.inputs.abs().max() <= 1
        assert torch.equal(a.inputs * 32768, (a.inputs * 32768).round())
    train, test = first
    assert isinstance(train.inputs, Tensor)
    assert train.inputs.shape == (1000, 4000)
    assert len(test) == 300
    assert test.targets.bincount().tolist() == [50] * 6


def test_encoding_does_not_depend_on_the_batch() -> None:
    task = SyntheticTones()
    rows = task.load().test.select(range(20))
    together = task.encode(rows, CPU)
    alone = torch.cat([task.encode(rows.select([i]), CPU) for i in range(20)])
    assert together.shape == (20, 1, 24, 26)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_a_victim_learns_the_tones() -> None:
    from harness.cell.train import train_victim

    task = create("tasks", "synthetic_tones")
    assert isinstance(task, SyntheticTones)
    splits = task.load()
    victim = train_victim(task, splits.train, recipe=task.recipe(), seed=0, device=CPU)
    assert task.utility(victim.predict(splits.test), splits.test) > 0.93


def write(path: Path, wave: np.ndarray, rate: int = 8000, subtype: str = "PCM_16") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate, subtype=subtype)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of ten short tones, one file each as FLAC, with another length and in stereo."""
    for k, name in enumerate(("low", "high")):
        for i in range(10):
            wave = sine(300 + 900 * k + 10 * i, 8000, 0.3).numpy()
            write(tmp_path / name / f"{i}.wav", wave)
        write(tmp_path / name / "0.flac", wave)
        write(tmp_path / name / "long.wav", np.tile(wave, 4))
        write(tmp_path / name / "stereo.wav", np.stack([wave, 0 * wave], 1))
        (tmp_path / name / ".DS_Store").write_bytes(b"left alone")
    return tmp_path


def audio_folder(path: Path, **options: object) -> AudioFolder:
    task = create("tasks", "audio_folder", {"path": str(path), "rate": 8000, "seconds": 0.5, **options})
    assert isinstance(task, AudioFolder)
    return task


def test_audio_folder_splits_every_class_the_same_way_every_time(folder: Path) -> None:
    task = audio_folder(folder)
    assert task.classes == ("high", "low")
    assert task.rate == 8000
    train, test = task.read()
    assert isinstance(train.inputs, Tensor)
    assert train.inputs.shape == (20, 4000)
    assert len(test) == 6
    assert test.targets.bincount().tolist() == [3, 3]
    again, _ = task.read()
    assert again.fingerprint == train.fingerprint
    seen = {row.numpy().tobytes() for row in train.inputs}
    assert isinstance(test.inputs, Tensor)
    assert loudest_hz(train.select(train.targets == 1).inputs[0][:2400], 8000) < 450  # type: ignore[index]
    assert len(seen) > 15
    assert audio_folder(folder, seconds=0.2).read()[0].inputs.shape == (20, 1600)  # type: ignore[union-attr]
    assert task.model()(task.encode(test, CPU)).shape == (6, 2)


def test_audio_folder_keeps_given_splits(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "given"
    for part, n, pitch in (("train", 4, 500), ("test", 2, 700)):
        for name in ("a", "b"):
            for i in range(n):
                write(root / part / name / f"{i}.wav", sine(pitch, 8000, 0.1).numpy())
    train, test = audio_folder(root).read()
    assert (len(train), len(test)) == (8, 4)
    write(root / "test" / "c" / "0.wav", sine(500, 8000, 0.1).numpy())
    with pytest.raises(BadInput, match=r"class 'c' must be in both"):
        audio_folder(root).read()


def test_audio_folder_needs_a_path_and_says_so() -> None:
    task = create("tasks", "audio_folder")
    assert isinstance(task, AudioFolder)
    assert task.classes == ()
    with pytest.raises(BadInput, match=r"audio_folder\.path='': set it to a folder"):
        task.read()
    with pytest.raises(BadInput, match="no such folder"):
        audio_folder(Path("/nowhere/at/all")).read()


def bad_rate(path: Path) -> None:
    write(path, sine(300, 16000, 0.1).numpy(), 16000)


def bad_empty(path: Path) -> None:
    write(path, np.zeros(0, dtype=np.float32))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (bad_rate, "sample rate 16000 Hz, expected 8000"),
        (lambda path: path.write_bytes(b"this is no sound"), "not a readable"),
        (bad_empty, "contains no audio"),
        (lambda path: path.with_suffix(".txt").write_text("not audio"), r"bad\.txt is not one of"),
    ],
)
def test_audio_folder_names_a_bad_file_in_one_line(folder: Path, spoil: object, complaint: str) -> None:
    path = folder / "low" / "bad.wav"
    spoil(path)  # type: ignore[operator]
    with pytest.raises(BadInput, match=complaint) as caught:
        audio_folder(folder).read()
    assert str(path.with_suffix("")) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_audio_folder_names_a_class_without_recordings(folder: Path) -> None:
    (folder / "silent").mkdir()
    with pytest.raises(BadInput, match="silent holds no files"):
        audio_folder(folder).read()


def test_decode_averages_channels_pads_and_rounds_to_16_bits(tmp_path: Path) -> None:
    left, right = np.linspace(-0.9, 0.9, 100), np.full(100, 0.1)
    write(tmp_path / "a.wav", np.stack([left, right], 1), subtype="FLOAT")
    wave = decode(str(tmp_path / "a.wav"), 8000, 150, "a")
    np.testing.assert_allclose(wave[:100], (left + right) / 2, atol=0.5 / 32768 + 1e-7)
    assert (wave[100:] == 0).all()
    assert torch.equal(wave * 32768, (wave * 32768).round())


@needs_data
@pytest.mark.parametrize(
    ("name", "rate", "sizes", "kinds"), [("fsdd", 8000, (2700, 300), 10), ("speech_commands", 16000, (390, 90), 3)]
)
def test_real_recordings(name: str, rate: int, sizes: tuple[int, int], kinds: int) -> None:
    task = create("tasks", name)
    train, test = task.read()  # type: ignore[attr-defined]
    assert (len(train), len(test)) == sizes
    assert train.inputs.shape[1] == rate
    assert train.targets.unique().tolist() == list(range(kinds))
    assert torch.equal(train.inputs * 32768, (train.inputs * 32768).round())
    assert len(torch.cat([train.inputs, test.inputs]).unique(dim=0)) == sum(sizes)  # nobody is in both splits


@needs_data
def test_resampled_recordings_sound_the_same_and_leave_room_above() -> None:
    plain = create("tasks", "fsdd").read()[1].inputs  # type: ignore[attr-defined]
    task = create("tasks", "fsdd", {"rate": 48000})
    wide = task.read()[1].inputs  # type: ignore[attr-defined]
    assert wide.shape[1] == 48000
    assert float((wide[:, ::6] - plain).abs().max()) < 0.02  # the filter's dip near 4 kHz
    power = torch.fft.rfft(wide).abs().square()
    assert float(power[:, 4400:].sum() / power.sum()) < 1e-3
    assert torch.equal(wide * 32768, (wide * 32768).round())


@needs_data
def test_speech_commands_takes_the_words_asked_for() -> None:
    task = create("tasks", "speech_commands", {"words": ["happy", "bed"]})
    train, test = task.read()  # type: ignore[attr-defined]
    assert task.classes == ("happy", "bed")  # type: ignore[attr-defined]
    assert train.targets.bincount().tolist() == [130, 130]
    assert len(test) == 60
    with pytest.raises(BadInput, match=r"'zebra' is not in the train split, which has bed, cat, happy"):
        create("tasks", "speech_commands", {"words": ["bed", "zebra"]}).read()  # type: ignore[attr-defined]
