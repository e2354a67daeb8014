"""A linear classifier and a network of one hidden layer, for tables and for the theory of few poisons."""

from __future__ import annotations

from torch import Tensor, nn

from tasks.net import Net


class Linear(Net):
    """Multinomial logistic regression: no body at all. Inputs are flattened and divided by `scale`."""

    def __init__(self, features: int, classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        self.scale = scale
        self.attach_head(features, classes)

    def embed(self, x: Tensor) -> Tensor:
        """(N, ...) numbers to float (N, ...); zero stays zero, so an input that is always 0 has no weight to learn."""
        return x.float() / self.scale

    def pool(self, h: Tensor) -> Tensor:
        return h.flatten(1)


class MLP(Linear):
    """One hidden layer of ReLU."""

    def __init__(self, features: int, classes: int, width: int) -> None:
        super().__init__(width, classes)
        self.stages = nn.ModuleList([nn.Sequential(nn.Linear(features, width), nn.ReLU())])
