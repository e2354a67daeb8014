"""Adversarial neuron pruning: switch off the neurons that a small change of weights turns towards the backdoor."""

from __future__ import annotations

from typing import Annotated, ClassVar, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.func import functional_call

from defenses._batch_norm import find_batch_norms, use_batch_statistics
from defenses.base import Case, Defense
from defenses.repair._masks import Scales, draw_batches, prune
from tasks.deployed import Model, Victim, autocast, layout
from tasks.plugin import Above0, Positive, Share, options
from tasks.samples import Samples


@options
class Anp(Defense):
    """Repair: learns which channels keep clean accuracy while all are perturbed against it, and prunes the rest.

    Wu and Wang, 2021 (ANP), arXiv 2110.14430, section 4: a mask in [0, 1] multiplies the weight of every batch norm;
    weights and biases are moved by up to eps of themselves, from a random start by one signed step that raises the
    loss; the mask minimises alpha * clean loss + (1 - alpha) * that loss. Batch statistics as in training, since with
    the running ones the mask shrinks everything at once, and no channel stands out. Pruned are the weights.
    The moved values are clipped to eps, as the paper's maximum has it; the published code lets them reach 2 eps.
    Deviations: 200 clean rows instead of 1 % of 50,000, one half for the mask; 500 steps of 64 rows instead of 2,000 of
    128, for time; of the thresholds 0, 0.05, ..., 0.9 the largest that costs no more than a tolerated share of accuracy
    on the other half, where published code chooses by test ASR.
    Seen on fashion_mnist (2,000 rows, badnets 100, seeds 0 to 2): ASR 1.00 to 0.10, 0.00 and 0.04, accuracy 0.875 to
    0.795 (`reserve_only`: 0.777). The steps were chosen with 200 steps on seed 0 in view, which left 0.31. On fsdd
    (600 clips, tone_clip 100, seed 0) 0.03 is left, at an accuracy of 0.863, below `reserve_only`.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "audio")
    why_not: ClassVar[str] = "it prunes channels of a network with batch norm"
    stage: ClassVar[str] = "repair"
    paper: ClassVar[str] = "arXiv 2110.14430"

    clean_rows: Annotated[int, Field(ge=2)] = 200  # drawn from the reserve
    steps: Positive = 500  # of the mask
    eps: Above0 = 0.4  # of the perturbation, relative
    alpha: Share = 0.2  # weight of the clean loss
    lr: Above0 = 0.2  # of the mask, by SGD
    batch_size: Positive = 64
    tolerance: Share = 0.1  # share of the victim's accuracy on held-out clean rows that pruning may cost

    def defend(self, case: Case) -> Model:
        victim, clean = case.fit(case.train), case.clean(self.clean_rows)
        half = (len(clean) + 1) // 2
        mask = self.learn_mask(victim, clean.select(range(half)), case.rng)
        prune(victim, mask, clean.select(range(half, len(clean))), self.tolerance)
        return victim

    def learn_mask(self, victim: Victim, clean: Samples, rng: torch.Generator) -> Scales:
        """The mask after all steps, one number in [0, 1] per channel; the victim stays as it is."""
        net = use_batch_statistics(victim).requires_grad_(False)
        x, y = victim.task.rows(clean, victim.device)
        norms = find_batch_norms(victim)
        before = {name: value.clone() for name, value in net.state_dict().items()}
        mask = {name: torch.ones_like(norm.weight).requires_grad_() for name, norm in norms}
        optimiser = torch.optim.SGD(mask.values(), self.lr, momentum=0.9)

        def loss(rows: Tensor, noise: Scales | None) -> Tensor:
            scales: Scales = {}
            for name, norm in norms:
                weight, bias = (noise[f"{name}.{part}"] if noise else 0 for part in ("weight", "bias"))
                scales[f"{name}.weight"] = norm.weight * (mask[name] + weight)
                scales[f"{name}.bias"] = norm.bias * (1 + bias)
            with autocast(victim.device):
                logits = cast("Tensor", functional_call(net, scales, (layout(x[rows]),)))
            return F.cross_entropy(logits.float(), y[rows])

        for rows in draw_batches(len(x), self.batch_size, self.steps, rng):
            start = {f"{n}.{p}": self.draw_noise(norm.weight, rng) for n, norm in norms for p in ("weight", "bias")}
            slopes = torch.autograd.grad(loss(rows, start), list(start.values()))
            moved = [v.detach() + self.eps * g.sign() for v, g in zip(start.values(), slopes)]
            noise = {n: v.clamp(-self.eps, self.eps) for n, v in zip(start, moved)}
            optimiser.zero_grad()
            (self.alpha * loss(rows, None) + (1 - self.alpha) * loss(rows, noise)).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            with torch.no_grad():
                for part in mask.values():
                    part.clamp_(0, 1)
        net.load_state_dict(before)  # the statistics of batches have moved
        return {name: part.detach() for name, part in mask.items()}

    def draw_noise(self, like: Tensor, rng: torch.Generator) -> Tensor:
        """Uniform in [-eps, eps], of a batch norm's shape."""
        return (torch.rand(like.shape, generator=rng) * 2 - 1).mul(self.eps).to(like.device).requires_grad_()
