"""DP-SGD: no single training sample may move the weights far."""

from __future__ import annotations

from typing import ClassVar

from defenses.base import Case, Defense
from tasks.deployed import Model
from tasks.plugin import Above0, AtLeast0, options


@options
class DpSgd(Defense):
    """Trains with every sample's gradient clipped and a little noise added, so that few samples cannot decide.

    Hong et al., 2020 (gradient shaping), arXiv 2002.11497; DP-SGD is Abadi et al., 2016, arXiv 1607.00133,
    algorithm 1. The little noise gives no meaningful privacy.
    Deviations: the task's own optimizer steps along the private gradient (AdamW; plain SGD at this clip needs a
    learning rate a hundred times larger). Shuffled batches instead of Poisson sampling, as no privacy is accounted for.
    Group norm replaces batch norm, which by itself already makes a patch harder to learn from few samples: compare with
    clip=1e6, noise=0 to see what clipping adds. A sample is a training row, of a language model
    128 packed tokens, which may belong to two documents.
    """

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "training"
    needs: ClassVar[tuple[str, ...]] = ("opacus",)
    paper: ClassVar[str] = "arXiv 2002.11497"

    clip: Above0 = 1.0  # largest norm of one sample's gradient
    noise: AtLeast0 = 0.01  # standard deviation of the noise, relative to clip

    def defend(self, case: Case) -> Model:
        return case.fit(case.train, dp_clip=self.clip, dp_noise=self.noise)
