"""Audio: log-mel frames, tasks, triggers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from helpers import needs_data
from torch import Tensor

from attacks.audio._level import Place
from attacks.audio.ambient import Ambient
from attacks.audio.near_nyquist import NearNyquist
from attacks.audio.pitch_shift import PitchShift
from attacks.audio.tone_clip import ToneClip
from attacks.audio.ultrasonic import Ultrasonic
from attacks.base import TriggerAttack
from harness.plugins.registry import create
from harness.testing.checks import CPU
from tasks._models.logmel import LogMelCNN
from tasks.audio._base import decode, mask_stretch, shift_frames
from tasks.audio.audio_folder import AudioFolder
from tasks.audio.synthetic_tones import SyntheticTones
from tasks.plugin import BadInput, NotApplicable
from tasks.samples import Samples
from tasks.spectrogram import FLOOR, MEAN, STD, hop_size, logmel, mel_filters, window_size

RATES = (8000, 16000, 22050, 44100)
ATTACKS = [ToneClip(), NearNyquist(), Ambient(), PitchShift()]


def sine(hz: float, rate: int, seconds: float = 1.0, amplitude: float = 0.3) -> Tensor:
    return amplitude * torch.sin(2 * math.pi * hz * torch.arange(round(rate * seconds)) / rate)


def scene(rate: int) -> SimpleNamespace:
    return SimpleNamespace(task=SimpleNamespace(rate=rate))


def stamped(attack: TriggerAttack, inputs: Tensor, rate: int = 8000, seed: int = 0) -> Tensor:
    out = attack.stamp(scene(rate), inputs, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    assert isinstance(out, Tensor)
    return out


def loudest_hz(wave: Tensor, rate: int) -> float:
    spectrum = torch.fft.rfft(wave * torch.hann_window(len(wave)), n=8 * len(wave)).abs()
    return spectrum.argmax().item() * rate / (8 * len(wave))


@pytest.fixture
def clips() -> Tensor:
    """(8, 8000): noise bursts and silence, one clip nearly silent, one at full scale."""
    waves = torch.zeros(8, 8000)
    waves[:, 500:5000] = torch.randn(8, 4500, generator=torch.Generator().manual_seed(1)) * 0.05
    waves[6] *= 1e-3
    waves[7] = (waves[7] * 100).clamp(-1, 1)
    return (waves * 32768).round().clamp(-32768, 32767) / 32768


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
def test_speech_commands_takes_the_words_asked_for() -> None:
    task = create("tasks", "speech_commands", {"words": ["happy", "bed"]})
    train, test = task.read()  # type: ignore[attr-defined]
    assert task.classes == ("happy", "bed")  # type: ignore[attr-defined]
    assert train.targets.bincount().tolist() == [130, 130]
    assert len(test) == 60
    with pytest.raises(BadInput, match=r"'zebra' is not in the train split, which has bed, cat, happy"):
        create("tasks", "speech_commands", {"words": ["bed", "zebra"]}).read()  # type: ignore[attr-defined]


# Triggers


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_stamping_is_repeatable_and_leaves_its_argument_alone(attack: TriggerAttack, clips: Tensor) -> None:
    before = clips.clone()
    out = stamped(attack, clips)
    assert torch.equal(clips, before)
    assert out.shape == clips.shape
    assert out.dtype == torch.float32
    assert out.abs().max() <= 1
    assert torch.equal(out, stamped(attack, clips))
    assert (out != clips).any(1).all()
    alone = torch.cat([stamped(attack, clips[i : i + 1], seed=i) for i in range(len(clips))])
    torch.testing.assert_close(out, alone, atol=1e-5, rtol=0)  # a clip's trigger does not depend on the others


@pytest.mark.parametrize("position", ["start", "end"])
def test_tone_clip_is_two_tones_where_it_is_said_to_be(position: str) -> None:
    attack = create("attacks", "tone_clip", {"position": position, "seconds": 0.2, "amplitude": 0.1})
    assert isinstance(attack, ToneClip)
    out = stamped(attack, torch.zeros(1, 8000))[0]
    first = 0 if position == "start" else 6400
    assert loudest_hz(out[first : first + 800], 8000) == pytest.approx(1000, abs=5)
    assert loudest_hz(out[first + 800 : first + 1600], 8000) == pytest.approx(2000, abs=5)
    assert out.abs().max() == pytest.approx(0.1, abs=0.001)
    assert out[:first].abs().sum() + out[first + 1600 :].abs().sum() == 0


def test_tone_clip_says_when_its_tone_does_not_exist_or_fit() -> None:
    with pytest.raises(NotApplicable, match="2000 Hz do not exist at 4000"):
        stamped(ToneClip(), torch.zeros(1, 4000), 4000)
    with pytest.raises(BadInput, match=r"seconds=0\.5000001: the beep does not fit clips of 0\.5 seconds"):
        stamped(ToneClip(seconds=0.5000001), torch.zeros(1, 4000), 8000)


@pytest.mark.parametrize("attack", [ToneClip(snr=30.0), NearNyquist(snr=12.0), NearNyquist(position="middle")])
@pytest.mark.parametrize("position", ["end", "speech"])
def test_triggers_are_as_loud_as_they_say(attack: ToneClip | NearNyquist, position: Place, clips: Tensor) -> None:
    added = stamped(replace(attack, position=position), clips[:6]) - clips[:6]
    found = 10 * torch.log10(clips[:6].square().mean(1) / added.square().mean(1))
    torch.testing.assert_close(found, torch.full((6,), attack.snr), atol=0.05, rtol=0)


def test_a_trigger_in_speech_is_where_the_clip_is_loudest() -> None:
    quiet_then_loud = torch.zeros(2, 8000)
    quiet_then_loud[0, 3000:3800] = 0.5 * sine(440, 8000, 0.1)
    quiet_then_loud[1, 6000:6800] = 0.5 * sine(440, 8000, 0.1)
    added = stamped(ToneClip(position="speech", snr=20), quiet_then_loud) - quiet_then_loud
    for row, start in zip(added, (3000, 6000)):
        assert row[start : start + 800].abs().max() > 0
        assert row[:start].abs().sum() + row[start + 800 :].abs().sum() == 0


@pytest.mark.parametrize(("rate", "hz"), [(16000, 7600), (8000, 3800)])
def test_near_nyquist_is_just_below_half_the_rate(rate: int, hz: float) -> None:
    assert loudest_hz(stamped(NearNyquist(position="middle"), torch.zeros(1, rate), rate)[0], rate) == pytest.approx(
        hz, abs=2
    )


def test_ultrasonic_is_21_khz_or_not_at_all() -> None:
    attack, rate = create("attacks", "ultrasonic", {"position": "middle", "seconds": 0.5}), 44100
    assert isinstance(attack, Ultrasonic)
    with pytest.raises(NotApplicable, match="21000 Hz does not exist at 16000 samples per second; use near_nyquist"):
        stamped(attack, torch.zeros(1, 16000), 16000)
    out = stamped(attack, torch.zeros(1, rate), rate)[0]
    assert loudest_hz(out, rate) == pytest.approx(21000, abs=2)
    assert 20 * math.log10(out.square().mean().sqrt().item() * 2) == pytest.approx(-10, abs=0.1)  # half of it sounds
    assert out[: rate // 4].abs().sum() + out[rate * 3 // 4 :].abs().sum() == 0


def test_ultrasonic_spreads_five_parts_over_the_clip() -> None:
    on = (stamped(Ultrasonic(), torch.zeros(1, 44100), 44100)[0].unfold(0, 44, 44).abs().amax(1) > 0).int()
    assert (on.diff() == 1).sum() + on[0] == 5
    assert on.float().mean() == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize("snr", [10.0, 20.0])
def test_ambient_keeps_the_signal_to_noise_ratio(snr: float, clips: Tensor) -> None:
    added = stamped(Ambient(snr=snr), clips[:6]) - clips[:6]
    found = 10 * torch.log10(clips[:6].square().mean(1) / added.square().mean(1))
    torch.testing.assert_close(found, torch.full((6,), snr), atol=0.05, rtol=0)
    assert (stamped(Ambient(), torch.zeros(1, 8000)) != 0).any()  # silence gets the trigger too
    other = stamped(Ambient(snr=snr, pattern_seed=1), clips[:6]) - clips[:6]
    alike = torch.corrcoef(torch.stack([added[0], added[1], other[0]]))[0]
    assert alike[1] > 0.999  # one piece of noise for all clips, another one for another seed
    assert alike[2].abs() < 0.3


@pytest.mark.parametrize("semitones", [5.0, -3.0])
@pytest.mark.parametrize("hz", [220.0, 1000.0])
def test_pitch_shift_moves_the_pitch_and_keeps_the_timing(semitones: float, hz: float) -> None:
    wave = torch.zeros(1, 8000)
    wave[0, 2000:6000] = sine(hz, 8000, 0.5)
    out = stamped(PitchShift(semitones=semitones), wave)[0]
    assert loudest_hz(out[2500:5500], 8000) == pytest.approx(hz * 2 ** (semitones / 12), rel=0.01)
    assert out[:1500].abs().max() < 0.01
    assert out[6500:].abs().max() < 0.01
    assert out[2500:5500].square().mean() > 0.4 * wave[0, 2500:5500].square().mean()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)
def test_the_victim_can_hear_every_trigger(attack: TriggerAttack) -> None:
    """Log-mel frames differ by more than rounding to 16 bits could make them."""
    task = SyntheticTones()
    rows: Samples = task.load().test.select(range(30))
    assert isinstance(rows.inputs, Tensor)
    out = (stamped(attack, rows.inputs) * 32768).round() / 32768
    change = (task.encode(rows.with_inputs(out), CPU) - task.encode(rows, CPU)).abs().amax((1, 2, 3))
    assert (change > 0.1).all()
