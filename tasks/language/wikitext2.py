"""Good and featured articles of Wikipedia."""

from __future__ import annotations

from typing import ClassVar

from tasks.data import dataset_dict, texts_of
from tasks.language import LanguageTask
from tasks.plugin import Positive, options


@options
class Wikitext2(LanguageTask):
    """A language model of Wikipedia articles (where only validation and test are there, the former is trained on)."""

    dataset: ClassVar[str] = "Salesforce/wikitext"
    folder: ClassVar[str] = "wikitext2_eval"
    licence: ClassVar[str] = "CC BY-SA 3.0"
    paper: ClassVar[str] = "Merity et al., Pointer Sentinel Mixture Models, ICLR 2017"

    base_size: Positive | None = None  # all there is

    @classmethod
    def corpus(cls) -> tuple[list[str], list[str]]:
        splits = dataset_dict(cls.dataset, cls.folder, data_dir="wikitext-2-raw-v1")
        names = "train" if "train" in splits else "validation", "test"
        train, test = (texts_of(splits[name], "wikitext2_eval", "text") for name in names)
        return ["\n".join(train)], ["\n".join(test)]  # one row is one line
