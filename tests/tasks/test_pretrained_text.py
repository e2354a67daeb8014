"""Small text victims that are first trained on another text task: where they start, what they read, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from attacks._crafting.text_gradients import decode
from harness.cell import steps
from harness.cell.case import Fitter
from harness.cell.train import make_network
from harness.keys.content import content_hash
from harness.plugins.registry import create, entries
from harness.store.folder import Store
from tasks.base import sealed
from tasks.plugin import BadInput
from tasks.text import TextTask, small_tokenizer
from tasks.text.csv_text import CsvText
from tasks.text.synthetic_reviews import BAD, EITHER, GOOD

CPU = torch.device("cpu")
THINGS = ("kettle", "drawer", "tram", "ferry", "onion", "barley")  # words that the source does not have
SMALL_BODY = {"vocabulary": 400, "width": 4}
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One for all tests here, so that a body is trained once."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> TextTask:
    """Praise, blame and neither, of other things than the source's, for a bag trained on the embedded reviews."""
    path, words = tmp_path_factory.mktemp("data") / "rows.csv", [GOOD.split(), BAD.split(), EITHER.split()]
    rows = []
    for i in range(300):
        own, thing = words[i % 3], THINGS[i % 5]
        rows.append(f"{thing} {i} is {own[i // 3 % len(own)]} and {own[i // 2 % len(own)]},{'abc'[i % 3]}")
    path.write_text("text,label\n" + "\n".join(rows))
    return task_of("csv_text", path=str(path), reserve_size=30, epochs=4, max_length=24,
                   pretrained_on="synthetic_reviews", **SMALL_BODY)  # fmt: skip


def task_of(name: str, **options: Any) -> TextTask:
    task = create("tasks", name, options)
    assert isinstance(task, TextTask)
    return task


def source_of(task: TextTask) -> TextTask:
    source = task.source()
    assert source is not None
    return source


def start_of(task: TextTask, store: Store, seed: int) -> Weights:
    """The weights from which the victim of this seed is trained."""
    victim = Fitter(task, store, CPU, seed).pretrained(seed)
    assert victim is not None
    weights: Weights = victim.module.state_dict()
    return weights


def is_same(a: Weights, b: Weights, head: bool) -> bool:
    """Whether the heads, or all else but the heads, are equal bit for bit."""
    names = [name for name in a if name.startswith("head.") == head]
    assert names
    return all(torch.equal(a[name], b[name]) for name in names)


@pytest.mark.parametrize("victim", ["bag", "transformer"])
def test_the_body_is_the_sources_and_the_head_is_new(target: TextTask, victim: str, store: Store) -> None:
    task = replace(target, victim=victim)
    source = source_of(task)
    body = Fitter(source, store, CPU, 0)(source.load().train).module.state_dict()
    with sealed():  # as a defense would: training is its business, the body's data is not
        start = start_of(task, store, 5)
    assert is_same(start, body, head=False)
    assert start["head.weight"].shape[0] == 3 != body["head.weight"].shape[0]
    assert is_same(start, make_network(task, task.recipe(), 5, CPU, None).state_dict(), head=True)


def test_two_seeds_differ_in_the_head_and_without_a_base_seed_in_the_body_too(target: TextTask, store: Store) -> None:
    first, second = (start_of(target, store, seed) for seed in (0, 1))
    assert is_same(first, second, head=False)
    assert not is_same(first, second, head=True)
    own = replace(target, base_seed=None)
    third, fourth = (start_of(own, store, seed) for seed in (0, 1))
    assert is_same(third, first, head=False)
    assert not is_same(third, fourth, head=False)


def test_a_note_says_that_all_seeds_share_a_body(target: TextTask) -> None:
    assert "one pre-trained network (base_seed=0)" in target.load().notes[-1]
    for task in (replace(target, base_seed=None), replace(target, pretrained_on="none")):
        assert not [note for note in task.load().notes if "pre-trained" in note]


def test_a_frozen_body_stays_and_its_head_learns(target: TextTask, store: Store) -> None:
    task = replace(target, frozen="body", epochs=60)
    splits, start = task.load(), start_of(task, store, 0)
    victim = Fitter(task, store, CPU, 0)(splits.train)
    assert is_same(victim.module.state_dict(), start, head=False)
    answers = victim.predict(splits.test).answers
    assert (answers == splits.test.targets).float().mean() > 0.6  # of three classes


def test_both_read_the_tokens_of_the_source(target: TextTask) -> None:
    source, plain = source_of(target), replace(target, pretrained_on="none")
    texts = target.load().test
    assert torch.equal(target.encode(texts, CPU), source.encode(texts, CPU)[:, : target.length])
    assert not torch.equal(target.encode(texts, CPU), plain.encode(texts, CPU))
    assert small_tokenizer(target).get_vocab() == small_tokenizer(source).get_vocab()
    assert decode(target, target.encode(texts, CPU)) == texts.inputs
    assert [target.count_tokens(text) for text in texts.inputs] == (target.encode(texts, CPU) > 0).sum(1).tolist()


def test_the_length_that_is_chosen_counts_the_tokens_of_the_source(target: TextTask) -> None:
    plain = replace(target, pretrained_on="none")
    train = target.load().train
    counted = [target._count_all(train), plain._count_all(train)]
    assert counted[0].tolist() == [target.count_tokens(text) for text in train.inputs]
    assert counted[0].sum() > counted[1].sum(), "a foreign tokenizer needs more tokens"
    assert replace(target, max_length=None).length == 64


def test_the_defaults_change_nothing(target: TextTask, store: Store) -> None:
    plain = replace(target, pretrained_on="none")
    assert plain.source() is None
    assert Fitter(plain, store, CPU, 0).pretrained(0) is None
    train = plain.load().train
    once, again = (Fitter(task, store, CPU, 0)(train) for task in (plain, replace(plain, base_seed=3)))
    assert is_same(once.module.state_dict(), again.module.state_dict(), head=False)
    fresh = make_network(plain, replace(plain.recipe(), epochs=1), 0, CPU, None).state_dict()
    assert not is_same(fresh, start_of(target, store, 0), head=False)


def test_every_published_text_task_can_be_the_source_of_others(target: TextTask) -> None:
    names = get_args(CsvText.__pydantic_fields__["pretrained_on"].annotation)  # type: ignore[attr-defined]
    published = {name for name, found in entries("tasks").items() if found.modalities == ("text",)} - {"csv_text"}
    assert set(names) - {"none"} == published
    for name in published:
        source = source_of(replace(target, pretrained_on=name, depth=2, victim="transformer"))
        assert (source.name, source.victim, source.depth, source.width) == (name, "transformer", 2, 4)
        assert (source.max_length, source.vocabulary, source.source()) == (24, 400, None)
    bag = source_of(replace(target, pretrained_on="sst2"))
    assert bag.max_length == create("tasks", "sst2").max_length, "a bag has no places, so it reads all it can"


def test_the_code_of_the_source_counts_in_the_key(target: TextTask) -> None:
    """Nothing that the task imports by name leads to it."""
    plain = replace(target, pretrained_on="none")
    assert content_hash(target) != content_hash(plain)
    assert content_hash(replace(plain, base_seed=3)) == content_hash(plain)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pretrained_on": "synthetic_reviews"}, "the texts that the victim is then trained on"),
        ({"pretrained_on": "sst2", "victim": "minilm"}, "'minilm' is pre-trained already; use bag or transformer"),
        ({"pretrained_on": "sst2", "victim": "somebody/some-model"}, "is pre-trained already"),
        ({"pretrained_on": "sst2", "victim": "transformer", "max_length": None}, "give a number"),
        ({"pretrained_on": "nobody"}, "pretrained_on='nobody': Input should be 'none', 'ag_news'"),
    ],
)
def test_what_cannot_be_right_is_refused_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        create("tasks", "synthetic_reviews", options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_cell_is_poisoned_and_graded_from_the_pretrained_body_on(target: TextTask, store: Store) -> None:
    task = replace(target, victim="transformer", width=16, epochs=20)
    attack, defense = create("attacks", "badwords", {"target": 0}), create("defenses", "none")
    found = steps.run_steps(task, attack, 40, defense, 0, store, CPU)  # type: ignore[arg-type]
    assert found.metrics["poison_seen"].value == 1
    assert found.metrics["utility"].value > 0.6
    assert found.metrics["asr"].value > found.metrics["asr_floor"].value + 0.3
