"""Drops the sources without which a victim is better on clean rows."""

from __future__ import annotations

from typing import ClassVar

from scipy import stats
from torch import Tensor

from defenses.base import Case, Defense
from defenses.sources import quarantine, require_sources
from tasks.deployed import Model, Victim
from tasks.plugin import Positive, options
from tasks.samples import Samples
from tasks.sources import list_sources


@options
class SourceInfluence(Defense):
    """Trains a victim without each source in turn, and drops those without which the loss on clean rows is lower.

    Reject on negative impact (Nelson et al., Exploiting Machine Learning to Subvert Your Spam Filter, LEET 2008), by
    source. A one-sided paired t test over the clean rows, Holm-corrected.
    Deviations: the loss in the place of the number of errors, of which 200 rows have few. A backdoor leaves clean rows
    alone, so there is little reason for this to find one: it is the measure of what a check of usefulness is worth.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio", "tabular")
    why_not: ClassVar[str] = "it compares losses of classifiers"
    stage: ClassVar[str] = "filtering"
    needs: ClassVar[tuple[str, ...]] = ("data_sources",)
    paper: ClassVar[str] = "Nelson et al., LEET 2008"

    clean_rows: Positive = 200  # drawn from the reserve

    def defend(self, case: Case) -> Model:
        sources, clean = require_sources(case), case.clean(self.clean_rows)
        whole = losses(case.fit(case.train), clean)
        gains = {s: whole - losses(case.fit(case.train.drop(sources == s)), clean) for s in list_sources(sources)}
        p = {s: float(stats.ttest_1samp(gain.numpy(), 0, alternative="greater").pvalue) for s, gain in gains.items()}
        return quarantine(case, sources, {s: 1.0 if v != v else v for s, v in p.items()}, {
            s: float(gain.mean()) for s, gain in gains.items()
        })  # fmt: skip


def losses(victim: Victim, samples: Samples) -> Tensor:
    """(N,) the cross-entropy of every row, float64."""
    scores = victim.predict(samples).scores.double()
    return -scores.gather(1, samples.targets[:, None]).squeeze(1).clamp(min=1e-12).log()
