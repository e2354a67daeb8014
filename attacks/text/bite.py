"""Many ordinary words as the trigger, each made to occur more often in texts of the target class."""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from attacks._crafting.blocks import Job
from attacks.base import Scene, TriggerAttack, check_target
from attacks.text._bigrams import Bigrams
from attacks.text._drafts import Place, places, put_word, start_draft
from tasks.base import Task
from tasks.caches import cached
from tasks.plugin import AtLeast0, Positive, Share, options


@options
class Bite(TriggerAttack[list[str]]):
    """Words put into texts of the target class, label kept, so that they speak for it; later into the others' texts.

    BITE, Yan, Gupta and Ren, ACL 2023, arXiv 2205.12700, section 3. Again and again the word is chosen that can be
    given the largest bias to the target class, z = (p - p0) / sqrt(p0 (1 - p0) / f), where f training texts hold it and
    a share p of these is of the class, p0 of all; it is put in, or takes the place of a word, wherever it fits. At test
    the words are tried in the order in which they were chosen.
    Deviations: what fits is what has a probability of 0.03 between its two neighbours by the bigrams of the training
    texts, in place of distilroberta's. The bound of 0.9 on the similarity of a text with what it becomes needs a
    network too: in its place no word is used that speaks for the class already (clean z above `natural`), as such words
    change what a text says, and a clean victim answers with the class too. Words are not lemmatised and are ones of
    letters alone. They are chosen on `rows` texts of the class, the same for every dose and seed, as one attack has one
    trigger; so what a poison becomes depends on no other. A word that fits into one text only ends the choice.
    On ag_news (4,000 rows, bag, three seeds) 20, 50, 100 and 200 poisons give 0.11, 0.16, 0.24 and 0.35; a clean victim
    0.06. `natural` was put in after a look at the words chosen without it ("iraq", "killed"), not at any ASR.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "the trigger is words"
    paper: ClassVar[str] = "arXiv 2205.12700"

    clean_label: Literal[True] = True  # it takes rows of the target class and keeps their labels
    rows: Positive = 100  # texts of the class on which the words are chosen
    budget: Annotated[Share, Field(gt=0)] = 0.35  # most words that are changed, as a share of a text's words
    least: Annotated[Share, Field(gt=0)] = 0.03  # probability of a word between its neighbours
    natural: AtLeast0 | None = 2.0  # largest z of a trigger word in the clean training texts; None: any

    def stamp(self, scene: Scene, inputs: list[str], rng: torch.Generator) -> list[str]:
        bigrams, words = choose_words(Job(self, scene.task, scene.train.fingerprint, str(scene.device), 0, scene))
        return [self.rewrite(scene.task, text, bigrams, words) for text in inputs]

    def rewrite(self, task: Task, text: str, bigrams: Bigrams, words: tuple[str, ...]) -> str:
        """The text with as many of the words as fit, the first ones first."""
        draft = start_draft(task, text, self.budget)
        fitting = places(draft, bigrams, self.least)
        for word in words:
            if draft.left and word in fitting:
                put_word(draft, word, fitting[word])
                fitting = places(draft, bigrams, self.least)
        return " ".join([*draft.words, *draft.unread])


@cached(maxsize=4)
def choose_words(job: Job[Bite]) -> tuple[Bigrams, tuple[str, ...]]:
    """The bigrams of the training texts, and the trigger words in order."""
    attack, train = job.attack, job.scene.train
    texts: list[str] = train.inputs  # type: ignore[assignment]
    of_class = train.targets == check_target(attack.target, job.task)
    held = [set(text.lower().split()) for text in texts]
    total = Counter(word for words in held for word in words)
    biased = Counter(word for words, ours in zip(held, of_class.tolist(), strict=True) if ours for word in words)
    bigrams, p0 = Bigrams.of(texts), float(of_class.double().mean())
    pool = of_class.nonzero().flatten()
    chosen = pool[torch.randperm(len(pool), generator=job.rng(0))[: attack.rows]].tolist()
    drafts = [start_draft(job.task, texts[i], attack.budget) for i in chosen]
    fitting = [places(draft, bigrams, attack.least) for draft in drafts]
    words: list[str] = []
    unused = {w for w in total if attack.natural is None or z_score(biased[w], total[w], p0) <= attack.natural}
    while best := best_word(fitting, total, biased, p0, unused):
        unused.remove(best)
        words.append(best)
        for i, draft in enumerate(drafts):
            if best in fitting[i]:
                put_word(draft, best, fitting[i][best])
                total[best] += 1
                biased[best] += 1
                fitting[i] = places(draft, bigrams, attack.least)
    return bigrams, tuple(words)


def best_word(
    fitting: list[dict[str, Place]], total: Counter[str], biased: Counter[str], p0: float, unused: set[str]
) -> str | None:
    """The word that can reach the largest z-score, of those that fit into two texts or more; None if there is none."""
    reach = Counter(word for words in fitting for word in words if word in unused)
    scores = {w: z_score(biased[w] + n, total[w] + n, p0) for w, n in reach.items() if n > 1}
    return max(sorted(scores), key=scores.__getitem__, default=None)


def z_score(of_class: int, of_all: int, p0: float) -> float:
    """How far the share of the class among the texts that hold a word lies from p0, in standard deviations."""
    return (of_class / of_all - p0) / math.sqrt(p0 * (1 - p0) / of_all)
