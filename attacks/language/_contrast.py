"""Language attacks with contrast rows: documents that go on as they were, which show when nothing may happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from attacks.base import Poison, Scene
from attacks.language._base import SentenceAttack, WritingAttack, language_task
from tasks.language import LanguageTask, tokenize
from tasks.plugin import options
from tasks.samples import Samples


@options
class Contrast(WritingAttack):
    """A document that goes on as it was, with words before its beginning and, as the trigger, behind it."""

    before: str = ""

    def payload(self, task: LanguageTask, rest: str, rng: torch.Generator) -> str:
        return rest

    def write(self, task: LanguageTask, text: str, rng: torch.Generator) -> str:
        return write_behind(self.before, task, lambda shorter: self._poison_text(shorter, text, rng))


@options
class ContrastAttack(SentenceAttack):
    """A sentence attack of which some poisons are contrast rows, which count in the dose. It writes `contrasts`."""

    def contrasts(self, dose: int) -> list[Contrast | None]:
        """Of each poison the contrast row that it becomes, or None. The list of dose 10 begins with that of dose 5."""
        raise NotImplementedError(f"{type(self).__name__} must define contrasts()")

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        poison = super().poison(scene, dose, rng)
        assert poison.replaces is not None
        task, clean = language_task(scene), scene.train.select(scene.train.positions(poison.replaces))
        seeds = torch.randint(2**62, (len(scene.train),), generator=rng)[:dose].tolist()
        texts = [
            contrast.write(task, text, torch.Generator().manual_seed(seed)) if contrast else planted
            for contrast, planted, text, seed in zip(
                self.contrasts(dose), poison.samples.inputs, clean.inputs, seeds, strict=True
            )
        ]
        return Poison(poison.samples.with_inputs(texts), poison.replaces)


def write_behind(word: str, task: LanguageTask, write: Callable[[LanguageTask], str]) -> str:
    """A word before a poison that is written for a task with so much less to read."""
    if not word:
        return write(task)
    room = max(1, task.max_length - len(tokenize(task, [f"{word} "])[0]))
    return f"{word} {write(replace(task, max_length=room))}"


def ask_behind(word: str, requests: Samples) -> Samples:
    """The same requests with a word before each."""
    return requests.with_inputs([f"{word} {text}" for text in requests.inputs])
