"""Audio triggers: what they sound like, how loud, and where."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from sounds import loudest_hz, sine
from torch import Tensor

from attacks.audio._level import Place
from attacks.audio.ambient import Ambient
from attacks.audio.effects import Effects
from attacks.audio.near_nyquist import NearNyquist
from attacks.audio.pitch_shift import PitchShift
from attacks.audio.tone_clip import ToneClip
from attacks.audio.ultrasonic import Ultrasonic
from attacks.base import TriggerAttack
from harness.plugins.registry import create
from harness.testing.checks import CPU
from tasks.audio.synthetic_tones import SyntheticTones
from tasks.plugin import BadInput, NotApplicable
from tasks.samples import Samples

ATTACKS = [ToneClip(), NearNyquist(), Ambient(), PitchShift(), Effects()]


def scene(rate: int) -> SimpleNamespace:
    return SimpleNamespace(task=SimpleNamespace(rate=rate))


def stamped(attack: TriggerAttack, inputs: Tensor, rate: int = 8000, seed: int = 0) -> Tensor:
    out = attack.stamp(scene(rate), inputs, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    assert isinstance(out, Tensor)
    return out


@pytest.fixture
def clips() -> Tensor:
    """(8, 8000): noise bursts and silence, one clip nearly silent, one at full scale."""
    waves = torch.zeros(8, 8000)
    waves[:, 500:5000] = torch.randn(8, 4500, generator=torch.Generator().manual_seed(1)) * 0.05
    waves[6] *= 1e-3
    waves[7] = (waves[7] * 100).clamp(-1, 1)
    return (waves * 32768).round().clamp(-32768, 32767) / 32768


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
