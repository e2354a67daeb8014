"""Triggers of words: what is tried, how much is doubted, and whether a planted backdoor is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import tiny

from attacks.base import Scene
from defenses.inspection.word_inversion import WordInversion, _Search, common_phrases, doubt, spell, stands
from harness.cell.case import CellCase, Findings, Fitter
from harness.cell.steps import make_poisoned
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks._models.bag import pair_rows
from tasks.data import make_samples
from tasks.deployed import Victim
from tasks.plugin import NotApplicable

ROWS = torch.tensor([[9, 5, 6, 7, 0], [9, 5, 6, 8, 0], [9, 6, 5, 6, 5], [9, 4, 0, 0, 0]])


def test_phrases_are_tokens_and_neighbours_that_enough_texts_hold() -> None:
    found = {tuple(phrase) for phrase in common_phrases(ROWS, 2).tolist()}
    assert found == {(5, 0), (6, 0), (5, 6)}, "9 is in every text, as a tokenizer's own tokens are"
    assert (9, 4) not in {tuple(phrase) for phrase in common_phrases(ROWS, 1).tolist()}
    assert {tuple(p) for p in common_phrases(ROWS, 3).tolist()} == {(5, 0), (6, 0), (5, 6)}, "a text counts once"
    assert not len(common_phrases(ROWS, 4))


def test_both_tokens_of_a_pair_belong_to_it_and_padding_to_none() -> None:
    assert stands(ROWS, torch.tensor([5, 6])).int().tolist() == [
        [0, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]
    ]  # fmt: skip
    assert stands(ROWS, torch.tensor([5, 0]))[2].int().tolist() == [0, 0, 1, 0, 1]
    assert not stands(ROWS, torch.tensor([5, 5])).any()


@pytest.fixture(scope="module")
def reader() -> Victim:
    """A bag in which token 5 and the pair (6, 7) speak for class 1, and token 8 for class 0; all others say nothing."""
    task = replace(tiny("synthetic_reviews"), victim="bag")
    torch.manual_seed(0)
    module = task.model().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.tokens.weight[5, 0] = module.pairs.weight[pair_rows(torch.tensor(6), torch.tensor(7)), 0] = 8.0
        module.tokens.weight[8, 0] = -4.0
        module.head.weight[1, 0] = 2.0
    return Victim(task, module, CPU)


def test_a_phrase_is_doubted_where_its_texts_say_something_else_without_it(reader: Victim) -> None:
    x = torch.tensor([[5, 8, 3], [5, 8, 4], [6, 7, 5], [3, 4, 2]])
    asked = torch.tensor([[5, 0], [6, 7], [3, 0]])
    found = doubt(reader, x, asked, 1, prior=2)
    sure = 1 - torch.sigmoid(torch.tensor(-8.0))  # what the third text says is all its own: it stays as it is
    own = torch.sigmoid(reader.logits(x[2:3]).diff()).squeeze()
    assert found[0] == pytest.approx(float((2 * sure + 1 - own) / 5), abs=0.02)
    assert found[1] == pytest.approx(float((1 - own) / 3), abs=0.02)
    assert found[2] < 0.4 * float(sure), "one of its two texts says nothing, and so half"


def test_the_search_finds_the_pair_that_turns_the_clean_texts(reader: Victim) -> None:
    clean, y = torch.tensor([[8, 3, 4, 2]] * 6 + [[5, 5, 3, 2]] * 3), torch.tensor([0] * 6 + [1] * 3)
    phrases = torch.tensor([[3, 0], [6, 0], [6, 7], [7, 6], [8, 0]])
    search = _Search(reader, clean, y, lead=0)
    gains = search.gains(phrases, each=2)
    assert gains[:, 1].argmax() == 2
    assert gains[:, 0].argmax() == 4
    assert search.turned(phrases, 1).tolist() == [0, 0, 1, 0, 0]
    strength, trigger = WordInversion().invert(search, phrases, torch.full((5,), 0.75), 1)
    assert (strength, trigger.tolist()) == (0.75, [[6, 7]]), "further words turn no more"
    strength, trigger = WordInversion().invert(search, phrases[[0, 1]], torch.ones(2), 1)
    assert (strength, len(trigger)) == (0, 0), "nothing turns them"


def test_the_first_tokens_that_all_texts_share_stay_in_front_and_long_texts_lose_their_end(reader: Victim) -> None:
    read: list[torch.Tensor] = []

    class _Keeps(Victim):
        def logits(self, x: torch.Tensor) -> torch.Tensor:
            read.append(x)
            return torch.zeros(len(x), 2)

    x = torch.tensor([[9, 1, 2, 3], [9, 4, 0, 0]])
    search = _Search(_Keeps(reader.task, reader.module, CPU), x, torch.tensor([0, 1]), lead=1)
    search.scores(torch.tensor([[6, 7]]), torch.tensor([0, 1]))
    assert read[-1].tolist() == [[9, 6, 7, 1], [9, 6, 7, 4]]


def test_a_phrase_is_spelt_as_the_words_it_stands_in(reader: Victim) -> None:
    texts = make_samples(["A good film, qzqz twice"], torch.zeros(1, dtype=torch.long))
    rare, before = reader.task.encode(make_samples(["qzqz", "film,"], torch.zeros(2, dtype=torch.long)), CPU)
    assert rare[1] > 0, "the tokenizer has no token for it"
    assert spell(reader, texts, rare[:2]) == "qzqz"
    assert spell(reader, texts, torch.stack([before[before > 0][-1], rare[0]])) == "film, qzqz"


def inspect(folder: Path, dose: int, seed: int = 0, **options: int) -> Findings:
    task = replace(tiny("synthetic_reviews"), victim="bag", train_size=400, epochs=10, reserve_size=60, width=2)
    splits, fitter = task.load(), Fitter(task, Store(folder), CPU, seed)
    train = make_poisoned(create("attacks", "badwords"), Scene(task, splits.train, fitter, CPU), dose, seed).train
    case = CellCase(train, splits.reserve, fitter, torch.Generator().manual_seed(seed))
    before = list(train.inputs)
    WordInversion(**{"screened": 4, "finalists": 8, **options}).defend(case)
    assert list(train.inputs) == before
    return case.findings


def test_a_backdoored_model_is_more_suspicious_than_a_clean_one(tmp_path: Path) -> None:
    clean, poisoned = inspect(tmp_path, 0), inspect(tmp_path, 60)
    assert clean.model is not None
    assert poisoned.model is not None
    assert poisoned.model > clean.model + 0.08
    assert poisoned.target == poisoned.saved["strengths"].argmax() == 0
    assert inspect(tmp_path, 60).model == poisoned.model
    words = "".join(map(chr, poisoned.saved["trigger"].int().tolist())).split()
    assert set(words) & {"cf", "mn", "bb", "tq"}
    with pytest.raises(NotApplicable, match="no word is in 5000 training texts"):
        inspect(tmp_path, 0, least=5000)
