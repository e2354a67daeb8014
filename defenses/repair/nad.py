"""Neural attention distillation: a fine-tuned teacher tells the victim where to look."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.base import Case, Defense
from tasks.base import Batch
from tasks.deployed import Model, Victim
from tasks.net import Net
from tasks.plugin import Above0, AtLeast0, Positive, options


@options
class Nad(Defense):
    """Repair: fine-tunes a teacher on clean rows, then aligns the victim's attention maps with the teacher's.

    Li, Lyu, Koren, Lyu, Li and Ma, 2021, arXiv 2101.05930, section 3: squared activations, averaged over channels.
    Deviations: 200 clean rows instead of 5 % of the training set; one beta for every stage (published for wide residual
    networks: 500, 1000 and 1000); SGD at a rate of 0.03 instead of 0.1; one-cycle schedule.
    A sequence's attention is over its tokens, padding included.
    """

    why_not: ClassVar[str] = "a linear model of a table has no attention maps"
    stage: ClassVar[str] = "repair"
    paper: ClassVar[str] = "arXiv 2101.05930"

    clean_rows: Positive = 200  # drawn from the reserve
    teacher_epochs: Positive = 10  # of fine-tuning the teacher (section 4.1)
    epochs: Positive = 20  # of distillation
    beta: AtLeast0 = 1000.0  # weight of every stage's attention loss
    power: Above0 = 2.0  # exponent p of the activations
    batch_size: Positive = 64
    lr: Above0 = 0.03  # peak learning rate of SGD
    weight_decay: AtLeast0 = 1e-4

    def defend(self, case: Case) -> Model:
        victim, clean = case.fit(case.train), case.clean(self.clean_rows)
        fit = partial(
            case.fit,
            clean,
            init=victim,
            optimizer="sgd",
            lr=self.lr,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
        )
        teacher = fit(epochs=self.teacher_epochs)
        return fit(epochs=self.epochs, loss=partial(self.loss, teacher=teacher))

    def loss(self, module: Net, batch: Batch, teacher: Victim) -> Tensor:
        """() cross-entropy plus beta times the distance of the attention maps, summed over stages."""
        with torch.no_grad():
            teacher_maps, _ = run_stages(teacher.module.eval(), batch.x)
        own_maps, logits = run_stages(module, batch.x)
        distances = [
            F.mse_loss(attention(g, self.power), attention(w, self.power)) for g, w in zip(own_maps, teacher_maps)
        ]
        return F.cross_entropy(logits.float(), batch.y) + self.beta * torch.stack(distances).sum()


def run_stages(module: Net, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Every stage's output, without the mask of a sequence, and the (N, K) logits."""
    outputs: list[Tensor] = []
    hooks = [stage.register_forward_hook(lambda _, __, out: outputs.append(out)) for stage in module.stages]
    try:
        logits = module(x)
        return [out[..., :-1] for out in outputs] if module.masked else outputs, logits
    finally:
        for hook in hooks:
            hook.remove()


def attention(h: Tensor, power: float) -> Tensor:
    """(N, P) attention over the P positions of a stage's output (N, C, H, W) or (N, L, E), of unit L2 norm per row."""
    h = h.float().abs().pow(power)
    return F.normalize((h.mean(1) if h.ndim == 4 else h.mean(2)).flatten(1), dim=1)
