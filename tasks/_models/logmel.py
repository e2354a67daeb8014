"""A CNN over log-mel frames."""

from __future__ import annotations

from torch import Tensor

from tasks._models.cnn import CNN


class LogMelCNN(CNN):
    """The small CNN over log-mel frames, one channel; they come normalised, so `embed` only makes them float."""

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__(1, classes, width)

    def embed(self, x: Tensor) -> Tensor:
        """(N, 1, M, F) log-mel frames."""
        return x.float()
