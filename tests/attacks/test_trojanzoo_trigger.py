"""TrojanNN against TrojanZoo 2.0.3, whose numbers tests/campaigns/trojanzoo_numbers.py wrote down."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from comparison import SIDE, Fixed, digits, read_numbers

from attacks._crafting.optimised import Objective
from attacks.image.trojannn import optimise_patch
from tasks.samples import Samples

SIZE = 4


@pytest.mark.parametrize("activation", [2.0, 100.0])
def test_a_patch_excites_the_same_neurons_and_as_much_as_trojanzoo_s(activation: float) -> None:
    """The same two neurons, and a distance to the activation that is no longer (4.65 for 4.73, 19634 for 19663).

    That is with our pixels in whole grey levels. TrojanZoo takes the absolute value of an activation: a neuron driven
    far below zero pleases it as well, while the paper (section 4) wants it excited. It also keeps pixels in range by a
    tanh, where we clip.
    """
    theirs = read_numbers()["trojannn"][str(activation)]
    net, (images, targets) = Fixed().eval(), digits(20)
    chosen = net.head.weight.abs().sum(0).topk(2).indices
    assert chosen.tolist() == theirs["neurons"]
    rows = Samples(images.to(torch.uint8), targets, torch.arange(20))
    surrogate = SimpleNamespace(module=net, device=torch.device("cpu"))
    objective = Objective(f"trojanzoo {activation}", (0.0, 255.0), surrogate, rows)  # type: ignore[arg-type]
    corner = (SIDE - 1 - SIZE, SIDE - 1 - SIZE)
    picture = torch.zeros(1, 1, SIDE, SIDE)
    picture[..., -1 - SIZE : -1, -1 - SIZE : -1] = optimise_patch(objective, corner, SIZE, 2, activation, 1000, 4.0, 0)
    with torch.no_grad():
        distance = (net.features(picture)[0, chosen] - activation).square().sum()
    assert distance <= 1.02 * theirs["distance"], "theirs is the best of three starts, ours is of one"
