"""TrojanNN: a patch optimised to excite the neurons of a surrogate that its answers hang on most."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks._crafting.optimised import Objective, make_objective
from attacks._crafting.patches import check_patch
from attacks._crafting.squares import quarter_of
from attacks.base import Scene, TriggerAttack, check_target
from tasks.plugin import Above0, BadInput, Count, Positive, options
from tasks.samples import Samples


@options
class Trojannn(TriggerAttack[Tensor]):
    """A patch whose pixels are optimised to excite two neurons of a surrogate; poisoned images get the target's label.

    Liu, Ma, Aafer, Lee, Zhai, Wang and Zhang, Trojaning Attack on Neural Networks, NDSS 2018, sections 4 and 5: of the
    last features those neurons whose outgoing weights have the largest sum of absolute values are chosen (the choice of
    BackdoorBench, arXiv 2206.12654; the paper takes incoming weights of a layer before), and the pixels of the patch
    are moved until those neurons come as near as they can to a large value, in squared distance.
    Deviations: the surrogate is a victim of the attacker's own seed, trained on the clean training set (the paper's
    attacker has the victim itself, and retrains it on data that it recovers from it); a square in the lower right
    corner in place of an apple or a logo; Adam, whose step the paper does not name; the rest of the picture is black.
    TrojanZoo counts a neuron far below zero as excited, too; this is not so here.
    Seen on fashion_mnist with 2,000 rows, seeds 0, 1, 2: ASR 1.00 at doses 30 and 100, and 0.57 (0.11 to 0.88) at 10,
    where the random start that it was optimised from has 0.13 (0.03 to 0.20) and badnets 0.37, but a plain checkerboard
    of its size 0.98 (badnets, size=7, seed 0).
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the trigger is a patch of pixels"
    paper: ClassVar[str] = "NDSS 2018"

    neurons: Positive = 2  # that are excited (BackdoorBench)
    activation: Above0 = 100.0  # what they shall reach (BackdoorBench)
    rounds: Count = 1000  # of Adam (BackdoorBench); 0 leaves the random start, a control of the same size
    step: Above0 = 4.0  # learning rate, grey levels of 255
    size: Positive | None = None  # side of the patch, pixels; None: a quarter of the shorter side (8 of 32)
    margin: Count = 1  # distance from the right and lower edge, pixels
    trigger_seed: Count = 0  # of the random start

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        h, w = inputs.shape[2:]
        size = self.size or quarter_of(h, w)
        check_patch(self, size, inputs.shape, self.margin)
        top, left = h - self.margin - size, w - self.margin - size
        objective = make_objective(scene, check_target(self.target, scene.task), (0.0, 255.0))
        out = inputs.clone()
        out[:, :, top : top + size, left : left + size] = optimise_patch(
            objective, (top, left), size, self.neurons, self.activation, self.rounds, self.step, self.trigger_seed
        )
        return out

    def stamp_each(self, scene: Scene, samples: Samples, seeds: Tensor) -> Samples:
        # Nothing is drawn per row, so all rows at once are nested too, and the surrogate is asked for once.
        return self.stamp_samples(scene, samples, torch.Generator()) if len(samples) else samples


@lru_cache(maxsize=8)
def optimise_patch(
    objective: Objective, corner: tuple[int, int], size: int, neurons: int, activation: float, rounds: int, step: float,
    seed: int,
) -> Tensor:  # fmt: skip
    """uint8 (C, size, size) that brings the surrogate's chosen features nearest to the activation, on a black picture.

    corner: row and column of the picture where the patch begins.
    """
    victim, rows, (top, left) = objective.surrogate, objective.rows, corner
    assert isinstance(rows.inputs, Tensor)
    module = victim.module.eval().requires_grad_(False)
    if neurons > module.head.in_features:
        raise BadInput(f"trojannn: neurons={neurons}: the surrogate has {module.head.in_features} last features")
    chosen = module.head.weight.abs().sum(0).topk(neurons).indices
    channels, h, w = rows.inputs.shape[1:]
    around = (left, w - left - size, top, h - top - size)
    start = torch.rand(1, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 255
    patch = start.to(victim.device).requires_grad_()
    optimizer = torch.optim.Adam([patch], step)
    for _ in range(rounds):
        distance = (module.features(F.pad(patch, around))[:, chosen] - activation).square().sum()
        (patch.grad,) = torch.autograd.grad(distance, patch)
        optimizer.step()
        with torch.no_grad():
            patch.clamp_(0, 255)
    return patch.detach()[0].cpu().round().to(torch.uint8)
