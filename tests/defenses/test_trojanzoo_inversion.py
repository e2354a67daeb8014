"""Neural Cleanse against TrojanZoo 2.0.3, whose numbers tests/campaigns/trojanzoo_numbers.py wrote down."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from comparison import CLASSES, SIDE, Fixed, digits, read_numbers, waves
from torch import Tensor

from defenses.inspection import neural_cleanse
from defenses.inspection.neural_cleanse import NeuralCleanse, anomaly

ROWS, BATCH = 200, 50
THEIRS = read_numbers()["neural_cleanse"]


@pytest.fixture
def same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start that TrojanZoo had, and the rows in their own order."""
    start = waves(CLASSES, 2, SIDE, SIDE) / 2
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: start + 0.5)
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.arange(n))


def invert(epochs: int) -> tuple[Tensor, Tensor]:
    net = Fixed().eval()
    x = digits(ROWS)[0] / 255
    return NeuralCleanse(epochs=epochs, batch_size=BATCH).invert(net, x, 0.0, 255.0, CLASSES, torch.Generator())


@pytest.mark.usefixtures("same_draws")
def test_four_steps_move_mask_and_pattern_as_trojanzoo_s_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch of the same batches: to a millionth in float32, to a hundredth in the bfloat16 that it is searched in.

    Ours takes the steps of all classes in one batch, TrojanZoo's those of each class on its own. In later epochs it
    lowers its rate by a cosine, which neither the paper nor the authors' code does.
    """
    masks, patterns = (torch.tensor(THEIRS[f"{part}_after_one_epoch"]) for part in ("masks", "patterns"))
    norms = torch.tensor(THEIRS["norms_after_one_epoch"])
    for exact, tolerance in ((False, 0.02), (True, 2e-6)):
        if exact:
            monkeypatch.setattr(neural_cleanse, "autocast", lambda device: nullcontext())
        mask, pattern = invert(1)
        torch.testing.assert_close(mask[:3].flatten(1), masks, atol=tolerance, rtol=0)
        torch.testing.assert_close(pattern[:3].flatten(1), patterns, atol=tolerance, rtol=0)
        torch.testing.assert_close(mask.sum((1, 2, 3)), norms, atol=tolerance, rtol=tolerance)


@pytest.mark.usefixtures("same_draws")
def test_the_search_ends_with_masks_as_small_as_trojanzoo_s() -> None:
    """40 epochs: masks 7 to 17 % smaller, and 7 % in the mean (-3 to 15) once they are made to turn as many rows.

    Both count a success over the steps of an epoch, like the authors' code, so that what an epoch ends with may turn a
    percent or two less: ours 97.5 to 98.5 % of the rows, theirs 98.5 to 100 %. Hence our masks are deepened here until
    they turn as many. TrojanZoo hands out the mask of the last epoch: `optimize_mark` never lowers its `norm_best`.
    """
    mask, pattern = invert(40)
    x, net, ratios = digits(ROWS)[0] / 255, Fixed().eval(), []
    for label, (norm, wanted) in enumerate(zip(THEIRS["norms"], THEIRS["turned"], strict=True)):

        def turned(mask: Tensor, label: int = label) -> float:
            stamped = x + mask * (pattern[label] - x)
            return float((net(255 * stamped).argmax(1) == label).float().mean())

        assert turned(mask[label]) >= 0.95
        deeper = ((mask[label] * (1 + i / 100)).clamp(max=1) for i in range(60))
        ratios.append(float(next(m.sum() for m in deeper if turned(m) >= wanted)) / norm)
    assert max(ratios) < 1.1
    assert 0.75 < np.mean(ratios) < 1, "much smaller: then it has been another search"


def test_the_anomaly_index_is_trojanzoo_s_of_the_smallest_mask() -> None:
    norms, indices = (np.array(read_numbers()["anomaly"][part]) for part in ("norms", "indices"))
    index, target = anomaly(torch.tensor(norms))
    assert target == norms.argmin()
    assert index == pytest.approx(indices[target], rel=1e-6)
