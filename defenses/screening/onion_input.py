"""ONION at test time: suspicious words are taken out of every input before the model reads it."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from defenses.base import Case, Defense
from defenses.filtering.onion import fit_language_model, quantile, remove_words, suspicions, texts_of
from tasks.deployed import Guarded, Model
from tasks.fluency import LanguageModel, LmName
from tasks.plugin import Positive, Share, options
from tasks.samples import Samples


@options
class OnionInput(Defense):
    """Removes from every input the words without which it would be far more fluent, then classifies it.

    Qi et al., 2021, arXiv 2011.10369, section 3: suspicion of a word = perplexity of the text - perplexity without it.
    Deviations: suspicion is counted in nats, so that texts of all lengths share one threshold (`measure=perplexity` is
    the paper's); the default language model is word bigrams of the clean texts over the spelling of all training words,
    GPT-2 being a download away (`lm=gpt2`); its perplexity is per character; the threshold is a quantile over the words
    of clean texts, where the paper tunes it on a dev set; a text is never emptied.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "it removes words"
    stage: ClassVar[str] = "screening"
    paper: ClassVar[str] = "arXiv 2011.10369"

    lm: LmName = "ngram"  # or the Hub name or folder of a transformers causal language model
    clean_rows: Positive = 200  # texts from the reserve
    measure: Literal["surprise", "perplexity"] = "surprise"  # the second is the paper's; see `suspicions` there
    quantile: Share = 0.95  # of the words of clean texts that stay

    def defend(self, case: Case) -> Model:
        clean = texts_of(case.clean(self.clean_rows).inputs)
        lm, known = fit_language_model(self.lm, clean, texts_of(case.train.inputs), self.measure, case.device)
        threshold = quantile([s for row in known for s in row], self.quantile)
        return Guarded(case.fit(case.train), purify=partial(purify, lm, self.measure, threshold))


def purify(lm: LanguageModel, measure: str, threshold: float, samples: Samples) -> Samples:
    """Without the words above the threshold."""
    texts = texts_of(samples.inputs)
    return samples.with_inputs([remove_words(text, suspicions(lm, text, measure), threshold) for text in texts])
