"""Stanford Sentiment Treebank, two classes: film-review phrases for training, whole sentences for testing."""

from __future__ import annotations

from typing import ClassVar

from tasks.data import as_targets, columns, dataset_dict, make_samples, texts_of
from tasks.plugin import Positive, options
from tasks.samples import Samples
from tasks.text import TextTask


@options
class Sst2(TextTask):
    """Film reviews, positive or negative (SST-2: 67k training phrases, whole sentences for testing).

    The Hub's test split hides its labels (-1), so its validation split (872) is the test set there; a local copy whose
    test split (1821) has labels is tested on that.
    """

    dataset: ClassVar[str] = "stanfordnlp/sst2"
    revision: ClassVar[str] = "main"
    folder: ClassVar[str] = "sst2"
    licence: ClassVar[str] = "none stated; customary for research, cite the paper"
    paper: ClassVar[str] = "Socher et al., Recursive Deep Models for Semantic Compositionality, EMNLP 2013"
    classes: ClassVar[tuple[str, ...]] = ("negative", "positive")

    epochs: Positive = 4

    def read(self) -> tuple[Samples, Samples]:
        splits = dataset_dict(self.dataset, self.folder)
        test = "test" if "test" in splits and min(splits["test"]["label"]) >= 0 else "validation"
        return self._samples(splits, "train"), self._samples(splits, test)

    def _samples(self, splits: dict, split: str) -> Samples:  # type: ignore[type-arg]
        texts = texts_of(splits[split], "sst2", "sentence")
        (labels,) = columns(splits[split], "sst2", "label")
        return make_samples([text.strip() for text in texts], as_targets(labels, 2, f"sst2 {split}"))
