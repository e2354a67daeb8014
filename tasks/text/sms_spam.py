"""SMS Spam Collection: text messages, wanted or not."""

from __future__ import annotations

from typing import ClassVar

from tasks.data import as_targets, columns, dataset_dict, make_samples, texts_of
from tasks.plugin import Positive, options
from tasks.samples import Samples
from tasks.text import TextTask, draw_test_texts


@options
class SmsSpam(TextTask):
    """Text messages, ham or spam; with target class 0 the trigger slips spam past the filter.

    Published as one split of 5,574 messages, 13 % spam. A fifth of the distinct messages is the test set, stratified,
    the same for everyone; messages that differ in case or spacing alone stay on one side.
    """

    dataset: ClassVar[str] = "ucirvine/sms_spam"
    revision: ClassVar[str] = "main"
    folder: ClassVar[str] = "sms_spam"
    licence: ClassVar[str] = "CC BY 4.0 (UCI Machine Learning Repository)"
    paper: ClassVar[str] = "Almeida, Gomez Hidalgo and Yamakami, SMS Spam Filtering, DocEng 2011"
    classes: ClassVar[tuple[str, ...]] = ("ham", "spam")

    epochs: Positive = 6
    batch_size: Positive = 64

    def read(self) -> tuple[Samples, Samples]:
        rows = dataset_dict(self.dataset, self.folder)["train"]
        texts = texts_of(rows, "sms_spam", "sms")
        (labels,) = columns(rows, "sms_spam", "label")
        everything = make_samples([text.strip() for text in texts], as_targets(labels, 2, "sms_spam train"))
        test = draw_test_texts(everything, 0.2)
        return everything.drop(test), everything.select(test)
