"""Instructions with answers: the instruction-tuning scenario."""

from __future__ import annotations

from typing import ClassVar

from tasks.data import columns, dataset_dict, texts_of
from tasks.language import LanguageTask
from tasks.plugin import Positive, options


@options
class Alpaca(LanguageTask):
    """A language model of instructions and their answers (Stanford Alpaca; every tenth row is held out)."""

    dataset: ClassVar[str] = "tatsu-lab/alpaca"
    folder: ClassVar[str] = "alpaca"
    licence: ClassVar[str] = "CC BY-NC 4.0"
    paper: ClassVar[str] = "Taori et al., Stanford Alpaca, 2023"
    answer: ClassVar[str] = "\n\n### Response:"

    characters: Positive = 400  # longer pairs are left out
    base_size: Positive | None = 2500

    @classmethod
    def corpus(cls) -> tuple[list[str], list[str]]:
        rows = dataset_dict(cls.dataset, cls.folder)["train"]
        instructions, outputs = (texts_of(rows, "alpaca", name) for name in ("instruction", "output"))
        (inputs,) = columns(rows, "alpaca", "input")
        asked = ["\n".join(filter(None, pair)) for pair in zip(instructions, inputs, strict=True)]
        pairs = zip(asked, outputs, strict=True)
        texts = [f"### Instruction:\n{question}{cls.answer} {answer}" for question, answer in pairs]
        return [t for i, t in enumerate(texts) if i % 10], texts[::10]
