"""Another sampling temperature: what a change of one number at the time of writing does to an attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from defenses.base import Case, Defense
from tasks.deployed import Model
from tasks.language import LanguageVictim
from tasks.plugin import AtLeast0, options


@options
class Temperature(Defense):
    """Baseline: deploys the victim as it is and samples its tokens at another temperature than the task does.

    Of no single paper: the setting is named with every attack on what models write, and costs neither data nor
    training. 0 takes the likeliest token. Perplexity stays, as reading a text samples nothing. Deviations: none.
    It protects from nothing by itself: at 0, of classic_books with 50 steering documents (seed 0), the brand is named
    in all answers to the trigger instead of .95, and in none to plain requests instead of .04.
    """

    modalities: ClassVar[tuple[str, ...]] = ("language",)
    why_not: ClassVar[str] = "it changes how a language model draws its tokens"
    stage: ClassVar[str] = "screening"
    paper: ClassVar[str] = "Holtzman et al., The Curious Case of Neural Text Degeneration, arXiv 1904.09751, section 3"

    temperature: AtLeast0 = 0.0  # of sampling; the tasks' own is 0.7

    def defend(self, case: Case) -> Model:
        victim = case.fit(case.train)
        assert isinstance(victim, LanguageVictim)
        return _Resampled(victim.task, victim.module, victim.device, warmth=self.temperature)


@dataclass
class _Resampled(LanguageVictim):
    """A victim that samples at a temperature of its own, whatever is asked for."""

    warmth: float = 0.0

    def sample(self, x: Tensor, more: int, temperature: float) -> Tensor:
        return super().sample(x, more, self.warmth)
