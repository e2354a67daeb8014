"""AG News: four topics."""

from __future__ import annotations

from typing import ClassVar

from tasks.data import as_targets, columns, dataset_dict, make_samples, texts_of
from tasks.plugin import Positive, options
from tasks.samples import Samples
from tasks.text import TextTask


@options
class AgNews(TextTask):
    """News in brief, four topics (AG News: title and first sentences).

    A local copy may hold fewer training rows than the Hub's 120,000; `train_size` makes results comparable.
    """

    dataset: ClassVar[str] = "fancyzhx/ag_news"
    revision: ClassVar[str] = "main"
    folder: ClassVar[str] = "ag_news"
    licence: ClassVar[str] = "research and other non-commercial use"
    paper: ClassVar[str] = "arXiv 1509.01626"
    classes: ClassVar[tuple[str, ...]] = ("world", "sports", "business", "science and technology")

    max_length: Positive | None = 96
    epochs: Positive = 4

    def read(self) -> tuple[Samples, Samples]:
        splits = dataset_dict(self.dataset, self.folder)
        return self._samples(splits, "train"), self._samples(splits, "test")

    def _samples(self, splits: dict, split: str) -> Samples:  # type: ignore[type-arg]
        texts = texts_of(splits[split], "ag_news", "text")
        (labels,) = columns(splits[split], "ag_news", "label")
        return make_samples(texts, as_targets(labels, len(self.classes), f"ag_news {split}"))
