"""RAP: a learnt word makes clean texts less certain of their class; a text that it does not shake carries a trigger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defenses.base import Case, Defense
from tasks.deployed import Guarded, Model, Victim, autocast
from tasks.net import Net
from tasks.plugin import Above0, BadInput, Positive, Share, options
from tasks.samples import Samples


@options
class Rap(Defense):
    """Screening: puts a learnt word into each text; refuses those whose class loses less than clean ones of it lose.

    Yang, Lin, Li, Zhou and Sun, 2021, arXiv 2110.07831: the embedding of one word is learnt so
    that it lowers the probability of the target class on clean texts of it by `least` to `most`; of the texts taken for
    that class those are refused whose drop lies below a quantile of the clean ones.
    Deviations: the target is not known to us, so every class gets a word of its own; the word is a vector of no token
    and starts at zero, behind the first token (in a BERT that is [CLS]), so its norm is free: the paper keeps the norm
    of a rare word's embedding, and in a victim trained from scratch that of a word never seen is next to nothing;
    Adam for `steps` steps over all clean texts of the class at once, where the paper takes five passes of plain
    gradient steps over a development set of thousands; a class without clean texts is not screened.
    Unproven: on ag_news with the bag of words it does not tell triggered texts from clean ones (AUROC .48 to .52 of 200
    badwords, three seeds; .27 of 100 addsent). Its premise is that a trigger holds the answer whatever else is read;
    a bag adds up its words, and there a word shakes a text the more, the less certain it is, trigger or not.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "it puts a word into a text"
    stage: ClassVar[str] = "screening"
    paper: ClassVar[str] = "arXiv 2110.07831"

    clean_rows: Positive = 200  # texts from the reserve
    steps: Positive = 200  # of Adam for each class
    lr: Above0 = 0.05  # of Adam (the paper's gradient step: 0.01)
    least: Share = 0.1  # lowest drop of the probability that is wanted
    most: Share = 0.3  # highest
    false_rejection: Share = 0.01  # of clean texts, sets the threshold (the paper tries 0.005 to 0.05)

    def defend(self, case: Case) -> Model:
        if self.least > self.most:
            raise BadInput(f"least={self.least}: must not be above most={self.most}")
        victim, clean = case.fit(case.train), case.clean(self.clean_rows)
        words = torch.zeros(len(case.task.classes), width_of(victim), device=case.device)
        limits = torch.full((len(words),), -torch.inf)
        for c in range(len(words)):
            texts = clean.select(clean.targets == c)
            if len(texts):
                words[c] = self.learn(victim, texts, c)
                drops = drop(victim, texts, words, torch.full((len(texts),), c))
                limits[c] = drops.quantile(self.false_rejection)
        return Guarded(victim, screen=_Screen(victim, words, limits), threshold=0.0)

    def learn(self, victim: Victim, texts: Samples, c: int) -> Tensor:
        """(E,) the word that lowers the probability of class c on its clean texts by `least` to `most`."""
        module = victim.module.eval().requires_grad_(False)
        x = torch.cat(list(victim.batches(texts)))
        before = module(x).float().softmax(1)[:, c]
        # Zero is where the networks' own words start too; the sign of the first gradient says where to go from it.
        word = torch.zeros(width_of(victim), device=x.device, requires_grad=True)
        optimiser = torch.optim.Adam([word], self.lr)
        for _ in range(self.steps):
            lost = before - with_word(module, x, word).softmax(1)[:, c]
            loss = ((self.least - lost).clamp(min=0) + (lost - self.most).clamp(min=0)).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        return word.detach()


@dataclass
class _Screen:
    """By how much less than the limit of its class (K,) a text's probability drops under the class's word (K, E)."""

    victim: Victim
    words: Tensor
    limits: Tensor

    def __call__(self, samples: Samples) -> Tensor:
        answers = self.victim.predict(samples).answers
        return self.limits[answers] - drop(self.victim, samples, self.words, answers)


@torch.no_grad()
def drop(victim: Victim, samples: Samples, words: Tensor, classes: Tensor) -> Tensor:
    """(N,) what the probability of each text's class (N,) loses when that class's word (K, E) is put in."""
    module, out, at = victim.module.eval(), [], 0
    for x in victim.batches(samples):
        own = classes[at : at + len(x)].to(x.device)
        at += len(x)
        with autocast(victim.device):
            before, after = module(x).float().softmax(1), with_word(module, x, words[own]).softmax(1)
        out.append((before - after).gather(1, own[:, None]).squeeze(1).cpu())
    return torch.cat(out)


def with_word(module: Net, x: Tensor, word: Tensor) -> Tensor:
    """(N, K) logits of encoded texts (N, L) with a word (E,), or each its own (N, E), behind the first token.

    They stay as long as they were, which is as much as the network may read: a full one loses its last token.
    """
    e = module.embed(x)
    there = torch.ones(len(e), 1, dtype=e.dtype, device=e.device)
    put = torch.cat([word.to(e.dtype).expand(len(e), -1), there], 1)[:, None]
    logits: Tensor = module.head(module.body(torch.cat([e[:, :1], put, e[:, 1:]], 1)[:, : e.shape[1]])).float()
    return logits


def width_of(victim: Victim) -> int:
    """The features of an embedded token (E), without the mask."""
    token = torch.ones(1, 1, dtype=torch.long, device=victim.device)
    return int(victim.module.embed(token).shape[-1]) - 1
