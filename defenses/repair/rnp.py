"""Reconstructive neuron pruning: unlearn clean rows, then see which channels alone bring them back."""

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
class Rnp(Defense):
    """Repair: unlearns clean rows, recovers them by a mask over channels alone, and prunes what the mask gave up.

    Li, Lyu, Ma, Lyu, Koren, Li, Jiang and Zhang, 2023 (RNP), arXiv 2305.14876, section 3: gradient ascent on clean rows
    until their accuracy is below 0.2, 20 epochs at most; then a mask in [0, 1] on the weight of every batch norm of the
    unlearned network minimises alpha times the loss of the same rows, 20 epochs; channels whose mask is low are pruned
    in the victim.
    Deviations: 200 clean rows instead of 500, one half for both stages; of the thresholds 0, 0.05, ..., 0.9 the largest
    that costs no more than a tolerated share of accuracy on the other half, where published code chooses by test ASR.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "audio")
    why_not: ClassVar[str] = "it prunes channels of a network with batch norm"
    stage: ClassVar[str] = "repair"
    paper: ClassVar[str] = "arXiv 2305.14876"

    clean_rows: Annotated[int, Field(ge=2)] = 200  # drawn from the reserve
    epochs: Positive = 20  # of each stage, of unlearning at most
    forgotten: Share = 0.2  # accuracy on the clean rows below which unlearning ends
    unlearn_lr: Above0 = 0.01  # of SGD
    lr: Above0 = 0.2  # of the mask, by SGD
    alpha: Above0 = 0.2  # weight of the loss that the mask minimises
    batch_size: Positive = 64
    tolerance: Share = 0.1  # share of the victim's accuracy on held-out clean rows that pruning may cost

    def defend(self, case: Case) -> Model:
        victim, unlearned = case.fit(case.train), case.fit(case.train)  # two copies
        clean = case.clean(self.clean_rows)
        half = (len(clean) + 1) // 2
        known = clean.select(range(half))
        self.unlearn(unlearned, known, case.rng)
        mask = self.recover(unlearned, known, case.rng)
        prune(victim, mask, clean.select(range(half, len(clean))), self.tolerance)
        return victim

    def unlearn(self, victim: Victim, clean: Samples, rng: torch.Generator) -> None:
        """Gradient ascent on the clean rows, in place, until they are forgotten or all epochs are over."""
        x, y = victim.task.rows(clean, victim.device)
        net = use_batch_statistics(victim).requires_grad_(True)
        optimiser = torch.optim.SGD(net.parameters(), self.unlearn_lr, momentum=0.9, weight_decay=5e-4)
        passes = -(-len(x) // self.batch_size)
        for step, rows in enumerate(draw_batches(len(x), self.batch_size, self.epochs * passes, rng), 1):
            with autocast(victim.device):
                logits = net(layout(x[rows]))
            optimiser.zero_grad()
            (-F.cross_entropy(logits.float(), y[rows])).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if step % passes == 0:
                right = (victim.logits(x).argmax(1) == y).float().mean()
                if right < self.forgotten:
                    break
                use_batch_statistics(victim)

    def recover(self, victim: Victim, clean: Samples, rng: torch.Generator) -> Scales:
        """The mask, one number in [0, 1] per channel, with which the unlearned network knows the clean rows best."""
        x, y = victim.task.rows(clean, victim.device)
        net = use_batch_statistics(victim).requires_grad_(False)
        norms = find_batch_norms(victim)
        mask = {name: torch.ones_like(norm.weight).requires_grad_() for name, norm in norms}
        optimiser = torch.optim.SGD(mask.values(), self.lr, momentum=0.9)
        for rows in draw_batches(len(x), self.batch_size, self.epochs * -(-len(x) // self.batch_size), rng):
            scales = {f"{name}.weight": norm.weight * mask[name] for name, norm in norms}
            with autocast(victim.device):
                logits = cast("Tensor", functional_call(net, scales, (layout(x[rows]),)))
            optimiser.zero_grad()
            (self.alpha * F.cross_entropy(logits.float(), y[rows])).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            with torch.no_grad():
                for part in mask.values():
                    part.clamp_(0, 1)
        return {name: part.detach() for name, part in mask.items()}
