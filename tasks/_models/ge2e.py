"""GE2E, an encoder of speakers: its weights as a package brings them, the mel bands it hears, and its LSTM layers."""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tasks.files import hash_file
from tasks.net import Net
from tasks.plugin import BadInput
from tasks.spectrogram import CHUNK

GE2E = "ge2e"  # the name of this victim
PACKAGE, FILE = "resemblyzer", "pretrained.pt"  # importing the package needs librosa and webrtcvad
INSTALL = "pip install --no-deps resemblyzer==0.1.4"
WEIGHTS = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"  # SHA-256, in 0.1.3 and 0.1.4 on PyPI
RATE, WINDOW, HOP = 16_000, 400, 160  # samples per second; of 25 ms and of 10 ms
BANDS, UNITS, LAYERS = 40, 256, 3
LOUDNESS = 10 ** (-30 / 20)  # root mean square, of full scale, that quieter recordings are raised to
FLOOR = 1e-8  # power that is nothing to the first layer, which reads powers of about 1
MEAN, STD = -5.0, 2.0  # of log10 power over speech; fixed, so that encoding needs no data
SCALE = 32.0  # the features of recordings differ by about 1 / 32: a head would learn them slowly


class GE2ENet(Net):
    """The three LSTM layers of GE2E under a new head, which reads mean and spread of the last one's states; D = 512.

    Wan, Wang, Papir and Lopez Moreno, Generalized End-to-End Loss for Speaker Verification, 2018, arXiv 1710.10467, as
    trained by Resemble AI (resemblyzer, Apache-2.0): 1.4 million weights that tell speakers apart by windows of 1.6 s.
    Mean and standard deviation over frames: Snyder et al., X-vectors, 2018, doi 10.1109/ICASSP.2018.8461375.
    Deviations: the published features are one layer more, on the state of the last frame, which is often silence here;
    silence is not cut out of recordings, and they are read whole.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        weights = load_weights()
        layers = [Layer(UNITS if i else BANDS) for i in range(LAYERS)]
        for i, layer in enumerate(layers):
            parts = {name: weights[f"lstm.{name[:-1]}{i}"] for name, _ in layer.lstm.named_parameters()}
            layer.lstm.load_state_dict(parts)
        self.stages = nn.ModuleList([nn.Sequential(Power(), layers[0]), *layers[1:]])
        self.attach_head(2 * UNITS, classes)

    def embed(self, x: Tensor) -> Tensor:
        """(N, 1, M, F) log-mel frames, roughly zero mean and unit spread, as `mel_frames` makes them."""
        return x.float()

    def pool(self, h: Tensor) -> Tensor:
        """(N, 2 U) mean and standard deviation over frames of states (N, F, U), brought to unit spread over speech."""
        spread = (h.var(1, correction=0) + 1e-12).sqrt()  # the root of zero has no gradient
        return SCALE * torch.cat([h.mean(1), spread], 1)


class Power(nn.Module):
    """Log-mel frames (N, 1, M, F) as the powers (N, F, M) that the first layer was trained on."""

    def forward(self, x: Tensor) -> Tensor:
        return (10 ** (x * STD + MEAN) - FLOOR)[:, 0].transpose(1, 2)


class Layer(nn.Module):
    """One layer of an LSTM: (N, F, E) to its states at every frame, (N, F, U)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, UNITS, batch_first=True)

    def forward(self, h: Tensor) -> Tensor:
        # cuDNN has no gradient of a recurrent layer in evaluation mode, which attacks and inspections ask for.
        read = (h, *self.parameters())
        sloped = not self.training and torch.is_grad_enabled() and any(t.requires_grad for t in read)
        with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not sloped):
            states: Tensor = self.lstm(h)[0]
        return states


def mel_frames(audio: Tensor, rate: int) -> Tensor:
    """(N, T) in [-1, 1] to (N, 1, M, F), as librosa makes power spectrograms, then on a log scale. Differentiable.

    Recordings are brought to 16 kHz, and quiet ones raised to -30 dB of full scale, as the published model's were. At
    a lower rate the upper bands hear nothing. Roughly zero mean, unit spread; F = 1 + one per 10 ms.
    """
    window, filters = torch.hann_window(WINDOW, device=audio.device), mel_filters().to(audio.device)
    out = []
    for part in torch.split(audio, CHUNK):
        wave = resample(part, rate)
        wave = wave * (LOUDNESS / wave.square().mean(1, keepdim=True).sqrt().clamp(min=1e-9)).clamp(min=1)
        spectrum = torch.stft(
            wave, WINDOW, HOP, window=window, center=True, pad_mode="constant", return_complex=True
        )  # (n, bins, F)
        power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2) @ filters  # (n, F, M)
        out.append(((power + FLOOR).log10() - MEAN) / STD)
    return torch.cat(out).transpose(1, 2)[:, None]


def resample(audio: Tensor, rate: int) -> Tensor:
    """(N, T) at this rate as (N, T') at 16 kHz, through the spectrum: nothing is added above what was there."""
    before, after = audio.shape[1], max(1, round(audio.shape[1] * RATE / rate))
    if after == before:
        return audio
    shorter = min(before, after)
    spectrum = torch.fft.rfft(audio)[:, : shorter // 2 + 1]
    if shorter % 2 == 0:  # the bin of half the lower rate stands for two where that rate is higher
        spectrum = torch.cat([spectrum[:, :-1], spectrum[:, -1:] * (0.5 if after > before else 2)], 1)
    wave: Tensor = torch.fft.irfft(spectrum, n=after)
    return wave * (after / before)


@lru_cache(maxsize=1)
def mel_filters() -> Tensor:
    """(WINDOW // 2 + 1, M) triangles of equal area on Slaney's mel scale: linear to 1 kHz, logarithmic above."""
    step = np.log(6.4) / 27
    top = 15 + np.log(RATE / 2 / 1000) / step
    mel = np.linspace(0, top, BANDS + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(step * (mel - 15)))
    hz = np.linspace(0, RATE / 2, WINDOW // 2 + 1)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((hz - left) / (centre - left), (right - hz) / (right - centre)).clip(0)
    return torch.from_numpy(triangles * 2 / (right - left)).float()


def find_weights() -> str:
    """The file of weights in the installed package, which is not imported.

    Raises BadInput where it is not installed, or holds anything but the published weights.
    """
    found = find_spec(PACKAGE)
    file = Path(found.origin).parent / FILE if found and found.origin else None
    if file is None or not file.is_file():
        raise BadInput(f"victim={GE2E!r}: the package {PACKAGE} is not installed; {INSTALL} brings the weights")
    check_published(file, hash_file(file))
    return str(file)


def check_published(file: str | Path, found: str) -> None:
    """Raises BadInput for a file whose SHA-256, `found`, is not that of the published weights."""
    if found != WEIGHTS:
        raise BadInput(
            f"victim={GE2E!r}: {file} is not that of resemblyzer 0.1.4 (SHA-256 {WEIGHTS[:12]}...) and is not read; "
            f"{INSTALL} --force-reinstall"
        )


def load_weights() -> dict[str, Tensor]:
    """The tensors of the published model, by name. Raises BadInput for a file that holds anything else.

    The file is a pickle, and the project unpickles nothing that it did not write. This is the one exception: the bytes
    that are read are known by their hash, and with `weights_only` they could make nothing but tensors and containers.
    """
    file = find_weights()
    content = Path(file).read_bytes()
    check_published(file, hashlib.sha256(content).hexdigest())
    weights: dict[str, Tensor] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")["model_state"]
    return weights
