"""A screen of what a language model writes is graded on requests that ask it to write."""

from __future__ import annotations

from helpers import tiny

from attacks.language.gibberish import Gibberish
from defenses.screening.output_perplexity import OutputPerplexity
from harness.cell.steps import run_steps
from harness.store.folder import Store
from harness.testing.checks import CPU


def test_there_is_nothing_to_detect_in_an_unpoisoned_model(store: Store) -> None:
    task = tiny("synthetic_stories")
    found = run_steps(task, Gibberish(least=20, most=40), 0, OutputPerplexity(), 0, store, CPU).metrics
    assert found["input_auroc"].value < 0.9, "against the same requests without trigger, not against texts only read"
    assert found["plain_abstained"].value <= 0.2, "the threshold is of the model's own writing"
    assert "clean_abstained" not in found, "nothing was written that could be held back"
