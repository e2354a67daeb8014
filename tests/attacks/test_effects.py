"""Studio effects: each filter against its difference equation, written as a loop, and what the chains do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from sounds import loudest_hz, sine
from torch import Tensor

from attacks.audio import _studio as studio
from attacks.audio.effects import Chain, Effects
from tasks.plugin import NotApplicable

RATE = 8000


def noise(length: int = 400) -> Tensor:
    return torch.randn(2, length, generator=torch.Generator().manual_seed(0)) * 0.1


def stamped(chain: Chain, clips: Tensor, rate: int = RATE) -> Tensor:
    scene = SimpleNamespace(task=SimpleNamespace(rate=rate))
    return Effects(chain=chain).stamp(scene, clips, torch.Generator())  # type: ignore[arg-type]


def test_distortion_is_a_bent_amplification() -> None:
    clips = noise()
    torch.testing.assert_close(studio.amplify(clips, 12), clips * 3.98107, rtol=1e-5, atol=0)
    torch.testing.assert_close(studio.distort(clips, 20), torch.tanh(10 * clips))
    torch.testing.assert_close(studio.distort(clips * 1e-5, 20), clips * 1e-4, rtol=1e-4, atol=0)


def test_a_chorus_that_stands_still_is_an_echo() -> None:
    clips = noise()
    echo = torch.cat([torch.zeros(2, 80), clips[:, :-80]], 1)
    still = studio.add_chorus(clips, RATE, delay=0.01, swing=0.0, hz=1.0, mix=0.5)
    torch.testing.assert_close(still, (clips + echo) / 2)
    between = studio.add_chorus(clips, RATE, delay=0.5 / RATE, swing=0.0, hz=1.0, mix=1.0)
    torch.testing.assert_close(between[:, 1:], (clips[:, 1:] + clips[:, :-1]) / 2)  # half a sample late


def test_the_delay_of_a_chorus_follows_the_sine() -> None:
    ramp = torch.arange(RATE, dtype=torch.float32)[None] / RATE
    late = (ramp - studio.add_chorus(ramp, RATE, delay=0.01, swing=0.005, hz=1.0, mix=1.0))[0]  # the delay in seconds
    assert late[RATE // 4].item() == pytest.approx(0.015, abs=1e-5)
    assert late[RATE // 2].item() == pytest.approx(0.010, abs=1e-5)
    assert late[RATE * 3 // 4].item() == pytest.approx(0.005, abs=1e-5)


def loudness(clips: Tensor) -> float:
    """Of the second half of the first clip, when filters have settled."""
    return clips[0, clips.shape[1] // 2 :].square().mean().sqrt().item()


def reverb_by_loops(x: list[float], rate: int, room: float, damping: float) -> list[float]:
    """Freeverb as it is told: each comb feeds its low-passed output back, each all-pass half of its buffer."""
    out = [0.0] * len(x)
    for delay in (round(n * rate / 44100) for n in studio.COMBS):
        buffer, last = [0.0] * delay, 0.0
        for t, value in enumerate(x):
            heard = buffer[t % delay]
            last = heard * (1 - 0.4 * damping) + last * 0.4 * damping
            buffer[t % delay] = value + last * (0.28 * room + 0.7)
            out[t] += heard
    for delay in (round(n * rate / 44100) for n in studio.ALL_PASSES):
        buffer = [0.0] * delay
        for t, value in enumerate(out):
            heard = buffer[t % delay]
            out[t] = heard - value
            buffer[t % delay] = value + heard * 0.5
    return out


def test_the_reverb_is_combs_and_all_passes() -> None:
    clips = noise(1200)
    found = studio.reverberate(clips, RATE, room=0.6, damping=0.5, wet=0.33)
    for row, out in zip(clips, found, strict=True):
        tail = torch.tensor(reverb_by_loops(row.tolist(), RATE, 0.6, 0.5))
        torch.testing.assert_close(out, 0.8 * row + 0.33 * 3 * 0.015 * tail, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("hz", "gain"), [(1000, 0.5), (125, 0.0139), (3000, 0.97)])
def test_two_one_pole_filters_cut_what_is_low(hz: int, gain: float) -> None:
    """A one-pole high-pass lets 1/sqrt(2) of its corner pass, two one half; three octaves below it is a 72nd."""
    tone = sine(hz, RATE, 1.0)[None]
    assert loudness(studio.cut_lows(tone, RATE, 1000.0)) / loudness(tone) == pytest.approx(gain, rel=0.06)


def test_a_phaser_alone_keeps_the_loudness_of_every_tone_and_its_mix_has_notches() -> None:
    def gain(hz: float, mix: float) -> float:
        tone = sine(hz, RATE, 1.0)[None]
        out = studio.phase(tone, RATE, centre=1300.0, octaves=0.0, hz=1.0, mix=mix)
        return loudness(out) / loudness(tone)

    assert [gain(hz, 1.0) for hz in (300, 1300, 3000)] == pytest.approx([1, 1, 1], abs=0.01)
    # Each stage turns its corner by a quarter, six by one and a half: the halves cancel out.
    assert gain(1300, 0.5) == pytest.approx(0, abs=0.02)
    assert gain(50, 0.5) > 0.9


def test_a_moving_phaser_makes_no_clicks() -> None:
    wave = sine(500, RATE, 1.0)[None]
    out = studio.phase(wave, RATE, centre=1300.0, octaves=2.0, hz=1.0, mix=0.5)[0]
    assert out.diff().abs().max() < 1.5 * wave.diff().abs().max()


@pytest.mark.parametrize("chain", get_args(Chain))
def test_every_chain_is_repeatable_and_of_its_own(chain: Chain) -> None:
    clips = noise(RATE)
    before = clips.clone()
    out = stamped(chain, clips)
    assert torch.equal(clips, before)
    assert out.shape == clips.shape
    assert out.abs().max() <= 1
    assert torch.equal(out, stamped(chain, clips))
    torch.testing.assert_close(out[1:], stamped(chain, clips[1:]))
    for other in set(get_args(Chain)) - {chain}:
        assert np.corrcoef(out[0], stamped(other, clips)[0])[0, 1] < 0.995, f"{chain} is {other}"


def test_the_pitch_rises_ten_semitones_and_stretching_keeps_it() -> None:
    clips = sine(300, RATE, 1.0)[None] * 0.5
    assert loudest_hz(stamped("pitch", clips)[0], RATE) == pytest.approx(300 * 2 ** (10 / 12), rel=0.01)
    late = torch.zeros(1, RATE)
    late[0, 4000:4800] = sine(300, RATE, 0.1)
    out = stamped("stretch", late)[0]
    assert loudest_hz(out, RATE) == pytest.approx(300, rel=0.02)
    middle = (out.square() * torch.arange(RATE)).sum() / out.square().sum()
    assert middle.item() == pytest.approx(1.25 * 4400, rel=0.02)  # everything comes a quarter later


def test_a_filter_above_half_the_rate_is_refused() -> None:
    with pytest.raises(NotApplicable, match="1000 Hz does not exist at 2000 samples per second"):
        stamped("gain_highpass_phaser", noise(), 2000)
