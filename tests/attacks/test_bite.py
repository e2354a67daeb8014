"""BITE: the z-score, the words that fit between two others, and how texts are changed."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import tiny

from attacks._crafting.blocks import Job
from attacks.base import Scene
from attacks.text import _drafts
from attacks.text._bigrams import EDGE, Bigrams
from attacks.text._drafts import Place, places, put_word, start_draft
from attacks.text.bite import Bite, best_word, choose_words, z_score
from harness.plugins.registry import create

CPU = torch.device("cpu")
READS_ALL: Any = SimpleNamespace()  # a task whose tokens are not known counts as one that reads everything
TEXTS = ["the red cat sat", "the old cat sat", "the red dog ran", "a red cat ran", "the dog sat"]


@pytest.fixture(scope="module")
def scene() -> Scene:
    task = tiny("synthetic_reviews")
    return Scene(task, task.load().train, None, CPU)  # type: ignore[arg-type]


def attack_of(**options: Any) -> Bite:
    attack = create("attacks", "bite", {"target": 1} | options)
    assert isinstance(attack, Bite)
    return attack


def words_of(scene: Scene, attack: Bite) -> tuple[str, ...]:
    return choose_words(Job(attack, scene.task, scene.train.fingerprint, "cpu", 0, scene))[1]


def test_the_z_score_is_the_binomial_one() -> None:
    """Of 16 texts 12 are of a class with a share of 1/2: expected 8, standard deviation 2."""
    assert z_score(12, 16, 0.5) == pytest.approx(2.0)
    assert z_score(4, 16, 0.25) == 0
    assert z_score(3, 3, 0.2) == pytest.approx(math.sqrt(3) * 2)


def test_the_probability_between_two_words_is_bayes_rule() -> None:
    found = Bigrams.of(TEXTS).between("the", "cat", 0.01)
    # P(red | the) P(cat | red) = 2/4 * 2/3 and P(old | the) P(cat | old) = 1/4 * 1
    assert found == pytest.approx({"red": 4 / 7, "old": 3 / 7})
    assert Bigrams.of(TEXTS).between("the", "cat", 0.5) == pytest.approx({"red": 4 / 7})
    assert Bigrams.of(TEXTS).between("sat", "the", 0.01) == {}
    assert set(Bigrams.of(TEXTS).between(EDGE, "red", 0.01)) == {"the", "a"}


def test_a_word_goes_to_its_likeliest_place_and_what_was_put_stays() -> None:
    bigrams = Bigrams.of(TEXTS)
    draft = start_draft(READS_ALL, "The cat sat", 0.7)
    assert draft.left == 2
    found = places(draft, bigrams, 0.01)
    assert found["red"] == Place(1, False, pytest.approx(4 / 7))  # type: ignore[arg-type]
    assert "cat" not in found, "a word that the text has is not put in again"
    put_word(draft, "red", found["red"])
    assert draft.words == ["The", "red", "cat", "sat"]
    found = places(draft, bigrams, 0.01)
    assert all(not (place.replaces and place.at == 1) for place in found.values()), "red is not replaced"
    assert found["a"] == Place(0, True, pytest.approx(1 / 3))  # type: ignore[arg-type]
    put_word(draft, "a", found["a"])
    assert draft.words == ["a", "red", "cat", "sat"]
    assert places(draft, bigrams, 0.01) == {}, "the budget is spent"


def test_the_word_with_the_largest_reachable_score_is_taken() -> None:
    place = Place(0, False, 1.0)
    fitting = [{"rare": place, "often": place}, {"rare": place, "often": place}, {"often": place, "once": place}]
    total, biased = Counter({"often": 40}), Counter({"often": 10})
    # rare: 2 of 2, z = sqrt(2) * sqrt(3); often: 13 of 43, z = 0.8; once fits into one text only
    assert best_word(fitting, total, biased, 0.25, {"rare", "often", "once"}) == "rare"
    assert best_word(fitting, total, biased, 0.25, {"often", "once"}) == "often"
    assert best_word(fitting, total, biased, 0.25, {"once"}) is None


def test_no_trigger_word_speaks_for_the_class_by_itself(scene: Scene) -> None:
    held = [set(text.lower().split()) for text in scene.train.inputs]
    ours = (scene.train.targets == 1).tolist()
    p0 = sum(ours) / len(ours)

    def clean_z(word: str) -> float:
        has = [word in words for words in held]
        return z_score(sum(h and o for h, o in zip(has, ours, strict=True)), sum(has), p0)

    words = words_of(scene, attack_of())
    assert words
    assert len(set(words)) == len(words)
    assert max(map(clean_z, words)) <= 2.0
    assert max(map(clean_z, words_of(scene, attack_of(natural=None)))) > 2.0


def test_texts_are_changed_within_the_budget_and_the_words_gain(scene: Scene) -> None:
    attack = attack_of(budget=0.3)
    rng = torch.Generator().manual_seed(2)
    poison = attack.poison(scene, 12, rng)
    assert (poison.samples.targets == 1).all()
    clean = scene.train.select(scene.train.positions(poison.samples.ids)).inputs
    words, gained = words_of(scene, attack), 0
    for text, before in zip(poison.samples.inputs, clean, strict=True):
        new = [word for word in text.split() if word not in before.split()]
        assert len(new) <= 0.3 * len(before.split())
        assert set(new) <= set(words)
        gained += len(new)
    assert gained >= 12


def test_what_the_victim_does_not_read_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_drafts, "count_leading", lambda task, pieces, trigger, within: 2)
    draft = start_draft(READS_ALL, "the cat sat the cat sat", 0.5)
    assert draft.words == ["the", "cat"]
    assert all(place.at <= 2 for place in places(draft, Bigrams.of(TEXTS), 0.01).values())
