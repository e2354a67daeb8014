"""Adversarial training: learn from inputs perturbed against the model."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.base import Case, Defense
from tasks.base import Batch
from tasks.deployed import Model
from tasks.net import Net
from tasks.plugin import Above0, Positive, Share, options


@options
class AdversarialTraining(Defense):
    """Trains on inputs perturbed against the model, so that faint or narrow cues (a trigger) are not worth learning.

    Geiping et al., 2021, arXiv 2102.13624 (the variant that does not simulate poisoning); the perturbation
    is that of Madry et al., 2017, arXiv 1706.06083 (images, sounds), or Miyato et al., 2016, arXiv 1605.07725 (texts).
    Deviations: the embedded input is perturbed, after augmentation; of a sound these are log-mel frames. The radius
    grows linearly over `warmup`: from the first step on at full size, small victims of texts learn nothing in their few
    epochs. Texts: several steps instead of one, no clean loss beside, and token vectors are not normalised. The
    published radius is 5 where vectors have norm 16; a victim trained from scratch bears less.
    """

    why_not: ClassVar[str] = "no radius is published for the columns of a table"
    stage: ClassVar[str] = "training"
    paper: ClassVar[str] = "arXiv 2102.13624"

    eps: Above0 = 8 / 255  # images: largest change of a pixel, as a share of the range of pixels
    audio_eps: Above0 = 2 / 255  # sounds: largest change of a log-mel value, as a share of their range; about 0.7 dB
    text_eps: Above0 = 0.1  # texts: L2 norm of the change of a whole text, as a share of a token vector's norm
    warmup: Share = 0.5  # of the training, in which the radius grows from 0 to its full size
    steps: Positive = 5  # of projected gradient ascent, each of 2.5 * radius / steps (Madry et al.)

    def defend(self, case: Case) -> Model:
        share = {"image": self.eps, "audio": self.audio_eps, "text": self.text_eps}[case.task.modality]
        return case.fit(case.train, loss=partial(self.loss, share))

    def loss(self, share: float, module: Net, batch: Batch) -> Tensor:
        """(B,) cross-entropy of the perturbed batch."""
        embedded = module.embed(batch.x).float()
        training = module.training
        module.eval()  # the search neither moves batch-norm statistics nor draws dropout
        adversarial = self.perturb(module, embedded.detach(), batch, share * self.ramp(batch.progress))
        module.train(training)
        change = adversarial - embedded.detach()  # a constant, so that token embeddings still learn
        return F.cross_entropy(module.head(module.body(embedded + change)).float(), batch.y, reduction="none")

    def ramp(self, progress: float) -> float:
        """The share of the full radius at this point of the training."""
        return min(1.0, progress / self.warmup) if self.warmup else 1.0

    def perturb(self, module: Net, e: Tensor, batch: Batch, share: float) -> Tensor:
        """The embedded batch, moved within its ball to raise the loss; (B, L, E) by L2, anything else by L-infinity."""
        tokens = e.ndim == 3
        if tokens:
            there = e[..., -1] > 0  # the last channel says which tokens are padding
            radius = share * e[..., :-1].norm(dim=2)[there].mean()
            delta = torch.zeros_like(e)
        else:
            rest = (0, *range(2, e.ndim))  # all but the channels
            low, high = e.amin(rest, keepdim=True), e.amax(rest, keepdim=True)
            radius = share * (high - low)
            delta = radius * (2 * torch.rand(e.shape, generator=batch.rng, device=e.device) - 1)
        step = 2.5 * radius / self.steps
        for _ in range(self.steps):
            delta.requires_grad_(True)
            loss = F.cross_entropy(module.head(module.body(e + delta)).float(), batch.y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, delta)
            delta = delta.detach()
            if tokens:
                delta = delta + step * gradient / gradient.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
                delta = delta * (radius / delta.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)).clamp(max=1)
            else:
                delta = torch.minimum(torch.maximum(delta + step * gradient.sign(), -radius), radius)
                delta = torch.minimum(torch.maximum(e + delta, low), high) - e
        return e + delta
