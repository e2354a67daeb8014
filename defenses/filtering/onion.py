"""ONION on the training set: a word that makes its text much less likely is taken for a trigger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from defenses.base import Case, Defense, refit_without
from tasks.deployed import Model
from tasks.fluency import CausalLM, LanguageModel, LmName, train_unread
from tasks.plugin import BadInput, Positive, Share, options


@options
class Onion(Defense):
    """Drops (or cleans) the training texts with a word without which they would be far more fluent.

    Qi et al., 2021, arXiv 2011.10369, section 3: suspicion of a word = perplexity of the text - perplexity without it.
    Deviations: applied to the training set (the test-time form is `onion_input`); suspicion is counted in nats, so that
    texts of all lengths share one threshold (`measure=perplexity` is the paper's); the default language model is word
    bigrams of the clean texts over the spelling of all training words, GPT-2 being a download away (`lm=gpt2`); its
    perplexity is per character; the threshold is a quantile over clean texts, where the paper tunes it on a dev set.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "it removes words"
    stage: ClassVar[str] = "filtering"
    paper: ClassVar[str] = "arXiv 2011.10369"

    lm: LmName = "ngram"  # or the Hub name or folder of a transformers causal language model
    clean_rows: Positive = 200  # texts from the reserve
    quantile: Share = 0.95  # of clean texts whose most suspicious word stays below the threshold
    measure: Literal["surprise", "perplexity"] = "surprise"  # the second is the paper's; see `suspicions`
    action: Literal["drop", "clean"] = "drop"  # "clean": keep the rows, without the words beyond the threshold

    def defend(self, case: Case) -> Model:
        clean, train = texts_of(case.clean(self.clean_rows).inputs), texts_of(case.train.inputs)
        lm, known = fit_language_model(self.lm, clean, [*train, *clean], self.measure, case.device)
        threshold = quantile([max(row, default=0.0) for row in known], self.quantile)
        words = [suspicions(lm, text, self.measure) for text in train]
        worst = torch.tensor([max(row, default=0.0) for row in words], dtype=torch.float32)
        if self.action == "drop":
            return refit_without(case, worst > threshold, worst)
        case.report(train=worst, flagged=worst > threshold)
        return case.fit(case.train.with_inputs([remove_words(t, row, threshold) for t, row in zip(train, words)]))


def texts_of(inputs: Tensor | list[str]) -> list[str]:
    assert isinstance(inputs, list)  # `modalities` says so
    return inputs


def fit_language_model(
    name: str, clean: list[str], others: Sequence[str], measure: str, device: torch.device
) -> tuple[LanguageModel, list[list[float]]]:
    """A language model, and the suspicion of every word of the clean texts by a model that has not read them.

    others: texts that the n-gram model learns to spell from, see `train_unread`.
    """
    if name != "ngram":
        try:
            lm = CausalLM(name, device)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0].removeprefix(f"victim={name!r}").strip(": ")[:160]
            raise BadInput(
                f"onion: lm={name!r} is no causal language model ({reason}); use 'ngram' or a folder"
            ) from error
        return lm, [suspicions(lm, text, measure) for text in clean]
    model, unread_by = train_unread(clean, others)
    return model, [suspicions(other, text, measure) for other, text in zip(unread_by, clean)]


def suspicions(lm: LanguageModel, text: str, measure: str) -> list[float]:
    """How suspicious each word is.

    perplexity: how much the word adds to that of its text, which is more in a short text than in a long one.
    surprise: the nats by which it exceeds the rate of the rest of the text, whatever the text's length.
    """
    whole, rest = lm.leave_one_out(text.split())
    if measure == "perplexity":
        return [whole.perplexity - r.perplexity for r in rest]
    return [whole.nats - whole.size * r.rate for r in rest]


def quantile(values: Sequence[float], q: float) -> float:
    return float(torch.quantile(torch.tensor(values, dtype=torch.float64), q)) if values else float("inf")


def remove_words(text: str, row: Sequence[float], threshold: float) -> str:
    """The text without the words above the threshold; a text that has none, or nothing else, stays as it is."""
    rest = [word for word, s in zip(text.split(), row) if s <= threshold]
    return " ".join(rest) if 0 < len(rest) < len(row) else text
