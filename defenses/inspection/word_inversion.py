"""Trigger inversion for texts: words that turn clean texts to a class for which their own texts do not speak."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from defenses.base import Case, Defense
from tasks.data import make_samples
from tasks.deployed import CHUNK, Model, Victim
from tasks.plugin import NotApplicable, Positive, options
from tasks.samples import Samples


@options
class WordInversion(Defense):
    """Inspection: searches the words that turn most clean texts to each class; one class far ahead is a backdoor's.

    Wallace, Feng, Kandpal, Gardner and Singh, 2019, EMNLP, arXiv 1908.07125, "Universal Adversarial Triggers", section
    2: the few tokens that, put in front of any text, bring one answer. A model is judged as by trigger inversion
    elsewhere (Neural Cleanse; for texts PICCOLO, Liu et al., 2022, IEEE S&P): the class is named whose trigger is the
    strongest, and the suspicion is how far its strength is above the mean of the others.
    Deviations: candidates are the tokens and pairs of neighbours of the training set, each tried on a few clean texts;
    the paper takes tokens by the gradient of their embeddings, which knows no pairs. Triggers grow greedily, without
    replacement of what was chosen (beam of one).
    Every class has natural triggers too, its own speech (PICCOLO's word discriminativity meets the same problem). So
    all strong candidates of a class are taken out of its training texts: those that held a natural one still speak for
    the class, and those that held an attacker's, put into texts of other classes, do not. The strength of a trigger is
    the share of clean texts that it turns, times this doubt. That takes the training set, which the papers do without;
    a clean-label attack, whose texts are the class's own, and a dose below `least` are not seen.
    `strengths` (K,) is kept with the record, and `trigger`: the words, as numbers of letters (`chr` reads them).
    It inspects only: what it deploys is the victim as it is.
    Measured on ag_news, 4,000 texts, bag, set up on seeds 100 and 101 (results/audit): of 20 clean models the suspicion
    is .006 to .032, with 50 addsent .058 to .101, with 200 .26 to .32, with 200 homoglyph .27 to .36 (8 models each):
    AUROC 1.00, and .54 with 20 addsent, of which the target is named all the same. Clean models of half of the texts,
    or of other training, reach .069: a threshold has to come from models that were trained alike.
    Two classes of made-up reviews (400 texts, 40 badwords): .23, and .15 of the clean model. 3 s of one CPU core a
    model; other victims take as long as screened x classes x phrases texts take them, and were not measured.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "its triggers are words put in front of a text"
    stage: ClassVar[str] = "inspection"
    paper: ClassVar[str] = "arXiv 1908.07125"

    clean_rows: Positive = 200  # texts from the reserve
    screened: Positive = 8  # clean texts of each class that every phrase is tried on
    least: Positive = 10  # training texts that hold a phrase for it to be tried; as many speak for a class beforehand
    shortlist: Positive = 100  # phrases of each class that are taken out of its training texts
    finalists: Positive = 20  # phrases of each class that triggers are made of
    length: Positive = 3  # phrases in a trigger, at most

    def defend(self, case: Case) -> Model:
        victim, clean = case.fit(case.train), case.clean(self.clean_rows)
        read, x = (torch.cat(list(victim.batches(rows))) for rows in (case.train, clean))
        phrases = common_phrases(read, self.least)
        if not len(phrases):
            raise NotApplicable(f"{case.task.name}: no word is in {self.least} training texts, and not in all of them")
        lead = int((read == read[0]).all(0).cumprod(0).sum())
        search = _Search(victim, x, clean.targets.to(x.device), lead)
        gains = search.gains(phrases, self.screened)
        found = []
        for c in range(len(case.task.classes)):
            short = phrases[gains[:, c].topk(min(self.shortlist, len(phrases))).indices]
            gain = gains[:, c].topk(len(short)).values.clamp(min=0)
            doubts = doubt(victim, read[(case.train.targets == c).to(read.device)], short, c, self.least)
            best = (gain * doubts).topk(min(self.finalists, len(short))).indices
            found.append(self.invert(search, short[best], doubts[best], c))
        strengths = torch.tensor([strength for strength, _ in found])
        target = int(strengths.argmax())
        others = strengths[torch.arange(len(strengths)) != target]
        case.report(model=float(strengths[target] - others.mean()), target=target)
        case.save("strengths", strengths)
        words = " ".join(spell(victim, case.train.select(stands(read, p).any(1)), p) for p in found[target][1]) or "-"
        case.save("trigger", torch.tensor([float(ord(letter)) for letter in words]))
        return victim

    def invert(self, search: _Search, phrases: Tensor, doubts: Tensor, c: int) -> tuple[float, Tensor]:
        """The best trigger of class c: its strength (share of clean texts turned, times doubt) and its phrases (P, 2).

        Made of phrases (F, 2) of doubts (F,), one after the other, as long as it gets stronger.
        """
        strength, chosen = 0.0, torch.zeros(0, dtype=torch.long, device=phrases.device)
        for _ in range(min(self.length, len(phrases))):
            rows = torch.arange(len(phrases), device=phrases.device)
            rows = rows[~torch.isin(rows, chosen)]
            tried = torch.cat([chosen.expand(len(rows), -1), rows[:, None]], 1)
            scores = search.turned(phrases[tried].flatten(1), c) * doubts[tried].mean(1)
            if float(scores.max()) <= strength:
                break
            strength, chosen = float(scores.max()), tried[scores.argmax()]
        return strength, phrases[chosen]


class _Search:
    """Encoded clean texts x (N, L) of classes y (N,), and triggers put behind their first `lead` tokens."""

    def __init__(self, victim: Victim, x: Tensor, y: Tensor, lead: int) -> None:
        self.victim, self.x, self.y, self.lead = victim, x, y, lead
        self.before = victim.logits(x).log_softmax(1)

    def scores(self, triggers: Tensor, rows: Tensor) -> Tensor:
        """(M, n, K) log-probabilities of the texts at rows (n,), each with each of triggers (M, T)."""
        x, out = self.x[rows], []
        x = x[:, : int((x > 0).any(0).nonzero().max()) + 1]
        for part in torch.split(triggers, max(1, 2 * CHUNK // len(x))):
            shape = len(part), len(x), -1
            put = part[:, None].expand(shape)
            before, behind = x[:, : self.lead].expand(shape), x[:, self.lead :].expand(shape)
            stamped = torch.cat([before, put, behind], 2)[..., : self.x.shape[1]]
            out.append(self.victim.logits(stamped.flatten(0, 1)).log_softmax(1).view(shape))
        return torch.cat(out)

    def gains(self, phrases: Tensor, each: int) -> Tensor:
        """(M, K) what a phrase adds to the mean log-probability of a class in `each` texts of all the others."""
        rank = (self.y[:, None] == self.y).tril(-1).sum(1)  # of a text among those of its class
        rows = (rank < each).nonzero().flatten()
        gained, y = self.scores(phrases, rows) - self.before[rows], self.y[rows]
        return torch.stack([gained[:, y != c, c].mean(1) for c in range(gained.shape[2])], 1).nan_to_num()

    def turned(self, triggers: Tensor, c: int) -> Tensor:
        """(M,) share of the texts that are not of class c, nor taken for it, that a trigger turns to it."""
        rows = ((self.y != c) & (self.before.argmax(1) != c)).nonzero().flatten()
        if not len(rows):
            return torch.zeros(len(triggers), device=triggers.device)
        return (self.scores(triggers, rows).argmax(2) == c).float().mean(1)


def common_phrases(x: Tensor, least: int) -> Tensor:
    """(M, 2) tokens and pairs of neighbours that `least` or more of encoded texts (N, L) hold; a token's second is 0.

    None with a token that all texts hold, as those do that a tokenizer puts around a text.
    """
    after = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], 1)
    row = torch.arange(len(x), device=x.device)[:, None].expand_as(x)
    single, pair = torch.stack([row, x, torch.zeros_like(x)], 2), torch.stack([row, x, after], 2)
    held = torch.cat([single.flatten(0, 1), pair[after > 0]])
    held = torch.unique(held[held[:, 1] > 0], dim=0)[:, 1:]
    phrases, counts = torch.unique(held, dim=0, return_counts=True)
    everywhere = phrases[(counts == len(x)) & (phrases[:, 1] == 0), 0]
    enough: Tensor = phrases[(counts >= least) & ~torch.isin(phrases, everywhere).any(1)]
    return enough


def stands(x: Tensor, phrase: Tensor) -> Tensor:
    """(N, L) whether a token of encoded texts (N, L) belongs to a phrase (2,)."""
    first, second = phrase.tolist()
    here: Tensor = x == first
    if second:
        here[:, :-1] &= x[:, 1:] == second
        here[:, -1] = False
        here[:, 1:] |= here[:, :-1].clone()
    return here


def spell(victim: Victim, texts: Samples, phrase: Tensor) -> str:
    """A phrase (2,) as people read it: the word, or the two, of the first of these texts that its tokens stand in."""
    text = str(texts.inputs[0])
    words = text.split()
    runs = [*words, *map(" ".join, pairwise(words)), text]
    x = victim.task.encode(make_samples(runs, torch.zeros(len(runs), dtype=torch.long)), victim.device)
    return runs[int(stands(x, phrase).any(1).nonzero()[0])]


def doubt(victim: Victim, x: Tensor, phrases: Tensor, c: int, prior: int) -> Tensor:
    """(S,) how little the texts x (n, L) of class c that hold a phrase (S, 2) speak for it once no phrase is in them.

    The mean of what the victim then gives to other classes, as if `prior` more texts spoke for c alone. Words taken
    out leave padding, as those do that training hides.
    """
    hidden = torch.zeros_like(x, dtype=torch.bool)
    holds = torch.zeros(len(x), len(phrases), device=x.device)
    for at, phrase in enumerate(phrases):
        here = stands(x, phrase)
        hidden |= here
        holds[:, at] = here.any(1)
    hidden &= (x.masked_fill(hidden, 0) > 0).any(1, keepdim=True)  # a text of nothing else is read as it is
    rest = x.masked_fill(hidden, 0)
    lost = torch.cat([1 - victim.logits(part).softmax(1)[:, c] for part in torch.split(rest, CHUNK)])
    return lost @ holds / (holds.sum(0) + prior)
