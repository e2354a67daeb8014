"""Language models that measure how surprising a text is: word bigrams, or any causal model from transformers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F

from tasks._models.causal import load_causal
from tasks._models.checkpoint import tokenizer
from tasks.plugin import NamesFiles

START, END = "\x02", "\x03"  # of a word or text: characters no text needs
FOLDS = 5  # of clean texts: each fold is judged by a model that has not read it
CHARACTERS = 0x110000  # all that a word can be written in
LmName = Annotated[str, NamesFiles(besides=("ngram",))]  # a Hub name, a folder, or word bigrams


class Reading(NamedTuple):
    """The surprise of a language model at a text: nats, and the number of characters or tokens of the text."""

    nats: float
    size: int

    @property
    def rate(self) -> float:
        return self.nats / self.size if self.size else 0.0

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.rate, 100.0))  # capped so that differences stay finite


class LanguageModel(Protocol):
    def leave_one_out(self, words: Sequence[str]) -> tuple[Reading, list[Reading]]:
        """The reading of the text, and of the text without each word."""
        ...


class Spelling:
    """A character n-gram model of words, interpolated down to all of Unicode (Witten and Bell, 1991).

    Every different word counts once, so a word put into many texts is worth no more than any other.
    """

    def __init__(self, words: Iterable[str], order: int = 6) -> None:
        self.order = order
        self.counts: dict[str, Counter[str]] = {}
        for word in sorted(set(words)):
            padded = START + word + END
            for i in range(1, len(padded)):
                for start in range(max(0, i - order + 1), i + 1):
                    self.counts.setdefault(padded[start:i], Counter())[padded[i]] += 1
        self.totals = {context: sum(counts.values()) for context, counts in self.counts.items()}
        self._known: dict[str, float] = {}

    def surprise(self, word: str) -> float:
        """-log p of the word and its end, nats; a proper distribution over all words."""
        if word not in self._known:
            padded = START + word + END
            self._known[word] = -sum(
                math.log(self._p(padded[max(0, i - self.order + 1) : i], padded[i])) for i in range(1, len(padded))
            )
        return self._known[word]

    def _p(self, context: str, character: str) -> float:
        p = 1 / CHARACTERS
        for start in range(len(context), -1, -1):  # from no context to the longest
            counts = self.counts.get(context[start:])
            if counts is None:
                break
            kinds, total = len(counts), self.totals[context[start:]]
            p = (counts[character] + kinds * p) / (total + kinds)
        return p


class WordBigrams:
    """Interpolated Kneser-Ney bigrams of lower-cased words; what was never seen is spelt out.

    Perplexity is per character (of words and the gaps after them), as it is per sub-word in larger models: a rare
    but well-formed long word then costs little more than a common one, and a short nonsense word much more.
    """

    def __init__(self, texts: Iterable[str], vocabulary: Iterable[str] = (), discount: float = 0.75) -> None:
        """texts: what the bigrams are counted in. vocabulary: further words to learn spelling from."""
        self.discount = discount
        self.pairs: dict[str, Counter[str]] = {}
        for text in texts:
            words = [START, *text.lower().split(), END]
            for before, word in pairwise(words):
                self.pairs.setdefault(before, Counter())[word] += 1
        self.totals = {before: sum(after.values()) for before, after in self.pairs.items()}
        self.continuations = Counter(word for after in self.pairs.values() for word in after)
        self.kinds = self.continuations.total()
        known = {word for word in self.continuations if word != END} | {word.lower() for word in vocabulary}
        self.spelling = Spelling(known)
        self._surprise = lru_cache(maxsize=2**20)(self._pair)

    def leave_one_out(self, words: Sequence[str]) -> tuple[Reading, list[Reading]]:
        line = [START, *(word.lower() for word in words), END]
        nats = [self._surprise(a, b) for a, b in pairwise(line)]
        sizes = [len(word) + 1 for word in words]  # the word and the gap after it
        total, size = sum(nats), sum(sizes) + 1
        # Only two pairs change when a word goes, so a text of L words takes L steps and not L * L.
        without = [
            Reading(total - nats[i] - nats[i + 1] + self._surprise(line[i], line[i + 2]), size - sizes[i])
            for i in range(len(words))
        ]
        return Reading(total, size), without

    def worst_rate(self, words: Sequence[str], stretch: int) -> float:
        """The highest rate, in nats per character, of `stretch` words in a row; of all words where there are fewer."""
        line = [START, *(word.lower() for word in words)]
        nats = [self._surprise(a, b) for a, b in pairwise(line)]
        sizes = [len(word) + 1 for word in words]
        starts = range(max(1, len(words) - stretch + 1))
        return max((sum(nats[i : i + stretch]) / max(1, sum(sizes[i : i + stretch])) for i in starts), default=0.0)

    def _pair(self, before: str, word: str) -> float:
        spelt = math.exp(-self.spelling.surprise(word)) if word != END else 0.0
        d = self.discount
        p = (max(self.continuations[word] - d, 0) + d * len(self.continuations) * spelt) / max(1, self.kinds)
        after = self.pairs.get(before)
        if after is not None:
            p = (max(after[word] - d, 0) + d * len(after) * p) / self.totals[before]
        return -math.log(max(p, 1e-300))


def train_unread(clean: Sequence[str], others: Sequence[str]) -> tuple[WordBigrams, list[WordBigrams]]:
    """Bigrams of the clean texts, and for each of them bigrams of the other four fifths, which have not read it.

    others: texts that all learn to spell from, and nothing else. Where the texts to be judged are among them the clean
    ones must be too, or else a threshold found on those is one for words never seen before.
    """
    vocabulary = {word for text in others for word in text.split()}
    folds = range(min(FOLDS, len(clean)))
    models = [WordBigrams([text for i, text in enumerate(clean) if i % FOLDS != fold], vocabulary) for fold in folds]
    return WordBigrams(clean, vocabulary), [models[i % FOLDS] for i in range(len(clean))]


class CausalLM:
    """Any causal language model of transformers, by Hub name or folder. Raises BadInput if there is none."""

    def __init__(self, name: str, device: torch.device, batch: int = 32) -> None:
        self.tokenizer: Any = tokenizer(name)
        self.model: Any = load_causal(name).lm.to(device).eval()
        self.device, self.batch = device, batch

    @torch.no_grad()
    def leave_one_out(self, words: Sequence[str]) -> tuple[Reading, list[Reading]]:
        texts = [" ".join(words), *(" ".join([*words[:i], *words[i + 1 :]]) for i in range(len(words)))]
        batches = [texts[start : start + self.batch] for start in range(0, len(texts), self.batch)]
        found = [reading for batch in batches for reading in self._read(batch)]
        return found[0], found[1:]

    def _read(self, texts: list[str]) -> list[Reading]:
        start = self.tokenizer.bos_token_id  # with it the first word is judged too
        limit = getattr(self.model.config, "max_position_embeddings", 1024)
        rows = [([] if start is None else [start]) + self.tokenizer(text)["input_ids"] for text in texts]
        width = min(limit, max(2, *map(len, rows)))
        ids, mask = torch.zeros(2, len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row[:width], dtype=torch.long)
            mask[i, : len(row)] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        logits = self.model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        nats = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none") * mask[:, 1:]
        return [Reading(n, c) for n, c in zip(nats.sum(1).tolist(), mask[:, 1:].sum(1).tolist())]
