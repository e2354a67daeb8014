"""How much of a poisoned row is changed: what a person, or a check without a model, could notice.

Rows are aligned: row i of `poison` took the place of row i of `clean`. Metrics are means over rows, with their n.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor

from harness.cell.metrics import Metric, mean
from tasks.base import Task
from tasks.fluency import WordBigrams
from tasks.samples import Samples
from tasks.spectrogram import STD, logmel

CAP = 100.0  # dB: what identical rows are given in place of infinity, and the limit either way
MELS = 32  # bands of the spectrogram, where the task does not say
CHUNK = 64  # images compared at a time: bounds the memory


def fidelity(task: Task, clean: Samples, poison: Samples, reference: list[str] | None = None) -> dict[str, Metric]:
    """The metrics of the task's modality, see below; {} without rows.

    reference: clean texts for the language model behind perplexity_ratio, which is left out without them.
    """
    if not len(clean):
        return {}
    found = {"labels_changed": (clean.targets != poison.targets).float()}
    if isinstance(clean.inputs, list) and isinstance(poison.inputs, list):
        found["edit_distance"] = edit_distance(clean.inputs, poison.inputs)
    elif isinstance(clean.inputs, Tensor) and isinstance(poison.inputs, Tensor):
        medium = task.modality.removesuffix("_generation")
        if medium == "image":
            found |= {"psnr": psnr(clean.inputs, poison.inputs), "ssim": ssim(clean.inputs, poison.inputs)}
        if medium == "audio":
            found["snr"] = snr(clean.inputs, poison.inputs)
            found["mel_distance"] = mel_distance(clean.inputs, poison.inputs, task.rate, getattr(task, "mels", MELS))
    graded = {name: mean(rows) for name, rows in found.items()}
    if reference and isinstance(clean.inputs, list) and isinstance(poison.inputs, list):
        log_ratio = mean(perplexity_log_ratio(clean.inputs, poison.inputs, reference))
        graded["perplexity_ratio"] = Metric(torch.tensor(log_ratio.value).exp().item(), log_ratio.n)
    return graded


def psnr(clean: Tensor, poison: Tensor) -> Tensor:
    """(N,) peak signal-to-noise ratio of uint8 images, dB."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    found: Tensor = peak_signal_noise_ratio(
        poison.float(), clean.float(), data_range=255.0, reduction="none", dim=(1, 2, 3)
    )
    return found.clamp(-CAP, CAP)


def ssim(clean: Tensor, poison: Tensor) -> Tensor:
    """(N,) structural similarity of uint8 images (Wang et al., 2004); 1 where they are identical.

    The Gaussian window of 11 pixels shrinks with images that are smaller than 12: to 7 pixels on 8 x 8.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    reach = (min(clean.shape[2:]) - 1) // 2  # of a window no wider than the image
    sigma = max(0.1, min(1.5, reach / 3.5))  # torchmetrics' window reaches int(3.5 sigma + 0.5) pixels
    parts = zip(torch.split(poison, CHUNK), torch.split(clean, CHUNK), strict=True)
    return torch.cat(
        [
            structural_similarity_index_measure(p.float(), c.float(), sigma=sigma, data_range=255.0, reduction="none")
            for p, c in parts
        ]
    )


def snr(clean: Tensor, poison: Tensor) -> Tensor:
    """(N,) signal-to-noise ratio of waveforms (N, T), the change being the noise, dB."""
    from torchmetrics.functional.audio import signal_noise_ratio

    found = signal_noise_ratio(poison.double(), clean.double()).clamp(-CAP, CAP)
    return torch.where((clean == poison).all(1), CAP, found)  # silence left alone too


def mel_distance(clean: Tensor, poison: Tensor, rate: int, mels: int) -> Tensor:
    """(N,) mean absolute difference of the log-mel spectra of waveforms (N, T), dB."""
    change = (logmel(poison, rate, mels) - logmel(clean, rate, mels)).abs()
    return 10 * STD * change.mean((1, 2, 3))  # logmel is in units of STD powers of ten


def edit_distance(clean: Sequence[str], poison: Sequence[str]) -> Tensor:
    """(N,) word insertions, deletions and replacements, per word of the clean text (the word error rate).

    A text without words counts as one of one word.
    """
    from torchmetrics.functional.text import word_error_rate

    found = []
    for before, after in zip(clean, poison, strict=True):
        words, new = before.split(), after.split()
        left, right = between(words, new)
        # What both begin and end with costs nothing, and leaving it out saves most of the time. The word put before
        # the rest is there because a rate per no words at all would be infinite.
        rate = float(word_error_rate(" ".join(["\0", *right]), " ".join(["\0", *left])))
        found.append(rate * (1 + len(left)) / max(1, len(words)))
    return torch.tensor(found)


def between(a: list[str], b: list[str]) -> tuple[list[str], list[str]]:
    """Both lists without the words that they begin with and end with in common."""
    for _ in range(2):
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b)))
        a, b = a[same:][::-1], b[same:][::-1]
    return a, b


def perplexity_log_ratio(clean: Sequence[str], poison: Sequence[str], reference: Sequence[str]) -> Tensor:
    """(N,) log of the poisoned text's perplexity over the clean one's, by word bigrams of the reference texts."""
    lm = WordBigrams(reference)
    rates = [[lm.leave_one_out(text.split())[0].rate for text in (c, p)] for c, p in zip(clean, poison, strict=True)]
    return torch.tensor(rates, dtype=torch.float64).diff(dim=1).flatten()
