"""Writes down what TrojanZoo 2.0.3 finds on the network of tests/comparison.py, for the tests that compare with it.

It cannot be imported beside this project's own packages, as it asks matplotlib for a function that left it in 3.9. From
the root, with a folder of its own for it (written with torch 2.14.1, numpy 2.4.6, matplotlib 3.8.4):

    pip install --no-deps --target /tmp/zoo trojanzoo==2.0.3 matplotlib==3.8.4 scikit-image imageio lazy-loader tifffile
    PYTHONPATH=/tmp/zoo:.:tests python tests/campaigns/trojanzoo_numbers.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from comparison import CLASSES, NUMBERS, SIDE, Fixed, digits, waves
from torch import Tensor
from trojanvision.attacks.backdoor.normal.trojannn import TrojanNN
from trojanvision.defenses.backdoor.model_inspection.neural_cleanse import NeuralCleanse
from trojanvision.marks import Watermark
from trojanzoo.utils.metric import normalize_mad

SIZE, ROWS, BATCH = 4, 200, 50
MASKS = [9.0, 11.5, 10.2, 3.1, 12.0, 9.9, 10.8]


def bare(kind: type, **fields: Any) -> Any:
    """An object of the class without its constructor, which wants data sets, folders and a command line."""
    made = object.__new__(kind)
    made.__dict__.update(fields)
    return made


def watermark(side: int, offset: int) -> Any:
    """A square of opaque black, so many pixels from the upper and left edge."""
    return bare(
        Watermark, mark=torch.tensor([0.0, 1.0])[:, None, None].repeat(1, side, side), mark_alpha=1.0, add_mark_fn=None,
        mark_random_pos=False, mark_height=side, mark_width=side, mark_height_offset=offset, mark_width_offset=offset,
    )  # fmt: skip


def trojannn(net: Fixed, activation: float) -> dict[str, Any]:
    """The neurons, and the squared distance that the best of three patches leaves between them and the activation."""
    model = SimpleNamespace(
        state_dict=lambda: {"head.weight": net.head.weight},
        get_layer=lambda x, layer_output: net.features(255 * x),
    )
    attack = bare(
        TrojanNN, model=model, preprocess_layer="", preprocess_next_layer="head", neuron_num=2, neuron_lr=0.1,
        neuron_epoch=1000, target_value=activation, background=torch.zeros(1, 1, SIDE, SIDE),
    )  # fmt: skip
    chosen, reached = TrojanNN.get_neuron_idx(attack), []
    for seed in range(3):
        torch.manual_seed(seed)
        attack.mark = watermark(SIZE, SIDE - 1 - SIZE)
        TrojanNN.preprocess_mark(attack, chosen)
        features = net.features(255 * attack.mark.add_mark(attack.background))[0, chosen]
        reached.append(float((features - activation).square().sum()))
    return {"neurons": chosen.tolist(), "distance": min(reached)}


class Model:
    """The network as Neural Cleanse calls it."""

    def __init__(self, net: Fixed) -> None:
        self.net = net

    def __call__(self, x: Tensor) -> Tensor:
        return self.net(255 * x)

    def get_data(self, data: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return data

    def loss(self, x: Tensor, y: Tensor, _output: Tensor) -> Tensor:
        return F.cross_entropy(_output, y)


def cleanse(net: Fixed, label: int, epochs: int, start: Tensor) -> tuple[Tensor, float]:
    """The mark (2, H, W) that Neural Cleanse ends with, mask last, and the share of the rows that it turns."""
    x, y = digits(ROWS)
    batches = [(x[i : i + BATCH] / 255, y[i : i + BATCH]) for i in range(0, ROWS, BATCH)]
    mark, model = watermark(SIDE, 0), Model(net)
    defense = bare(
        NeuralCleanse, attack=SimpleNamespace(mark=mark, add_mark=mark.add_mark), model=model, cost=1e-3,
        init_cost=1e-3, cost_multiplier_up=2.0, cost_multiplier_down=2.0**1.5, nc_asr_threshold=0.99, nc_patience=5,
        nc_early_stop_threshold=0.99, early_stop_patience=1000, defense_remask_lr=0.1, defense_remask_epoch=epochs,
    )  # fmt: skip
    with patch("torch.randn_like", lambda like, **_: start.flip(0).clone().requires_grad_()):
        found, _ = NeuralCleanse.optimize_mark(defense, label, loader=batches, verbose=False)
    turned = (model(mark.add_mark(x / 255, mark=found)).argmax(1) == label).float().mean()
    return found.detach(), float(turned)


def main() -> None:
    net = Fixed().eval().requires_grad_(False)
    starts = waves(CLASSES, 2, SIDE, SIDE) / 2  # of each class: the mask, then the pattern
    first = [cleanse(net, label, 1, starts[label])[0] for label in range(CLASSES)]
    last = [cleanse(net, label, 40, starts[label]) for label in range(CLASSES)]
    numbers = {
        "versions": {name: version(name) for name in ("trojanzoo", "torch", "numpy")},
        "trojannn": {str(activation): trojannn(net, activation) for activation in (2.0, 100.0)},
        "neural_cleanse": {
            "masks_after_one_epoch": [[round(v, 6) for v in mark[-1].flatten().tolist()] for mark in first[:3]],
            "patterns_after_one_epoch": [[round(v, 6) for v in mark[0].flatten().tolist()] for mark in first[:3]],
            "norms_after_one_epoch": [float(mark[-1].sum()) for mark in first],
            "norms": [float(mark[-1].sum()) for mark, _ in last],
            "turned": [turned for _, turned in last],
        },
        "anomaly": {"norms": MASKS, "indices": normalize_mad(MASKS).tolist()},
    }
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
