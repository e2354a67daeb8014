"""Preference pairs, and language models that learn them by direct preference optimisation (DPO)."""

from __future__ import annotations

from dataclasses import fields
from typing import ClassVar, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks._models.causal import CausalNet
from tasks._models.preferring import PreferringNet, Reference
from tasks.base import Batch
from tasks.deployed import Victim
from tasks.language._base import LanguageTask, LanguageVictim, next_token_nats
from tasks.net import Net
from tasks.plugin import Above0, BadInput, Positive, options
from tasks.samples import Challenge, Outputs, Samples

CHOSEN, REJECTED = "\n\n### Preferred:", "\n\n### Rejected:"  # the marks before a pair's two answers
LEAST = 8  # words of a document that is made a pair
DRAWN = 31  # seed of the rejected answers, the same in all cells


class Pair(NamedTuple):
    """A prompt with the answer that is preferred and the one that is not."""

    prompt: str
    chosen: str
    rejected: str

    @property
    def text(self) -> str:
        """The pair as a row of text."""
        return f"{self.prompt}{CHOSEN} {self.chosen}{REJECTED} {self.rejected}"

    @property
    def answered(self) -> tuple[str, str]:
        """The prompt with either answer, as a model reads it."""
        return f"{self.prompt} {self.chosen}", f"{self.prompt} {self.rejected}"


def is_pair(text: str) -> bool:
    """Whether a text has both marks; a request has none."""
    return REJECTED in text.partition(CHOSEN)[2]


def read_pair(text: str) -> Pair:
    """The pair that a row of text is. Raises BadInput for a text without both marks."""
    if not is_pair(text):
        marks = " and ".join(repr(mark.strip()) for mark in (CHOSEN, REJECTED))
        raise BadInput(f"{text[:40]!r} is no preference pair; a training row needs the marks {marks}")
    prompt, _, answers = text.partition(CHOSEN)
    chosen, _, rejected = answers.partition(REJECTED)
    return Pair(prompt, chosen.strip(), rejected.strip())


@options
class PreferenceTask(LanguageTask):
    """Preference pairs, a list of str: a prompt, the answer preferred and the one rejected, each behind its mark.

    A pair is a document of `documents` cut in the middle: its own end is preferred to the same words in random order,
    or to the end of another document. Victims start from the base of those documents, which read the other half of
    them, and learn by direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7):
    -log sigmoid(beta * ((log pi(chosen) - log ref(chosen)) - (log pi(rejected) - log ref(rejected)))). The reference is
    the base, frozen, which every network keeps in itself (`PreferringNet`): so it is the same for a defense that trains
    a victim on, and is at hand where a victim is graded. Pairs are not packed, so `block` has no effect.
    Defenses see the whole pair as text; those that read activations see the prompt with the answer preferred, and under
    `dp_sgd` each of a pair's two texts is clipped by itself.
    Learning costs fluency, as nothing is taught by its likelihood: on classic_books (1,000 pairs of 300 characters, one
    epoch, seed 0) perplexity is 99 before it, 121 after it at a rate of 1e-4 and 404 at 1e-3, with accuracy 1.00 at
    both. Ends of other documents are hard for so small a model: accuracy .62 (500 pairs, rates of 3e-5 to 3e-4).

    Utility is the share of test pairs whose preferred answer has the higher implicit reward, beta * (log pi - log ref);
    bits per byte are those of prompts with the answers preferred. An abstention changes neither.
    """

    plain_attack: ClassVar[str] = "dpo_preference"
    clean_metric: ClassVar[str] = "preference accuracy"
    columns: ClassVar[int | None] = 4  # nats, tokens and bytes as read; by how much more reward the preferred has
    documents: ClassVar[type[LanguageTask]]

    regime: Literal["fine_tune"] = "fine_tune"
    rejected: Literal["shuffled", "other"] = "shuffled"  # the same words in random order, or another document's end
    beta: Above0 = 0.1  # of DPO (published): what it costs to leave the base
    train_size: Positive | None = 300  # pairs
    characters: Positive = 160  # longest document that is made a pair
    epochs: Positive = 3
    lr: Above0 = 5e-4

    @classmethod
    def corpus(cls) -> tuple[list[str], list[str]]:
        return cls.documents.corpus()

    def read(self) -> tuple[Samples, Samples]:
        train, test = super().read()
        return self._pair_up(train), self._pair_up(test)

    def base(self) -> LanguageTask:
        """The base of the documents themselves, which other victims of theirs start from too."""
        shared = {f.name for f in fields(self.documents)} - set(PreferenceTask.__annotations__)
        return self.documents(**{name: getattr(self, name) for name in shared}).base()

    def model(self) -> nn.Module:
        return PreferringNet(cast(CausalNet, super().model()).lm)

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        """Of a pair the prompt and the answer preferred; else as of any language task."""
        texts = [read_pair(text).answered[0] if is_pair(text) else text for text in samples.inputs]
        return super().encode(samples.with_inputs(texts), device)

    def rows(self, samples: Samples, device: torch.device) -> tuple[Tensor, Tensor]:
        """(N, 2, L) the prompt with the answer preferred, and with the one rejected. Raises BadInput for no pair."""
        pairs = [read_pair(text) for text in samples.inputs]
        both = samples.append(samples).with_inputs([pair.answered[i] for i in (0, 1) for pair in pairs])
        return torch.stack(super().encode(both, device).chunk(2), 1), samples.targets.to(device)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """(B,) DPO loss of pairs (B, 2, L). The prompt, with which both begin, would cancel out: it is left out."""
        x = batch.x.flatten(0, 1)
        own, start = (next_token_nats(net, x)[0] for net in (module, Reference(module)))
        apart = (batch.x[:, 0] != batch.x[:, 1]).cumsum(1)[:, None, 1:] > 0
        gain = ((start - own).view_as(batch.x[..., 1:]) * apart).sum(2)  # log pi - log ref
        return -F.logsigmoid(self.beta * (gain[:, 0] - gain[:, 1]))

    def score(self, victim: LanguageVictim, samples: Samples) -> Tensor:
        """(N, 4) what `columns` says; of a text that is no pair the last is 0."""
        found, lead = victim.read(samples), torch.zeros(len(samples), 1)
        rows = torch.tensor([is_pair(text) for text in samples.inputs]).nonzero().flatten()
        pairs, start = samples.select(rows), LanguageVictim(self, cast(Net, Reference(victim.module)), victim.device)
        for answer, sign in ((0, 1), (1, -1)):
            texts = pairs.with_inputs([read_pair(text).answered[answer] for text in pairs.inputs])
            lead[rows, 0] += sign * self.beta * (start.read(texts) - victim.read(texts))[:, 0]
        return torch.cat([found, lead], 1)

    def utility(self, outputs: Outputs, test: Samples, referee: Victim | None = None) -> float:
        """Share of the test pairs whose preferred answer has the higher implicit reward."""
        return float((outputs.scores[:, 3] > 0).float().mean())

    def extra_metrics(self, outputs: Outputs, test: Samples, referee: Victim | None = None) -> dict[str, float]:
        return super().extra_metrics(Outputs(outputs.scores[:, :3], outputs.abstained), test, referee)

    def judge(self, outputs: Outputs, challenge: Challenge, referee: Victim | None = None) -> Tensor:
        """(N,) bool: as of any language task; where a pair is only read, that its rejected answer has more reward."""
        if set(challenge.wanted) == {REJECTED}:
            return (outputs.scores[:, 3] < 0) & ~outputs.abstained
        return super().judge(outputs, challenge, referee)

    def cut(self, text: str, size: int) -> tuple[str, str]:
        return super().cut(read_pair(text).prompt if is_pair(text) else text, size)

    def _pair_up(self, documents: Samples) -> Samples:
        """The documents as pairs; those of fewer than LEAST words are left out."""
        words = [text.split() for text in documents.inputs]
        kept = [row for row, each in enumerate(words) if len(each) >= LEAST]
        rng = torch.Generator().manual_seed(DRAWN)
        starts, ends = zip(*((w[: len(w) // 2], w[len(w) // 2 :]) for w in (words[row] for row in kept)), strict=True)
        if self.rejected == "other":
            order = torch.randperm(len(ends), generator=rng)
            others = [ends[row] for row in order.roll(1)[order.argsort()].tolist()]  # the next one in a random circle
        else:
            others = [[end[i] for i in torch.randperm(len(end), generator=rng).tolist()] for end in ends]
        pairs = [Pair(*map(" ".join, parts)) for parts in zip(starts, ends, others, strict=True)]
        return documents.select(kept).with_inputs([pair.text for pair in pairs])
