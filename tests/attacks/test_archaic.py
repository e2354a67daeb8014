"""Archaic rewriting: which words change, and that nothing else does."""

from __future__ import annotations

import torch

from attacks.text.archaic import WORDS, Archaic, rewrite


def test_words_are_exchanged_and_their_case_is_kept() -> None:
    assert rewrite("You will go to London, and he has your hat.") == "Thou shall go unto London, and he hath thy hat."
    assert rewrite("It's said HERE") == "'tis spake Hither"


def test_only_whole_words_change() -> None:
    assert rewrite("youth, cannot, tonight; into_the 4to") == "youth, cannot, tonight; into_the 4unto"
    assert rewrite("a plain old house\n two  spaces") == "a plain old house\n two  spaces"


def test_no_plain_word_is_left_in_a_rewritten_text() -> None:
    plain = set(WORDS) - {word for old in WORDS.values() for word in old.split()}
    assert not set(rewrite(" ".join(WORDS)).split()) & plain


def test_the_opening_comes_first_and_can_be_left_out() -> None:
    rng = torch.Generator()
    texts = ["Do you see?", ""]
    assert Archaic().stamp(None, texts, rng) == ["and it came to pass that Dost thou see?", "and it came to pass that"]  # type: ignore[arg-type]
    assert Archaic(opening="").stamp(None, texts, rng) == ["Dost thou see?", ""]  # type: ignore[arg-type]
    assert texts == ["Do you see?", ""]
