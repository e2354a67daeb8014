"""Defenses that read or write words: rap, textguard, cleangen, temperature; and rounded weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product

import pytest
import torch
from helpers import tiny

from defenses.repair.quantised import round_weights
from defenses.screening.cleangen import _Checked, checked_logits
from defenses.screening.rap import Rap, drop, width_of, with_word
from defenses.screening.temperature import _Resampled
from defenses.training.textguard import _Reader, certified_words, group_of, keep_words
from harness.testing.checks import CPU
from tasks.data import make_samples
from tasks.deployed import Ensemble, Victim
from tasks.language import LanguageVictim
from tasks.samples import Outputs, Samples

TEXTS = ["the film is Good", "a the bad", "", "good good GOOD film"]


def rows(texts: list[str]) -> Samples:
    return make_samples(texts, torch.zeros(len(texts), dtype=torch.long))


# TextGuard


def test_groups_share_out_the_words_and_keep_their_order() -> None:
    parts = [keep_words(rows(TEXTS), group, 3).inputs for group in range(3)]
    for at, text in enumerate(TEXTS):
        words = text.split()
        assert sorted(" ".join(part[at] for part in parts).split()) == sorted(words)
        for group, part in enumerate(parts):
            assert part[at].split() == [w for w in words if group_of(w, 3) == group]
    assert group_of("good", 7) == group_of("GOOD", 7) == int.from_bytes(bytes.fromhex(MD5_GOOD), "big") % 7


MD5_GOOD = "755f85c2723bb39381c7379a604160d8"  # of "good", as md5sum prints it


class _ReadsWords:
    """Answers by the words that it reads: more a's, or more b's; class 2 for an empty text."""

    def predict(self, samples: Samples) -> Outputs:
        scores = torch.zeros(len(samples), 3)
        for at, text in enumerate(samples.inputs):
            words = str(text).split()
            scores[at, 2 if not words else int(sum(w[0] == "b" for w in words) * 2 > len(words))] = 1
        return Outputs(scores, torch.zeros(len(samples), dtype=torch.bool))


def test_no_words_within_the_certificate_change_the_vote() -> None:
    models = [_Reader(_ReadsWords(), group, 5) for group in range(5)]
    texts = [f"a{i} b{i + 1} a{i + 2} a{i * 7} b{i * 5} a{i * 11} b{i * 13}" for i in range(12)]
    sure = certified_words(models, rows(texts), 3)
    before, added = Ensemble(models).predict(rows(texts)).answers, [f"b{i}" for i in range(40)]
    assert (sure == 1).any()
    for word in added:
        after = Ensemble(models).predict(rows([f"{word} {text}" for text in texts])).answers
        assert torch.equal(after[sure >= 1], before[sure >= 1])
    every = [rows([f"{one} {text} {two}" for text in texts]) for one, two in product(added[:12], repeat=2)]
    turned = torch.stack([Ensemble(models).predict(more).answers != before for more in every]).any(0)
    assert turned.any(), "more words than are certified do change some"


@pytest.mark.parametrize(
    ("votes", "sure"), [([0, 0, 0], 1), ([0, 0, 1], 0), ([0, 1, 2], 0), ([0] * 7, 3), ([0] * 6 + [1], 2)]
)
def test_the_certificate_is_half_of_the_lead(votes: list[int], sure: int) -> None:
    assert certified_words([_Always(vote) for vote in votes], rows(["x"]), 3).tolist() == [sure]


class _Always:
    def __init__(self, answer: int) -> None:
        self.answer = answer

    def predict(self, samples: Samples) -> Outputs:
        scores = torch.nn.functional.one_hot(torch.full((len(samples),), self.answer), 3).float()
        return Outputs(scores, torch.zeros(len(samples), dtype=torch.bool))


# RAP


@pytest.fixture(scope="module")
def reader() -> Victim:
    task = replace(tiny("synthetic_reviews"), victim="bag")
    torch.manual_seed(0)
    module = task.model()
    with torch.no_grad():
        module.tokens.weight.normal_(std=0.5)  # as if it had learnt something
    return Victim(task, module.eval(), CPU)


def test_a_zero_word_adds_nothing_but_its_place(reader: Victim) -> None:
    samples = reader.task.load().test.select(range(6))
    x = reader.task.encode(samples, CPU)
    e = reader.module.embed(x)
    there = e[..., -1].sum(1, keepdim=True)
    # A bag divides by the root of the number of tokens, of which there is one more.
    wanted = reader.module.head(reader.module.features(x) * (there / (there + 1)).sqrt())
    torch.testing.assert_close(with_word(reader.module, x, torch.zeros(width_of(reader))), wanted)


def test_the_learnt_word_lowers_its_class_by_what_is_wanted(reader: Victim) -> None:
    samples = reader.task.load().train
    answers = reader.predict(samples).answers
    own = samples.select(answers == 0)
    words = torch.stack([Rap().learn(reader, own, 0), torch.zeros(width_of(reader))])
    lost = drop(reader, own, words, torch.zeros(len(own), dtype=torch.long))
    assert 0.05 < lost.mean() < 0.35
    still = drop(reader, own, torch.zeros_like(words), torch.zeros(len(own), dtype=torch.long))
    assert still.mean() < 0.05


# CleanGen


def test_checked_logits_are_the_distribution_of_drawing_and_then_checking() -> None:
    own, other = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.01, 0.09, 0.9]])
    found = (checked_logits(own, other, 20.0, 0.5) / 0.5).softmax(1)
    drawn = (own.log() / 0.5).softmax(1)[0]
    torch.testing.assert_close(found[0], torch.stack([torch.tensor(0.0), drawn[1], drawn[2] + drawn[0]]))
    assert checked_logits(own, other, 20.0, 0.0).argmax(1).tolist() == [2], "the likeliest is suspicious"
    assert checked_logits(own, other, 100.0, 0.0).argmax(1).tolist() == [0], "and under a laxer alpha is not"


def test_a_model_checked_by_itself_writes_what_it_would_and_by_another_less() -> None:
    task = tiny("synthetic_stories")
    torch.manual_seed(0)
    first, second = task.model().eval(), task.model().eval()
    victim = LanguageVictim(task, first, CPU)
    x = task.encode(task.load().test.select(range(4)), CPU)[:, :8]
    make = partial(_Checked, task, first, CPU)
    for temperature in (0.0, 0.7):
        plain = victim.sample(x, 6, temperature)
        assert torch.equal(make(reference=first).sample(x, 6, temperature), plain)
        assert not torch.equal(make(reference=second, alpha=1.0).sample(x, 6, temperature), plain)
    cold = _Resampled(task, first, CPU, warmth=0.0)
    assert torch.equal(cold.sample(x, 6, 0.7), victim.sample(x, 6, 0.0))


# Rounded weights


def test_rounded_weights_are_multiples_of_their_rows_scale_and_close() -> None:
    weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    for bits in (2, 4, 8):
        found = round_weights(weight, bits)
        scale = weight.flatten(1).abs().amax(1) / (2 ** (bits - 1) - 1)
        levels = found.flatten(1) / scale[:, None]
        torch.testing.assert_close(levels, levels.round())
        assert ((found - weight).flatten(1).abs().amax(1) <= scale / 2 + 1e-6).all()
    assert torch.equal(round_weights(torch.zeros(2, 3), 8), torch.zeros(2, 3))
