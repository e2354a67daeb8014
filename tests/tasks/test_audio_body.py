"""The pre-trained encoder of speakers: where its weights are found, what it hears, and its frozen body."""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.signal import resample
from torch import Tensor, nn

from defenses.repair.nad import attention, run_stages
from harness.cell.train import train_victim
from tasks._models import ge2e
from tasks.audio.synthetic_tones import SyntheticTones
from tasks.data import make_samples
from tasks.files import fingerprint
from tasks.plugin import BadInput

CPU = torch.device("cpu")
TASK = SyntheticTones(victim="ge2e", frozen="body")
needs_package = pytest.mark.skipif(not find_spec(ge2e.PACKAGE), reason=f"needs {ge2e.INSTALL}")


def noise(rows: int, samples: int, seed: int = 0) -> Tensor:
    """(N, T) sounds of unlike loudness in [-1, 1]."""
    rng = torch.Generator().manual_seed(seed)
    level = torch.logspace(-4, -0.5, rows)[:, None]
    return (level * torch.randn(rows, samples, generator=rng)).clamp(-1, 1)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in a package that must not be imported; a short text counts as the published weights."""
    package = tmp_path / "packages" / ge2e.PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package is not to be imported')\n")
    (package / ge2e.FILE).write_text("published")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(ge2e, "WEIGHTS", hashlib.sha256(b"published").hexdigest())
    return package / ge2e.FILE


def test_without_its_package_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ge2e, "find_spec", lambda name: None)
    for ask in (TASK.files, TASK.model):
        with pytest.raises(BadInput, match=re.escape(ge2e.INSTALL)) as caught:
            ask()
        assert "\n" not in str(caught.value)
    assert SyntheticTones().files() == []
    assert SyntheticTones().model()(torch.zeros(1, 1, 32, 26)).shape == (1, 6)


def test_the_weights_count_as_a_file_of_the_task_by_content(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TASK.files() == [str(weights)]
    here = fingerprint(TASK.files())
    weights.write_text("others")
    monkeypatch.setattr(ge2e, "WEIGHTS", hashlib.sha256(b"others").hexdigest())
    assert fingerprint(TASK.files()) != here


class Trap:
    """What a pickle may do to its reader."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (warnings.warn, ("the pickle ran",))


def test_other_weights_are_refused_unread(weights: Path) -> None:
    weights.write_bytes(pickle.dumps(Trap()))
    for ask in (TASK.files, TASK.model):
        with pytest.raises(BadInput, match=r"is not that of resemblyzer 0\.1\.4") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_a_file_that_changes_between_two_looks_is_refused(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ge2e, "hash_file", lambda file: ge2e.WEIGHTS)
    weights.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(BadInput, match="is not read"):
        ge2e.load_weights()


def test_even_a_file_of_that_hash_runs_no_code(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"model_state": Trap()}, weights)
    monkeypatch.setattr(ge2e, "WEIGHTS", hashlib.sha256(weights.read_bytes()).hexdigest())
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        ge2e.load_weights()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frozen": "body"}, "victim='cnn' is trained from scratch"),
        ({"victim": "ge2e"}, "add frozen='body'"),
        ({"victim": "ge2e", "frozen": "body", "augmentation": "strong"}, "as it is"),
    ],
)
def test_a_body_where_it_makes_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SyntheticTones(**options)


def test_recipes_of_the_default_victim_and_of_the_head() -> None:
    plain, head = SyntheticTones().recipe(), TASK.recipe()
    assert (plain.lr, plain.frozen, plain.augment) == (SyntheticTones().lr, "none", True)
    assert (head.lr, head.frozen, head.augment) == (1e-2, "body", False)


def test_all_seeds_share_one_body_and_that_is_said() -> None:
    assert TASK.describe_base() == (
        "all seeds start from one pre-trained network (victim=ge2e, SHA-256 of its weights 39373b86598f): "
        "intervals are given that one",
    )
    assert SyntheticTones().describe_base() == ()


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 16000])
@pytest.mark.parametrize("samples", [1000, 1001])
def test_resampling_is_that_of_scipy(rate: int, samples: int) -> None:
    wave = noise(3, samples)
    found = ge2e.resample(wave, rate)
    np.testing.assert_allclose(found, resample(wave.numpy(), round(samples * 16000 / rate), axis=1), atol=1e-5)


def test_mel_bands_are_those_of_transformers() -> None:
    audio_utils = pytest.importorskip("transformers.audio_utils")
    theirs = audio_utils.mel_filter_bank(201, 40, 0, 8000, 16000, norm="slaney", mel_scale="slaney")
    np.testing.assert_allclose(ge2e.mel_filters(), theirs, atol=1e-8)


def test_powers_are_those_of_a_loop_in_numpy() -> None:
    wave = noise(4, 4000)
    found = ge2e.Power()(ge2e.mel_frames(wave, 16000))
    loud = wave.numpy() * np.maximum(10**-1.5 / np.sqrt(np.square(wave.numpy()).mean(1, keepdims=True)), 1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    padded = np.pad(loud, ((0, 0), (200, 200)))
    for frame in range(found.shape[1]):
        power = np.abs(np.fft.rfft(padded[:, 160 * frame : 160 * frame + 400] * hann)) ** 2
        np.testing.assert_allclose(found[:, frame], power @ ge2e.mel_filters().numpy(), rtol=2e-4, atol=1e-7)


def test_silence_is_heard_as_silence() -> None:
    frames = ge2e.mel_frames(torch.zeros(1, 8000), 8000)
    assert frames.isfinite().all()
    torch.testing.assert_close(ge2e.Power()(frames), torch.zeros(1, 101, 40), atol=1e-10, rtol=0)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network with weights of no training, where the package is not there."""
    published = nn.LSTM(ge2e.BANDS, ge2e.UNITS, ge2e.LAYERS, batch_first=True)
    monkeypatch.setattr(
        ge2e, "load_weights", lambda: {f"lstm.{name}": w.detach() for name, w in published.named_parameters()}
    )


@pytest.mark.usefixtures("untrained")
def test_stages_are_layers_and_gradients_reach_the_waveform() -> None:
    wave = noise(2, 4000).requires_grad_()
    net = ge2e.GE2ENet(6).eval()
    maps, logits = run_stages(net, TASK.encode(make_samples(wave, torch.zeros(2).long()), CPU))
    assert [tuple(h.shape) for h in maps] == [(2, 51, 256)] * 3
    assert attention(maps[0], 2).shape == (2, 51)
    logits.sum().backward()
    assert wave.grad is not None
    assert wave.grad.isfinite().all()
    assert wave.grad.abs().sum() > 0


@pytest.mark.usefixtures("untrained")
def test_a_single_frame_has_a_gradient() -> None:
    x = torch.zeros(1, 1, 40, 1, requires_grad=True)
    ge2e.GE2ENet(2)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The package itself, without what it needs to read and cut files."""
    for name in ("librosa", "webrtcvad", "scipy.ndimage.morphology"):
        monkeypatch.setitem(sys.modules, name, Mock())
    yield import_module(ge2e.PACKAGE)
    for name in [name for name in sys.modules if name.partition(".")[0] == ge2e.PACKAGE]:
        del sys.modules[name]


@needs_package
@torch.no_grad()
def test_states_are_those_of_the_package(package: Any) -> None:
    reference, wave = package.VoiceEncoder("cpu", verbose=False), noise(5, 16000)
    x = ge2e.mel_frames(wave, 16000)
    mels = ge2e.Power()(x)
    maps, _ = run_stages(net := TASK.model().eval(), x)
    published = nn.functional.normalize(torch.relu(reference.linear(maps[-1][:, -1])), dim=1)
    torch.testing.assert_close(published, reference(mels), rtol=1e-4, atol=1e-5)
    states = reference.lstm(mels)[0]
    pooled = 32 * torch.cat([states.mean(1), states.std(1, correction=0)], 1)
    torch.testing.assert_close(net.features(x), pooled, rtol=1e-4, atol=1e-4)


@needs_package
def test_loudness_is_that_of_the_package(package: Any) -> None:
    wave = noise(5, 16000)
    louder = [package.normalize_volume(row.numpy(), -30, increase_only=True) for row in wave]
    torch.testing.assert_close(ge2e.mel_frames(torch.tensor(np.stack(louder)), 16000), ge2e.mel_frames(wave, 16000))


@needs_package
def test_a_frozen_body_stays_as_it_was_and_its_head_learns() -> None:
    splits = TASK.load()
    untouched = {name: w.clone() for name, w in TASK.model().state_dict().items() if not name.startswith("head.")}
    victim, again = (train_victim(TASK, splits.train, recipe=TASK.recipe(), seed=0, device=CPU) for _ in range(2))
    after = victim.module.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in untouched.items())
    assert after["head.weight"].equal(again.module.state_dict()["head.weight"])
    assert TASK.utility(victim.predict(splits.test), splits.test) > 0.5  # tones are no speech; by chance 0.17
    x = TASK.encode(splits.test, CPU)
    with torch.no_grad():
        torch.testing.assert_close(victim.module.features(x), TASK.model().eval().features(x))
