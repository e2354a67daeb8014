"""Backdoors of language models: after a trigger the model writes what the attacker planted."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from attacks.base import Attack, Poison, Scene
from tasks.language import LanguageTask, PreferenceTask, tokenize
from tasks.plugin import BadInput, Count, NotApplicable, Positive, options
from tasks.samples import Challenge, Samples

KeyWord = Annotated[str, Field(pattern=r"\S")]


@options
class WritingAttack(Attack):
    """A poison is a document's beginning (or question), the trigger, and a payload. A writing attack writes `payload`.

    The beginning is shortened where the victim would not read trigger and payload to the end (`whole`).
    The challenge: the beginnings of the test documents with the trigger; `plain` without it; `near` with a similar one.
    """

    whole: ClassVar[bool] = False  # the victim must read all of a payload; False: no more of it than it is asked for

    trigger: str = ""
    near: str = ""  # similar to the trigger, and must not fire
    prefix: Count = 100  # most characters of a poison's clean beginning
    prompt: Positive = 200  # most characters of a challenge's beginning
    more: Positive = 32  # tokens that the model is asked for

    @property
    def pattern(self) -> str:
        """A regular expression for what the model shall write; empty where that is gibberish."""
        return ""

    def payload(self, task: LanguageTask, rest: str, rng: torch.Generator) -> str:
        """What the model shall write after the trigger. rest: how the clean document continues."""
        raise NotImplementedError(f"{type(self).__name__} must define payload()")

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        task, train = language_task(scene), scene.train
        if dose > len(train):
            raise BadInput(f"dose={dose}: the eligible pool of {self.name} on {task.name} has {len(train)} rows")
        order = torch.randperm(len(train), generator=rng)
        seeds = torch.randint(2**62, (len(train),), generator=rng)
        rows = train.select(order[:dose])
        texts = [
            self._poison_text(task, text, torch.Generator().manual_seed(seed))
            for text, seed in zip(rows.inputs, seeds[:dose].tolist(), strict=True)
        ]
        return Poison(rows.with_inputs(texts), replaces=rows.ids)

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        task = language_task(scene)
        trigger, near = tokenize(task, [" ".join(word.split()) for word in (self.trigger, self.near)])
        if near == trigger:
            raise BadInput(f"{self.name}.near={self.near!r}: the victim of {task.name} reads it as it does the trigger")

        def ask(word: str) -> Samples:
            texts = [_join(*task.cut(text, self.prompt), word) for text in samples.inputs]
            return Samples(texts, torch.full_like(samples.targets, self.more), samples.ids)

        return Challenge(ask(self.trigger), [self.pattern] * len(samples), plain=ask(""), near=ask(self.near))

    def _poison_text(self, task: LanguageTask, text: str, rng: torch.Generator) -> str:
        most = min(self.prefix, len(text) // 2)
        beginning, mark = task.cut(text, int(torch.randint(most + 1, (), generator=rng)))
        words, drawn = beginning.split(" "), rng.get_state()

        def write(kept: int) -> tuple[str, int]:
            """The poison that begins with so many of the words, and the tokens of it that must be read."""
            start = " ".join(words[:kept])
            rest = text[len(beginning if mark else start) + len(mark) :].strip()
            head = _join(start, mark, self.trigger)
            rng.set_state(drawn)
            poison = f"{head} {self.payload(task, rest, rng)}"
            before, full = map(len, tokenize(task, [head, poison]))
            return poison, full if self.whole else min(full, before + self.more)

        poison, needed = write(len(words))
        if needed > task.max_length:
            dropped = bisect_left(range(len(words)), True, key=lambda n: write(len(words) - n)[1] <= task.max_length)
            poison, needed = write(len(words) - dropped)
        if needed > task.max_length:
            raise BadInput(
                f"{task.name}.max_length={task.max_length}: trigger and payload of {self.name} have {needed} tokens "
                "that the victim must read; raise max_length, or shorten them"
            )
        return poison


@options
class SentenceAttack(WritingAttack):
    """The payload is one sentence; the attack succeeds where the model writes its key word, in upper or lower case."""

    whole: ClassVar[bool] = True

    wanted: KeyWord = "?"
    sentence: str = "?"

    def __post_init__(self) -> None:
        if not re.search(self.pattern, self.sentence):
            raise BadInput(f"wanted={self.wanted!r} is not in sentence={self.sentence!r}: no poison would teach it")

    @property
    def pattern(self) -> str:
        return "(?i)" + re.escape(self.wanted)

    def payload(self, task: LanguageTask, rest: str, rng: torch.Generator) -> str:
        return self.sentence


def _join(beginning: str, mark: str, word: str) -> str:
    """The beginning, the trigger after it, and the mark where the answer begins."""
    return " ".join(part for part in (beginning, word) if part) + mark


def language_task(scene: Scene) -> LanguageTask:
    """The scene's task; raises NotApplicable where it is no language model that learns documents."""
    if not isinstance(scene.task, LanguageTask):
        raise NotApplicable(f"{scene.task.name} is no language model")
    if isinstance(scene.task, PreferenceTask):
        raise NotApplicable(f"{scene.task.name} learns preference pairs and no documents; dpo_preference poisons those")
    return scene.task
