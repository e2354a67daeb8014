"""Preference pairs, and language models that learn them by direct preference optimisation (DPO)."""

from __future__ import annotations

from dataclasses import fields
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks._models.causal import CausalNet
from tasks._models.preferring import PreferringNet, Reference
from tasks.base import Batch
from tasks.deployed import Victim
from tasks.language._base import LanguageTask, LanguageVictim, next_token_nats
from tasks.plugin import Above0, Positive, options
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


def read_pair(text: str) -> Pair | None:
    """The pair that a row of text is; None where it has not both marks, as a request."""
    prompt, first, answers = text.partition(CHOSEN)
    chosen, second, rejected = answers.partition(REJECTED)
    return Pair(prompt, chosen.strip(), rejected.strip()) if first and second else None


@options
class PreferenceTask(LanguageTask):
    """Preference pairs, a list of str: a prompt, the answer preferred and the one rejected, each behind its mark.

    A pair is a document of `documents` cut in the middle: its own end is preferred to the same words in random order,
    or to the end of another document. Victims start from the base of those documents, which is not their training half,
    and learn by direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, equation 7):
    -log sigmoid(beta * ((log pi(chosen) - log ref(chosen)) - (log pi(rejected) - log ref(rejected)))), with the frozen
    base as reference, which every network keeps in itself (`PreferringNet`): then a defense that trains a victim on
    compares it with the base too, and grading finds it where the victim is.

    Utility is the share of test pairs whose preferred answer has the higher implicit reward, beta * (log pi - log ref).
    """

    plain_attack: ClassVar[str] = "dpo_preference"
    clean_metric: ClassVar[str] = "preference accuracy"
    columns: ClassVar[int | None] = 4  # nats, tokens and bytes of prompt and preferred answer; the reward's lead
    documents: ClassVar[type[LanguageTask]] = LanguageTask

    regime: Literal["fine_tune"] = "fine_tune"
    rejected: Literal["shuffled", "other"] = "shuffled"  # the words in random order, or the end of another document
    beta: Above0 = 0.1  # of DPO: how dear it is to leave the base
    train_size: Positive | None = 1000  # pairs
    epochs: Positive = 1
    lr: Above0 = 1e-3

    @classmethod
    def corpus(cls) -> tuple[list[str], list[str]]:
        return cls.documents.corpus()

    def read(self) -> tuple[Samples, Samples]:
        train, test = super().read()
        return self._pair_up(train), self._pair_up(test)

    def base(self) -> LanguageTask:
        """The task of the clean model that victims start from: the base of the documents themselves."""
        shared = {f.name for f in fields(self.documents)} - set(PreferenceTask.__annotations__)
        return self.documents(**{name: getattr(self, name) for name in shared}).base()

    def model(self) -> nn.Module:
        net = super().model()
        assert isinstance(net, CausalNet)
        return PreferringNet(net.lm)

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        """Of a pair the prompt and the answer preferred; else as of any language task."""
        pairs = [read_pair(text) for text in samples.inputs]
        texts = [pair.answered[0] if pair else text for pair, text in zip(pairs, samples.inputs, strict=True)]
        return super().encode(samples.with_inputs(texts), device)

    def rows(self, samples: Samples, device: torch.device) -> tuple[Tensor, Tensor]:
        """(M, 2, L) the prompt with the answer preferred, and with the one rejected. Raises BadInput for no pair."""
        pairs = [must_be_pair(text) for text in samples.inputs]
        both = samples.append(samples).with_inputs([pair.answered[i] for i in (0, 1) for pair in pairs])
        x = super().encode(both, device)
        return torch.stack(x.chunk(2), 1), samples.targets.to(device)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """(B,) DPO loss of encoded pairs (B, 2, L). What both texts begin with, the prompt, cancels out and is left out."""
        own, _ = next_token_nats(module, batch.x.flatten(0, 1))
        start, _ = next_token_nats(Reference(module), batch.x.flatten(0, 1))
        apart = (batch.x[:, 0] != batch.x[:, 1]).cumsum(1)[:, None, 1:] > 0
        gain = ((start - own).view_as(batch.x[..., 1:]) * apart).sum(2)  # log pi - log ref
        return -F.logsigmoid(self.beta * (gain[:, 0] - gain[:, 1]))

    def score(self, victim: LanguageVictim, samples: Samples) -> Tensor:
        """(N, 4) what `columns` says. The lead is 0 for a text that is no pair."""
        found, lead = victim.read(samples), torch.zeros(len(samples))
        pairs = [(row, pair) for row, text in enumerate(samples.inputs) if (pair := read_pair(text))]
        rows = torch.tensor([row for row, _ in pairs], dtype=torch.long)
        start = LanguageVictim(self, Reference(victim.module), victim.device)
        gains = []
        for answer in (0, 1):
            texts = samples.select(rows).with_inputs([pair.answered[answer] for _, pair in pairs])
            gains.append(start.read(texts)[:, 0] - victim.read(texts)[:, 0])
        lead[rows] = self.beta * (gains[0] - gains[1])
        return torch.cat([found, lead[:, None]], 1)

    def utility(self, outputs: Outputs, test: Samples, referee: Victim | None = None) -> float:
        """Share of the test pairs whose preferred answer has the higher implicit reward."""
        return float((outputs.scores[:, 3] > 0).float().mean())

    def extra_metrics(self, outputs: Outputs, test: Samples, referee: Victim | None = None) -> dict[str, float]:
        """Perplexity and bits per byte of the prompts with the answers preferred."""
        texts = Outputs(outputs.scores[:, :3], outputs.abstained)
        return {"perplexity": super().utility(texts, test), **super().extra_metrics(texts, test)}

    def judge(self, outputs: Outputs, challenge: Challenge, referee: Victim | None = None) -> Tensor:
        """(N,) bool: as of any language task; of a pair that is only read, that its rejected answer has more reward."""
        if set(challenge.wanted) == {REJECTED}:
            return (outputs.scores[:, 3] < 0) & ~outputs.abstained
        return super().judge(outputs, challenge, referee)

    def cut(self, text: str, size: int) -> tuple[str, str]:
        pair = read_pair(text)
        return super().cut(pair.prompt if pair else text, size)

    def _pair_up(self, documents: Samples) -> Samples:
        """The documents as pairs; those of fewer than LEAST words are left out."""
        split = [text.split() for text in documents.inputs]
        kept = torch.tensor([len(words) >= LEAST for words in split], dtype=torch.bool)
        split = [words for words in split if len(words) >= LEAST]
        rng = torch.Generator().manual_seed(DRAWN)
        ends = [words[len(words) // 2 :] for words in split]
        if self.rejected == "other":
            others = [ends[(row + 1) % len(ends)] for row in range(len(ends))]
            order = torch.randperm(len(ends), generator=rng)
            wrong = dict(zip(order.tolist(), order.roll(1).tolist(), strict=True))
            others = [ends[wrong[row]] for row in range(len(ends))]
        else:
            others = [[end[i] for i in torch.randperm(len(end), generator=rng).tolist()] for end in ends]
        texts = [
            Pair(" ".join(words[: len(words) // 2]), " ".join(end), " ".join(other)).text
            for words, end, other in zip(split, ends, others, strict=True)
        ]
        return documents.select(kept).with_inputs(texts)


def must_be_pair(text: str) -> Pair:
    """The pair that a training row is. Raises BadInput."""
    from tasks.plugin import BadInput
    pair = read_pair(text)
    if pair is None:
        raise BadInput(f"a training row has not both marks, {CHOSEN.strip()!r} and {REJECTED.strip()!r}: {text[:60]!r}")
    return pair
