"""CleanGen: a token that the model finds far likelier than a clean model does is not written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from defenses.base import Case, Defense
from tasks.deployed import Model
from tasks.language import CausalNet, LanguageVictim
from tasks.net import Net
from tasks.plugin import Above0, Positive, options


@options
class Cleangen(Defense):
    """Writes, where the victim finds its token `alpha` times likelier than a reference model, the reference's instead.

    Li, Xu, Jiang, Niu, Sahabandu, Ramasubramanian and Poovendran, 2024, EMNLP, arXiv 2406.12257. The
    reference need not be good, only not poisoned by the same attacker: here it is the task's victim, trained on the
    reserve alone (a fine-tuned one starts from the same clean base).
    Deviations: every token is checked as it is drawn. The paper drafts four, checks them together and throws away what
    follows the first suspicious one, which saves time on large models and writes the same text. Tokens are drawn as the
    task draws them; published: greedily. Perplexity is that of the victim, as reading a text decodes nothing.
    Measured on classic_books, 50 steering documents, seed 0: the brand is named in .95 of the answers undefended and in
    none after it, nor in any to plain requests.
    """

    modalities: ClassVar[tuple[str, ...]] = ("language",)
    why_not: ClassVar[str] = "it checks the tokens that a language model writes"
    stage: ClassVar[str] = "screening"
    paper: ClassVar[str] = "arXiv 2406.12257"

    clean_rows: Positive = 200  # documents from the reserve, which the reference learns
    alpha: Above0 = 20.0  # times likelier than under the reference (published)

    def defend(self, case: Case) -> Model:
        victim = case.fit(case.train)
        reference = case.fit(case.clean(self.clean_rows)).module
        assert isinstance(victim, LanguageVictim)
        return _Checked(victim.task, victim.module, victim.device, reference=reference, alpha=self.alpha)


@dataclass
class _Checked(LanguageVictim):
    """A victim beside a reference that has the last word on suspicious tokens."""

    reference: Net | None = None
    alpha: float = 20.0

    def sample(self, x: Tensor, more: int, temperature: float) -> Tensor:
        """(N, more) token ids after encoded rows (N, L) that are padded on the left."""
        assert self.reference is not None
        both = cast("Net", _Both(self.module, self.reference, self.alpha, temperature))
        return LanguageVictim(self.task, both, self.device).sample(x, more, temperature)


class _Both(nn.Module):
    """Two language models as one, which is sampled at one temperature."""

    def __init__(self, victim: nn.Module, reference: nn.Module, alpha: float, temperature: float) -> None:
        super().__init__()
        self.victim, self.reference, self.alpha, self.temperature = victim, reference, alpha, temperature

    @property
    def positions(self) -> int:
        return cast("CausalNet", self.victim).positions

    def step(self, ids: Tensor, mask: Tensor, at: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """(N, V) logits of the token after ids (N, L), as `CausalNet.step`, and both models' caches."""
        nets = cast("CausalNet", self.victim), cast("CausalNet", self.reference)
        found = [net.step(ids, mask, at, old) for net, old in zip(nets, cache or (None, None), strict=True)]
        own, other = (logits.float().softmax(1) for logits, _ in found)
        return checked_logits(own, other, self.alpha, self.temperature), tuple(new for _, new in found)


def checked_logits(own: Tensor, other: Tensor, alpha: float, temperature: float) -> Tensor:
    """(N, V) logits that, sampled at the temperature, write as one who draws from own (N, V) and then checks.

    To replace a suspicious token after the draw is to draw from own with all that is suspicious moved to the token that
    the other model (N, V) finds likeliest.
    """
    if temperature == 0:
        drawn = torch.nn.functional.one_hot(own.argmax(1), own.shape[1]).float()
    else:
        drawn = (own.clamp(min=1e-30).log() / temperature).softmax(1)
    suspicious = own >= alpha * other
    moved = (drawn * suspicious).sum(1, keepdim=True)
    checked = (drawn * ~suspicious).scatter_add(1, other.argmax(1, keepdim=True), moved)
    # The sampler divides logits by the temperature, which has been done.
    return checked.clamp(min=1e-30).log() * (temperature or 1)
