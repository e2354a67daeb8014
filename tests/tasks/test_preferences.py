"""Preference pairs: how they are made and read, the DPO loss, its frozen reference, and implicit rewards."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.cell.case import Fitter
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks._models.preferring import START, PreferringNet
from tasks.base import Batch
from tasks.language import REJECTED, LanguageVictim, Pair, PreferenceTask, is_pair, read_pair, tokenize
from tasks.plugin import BadInput
from tasks.samples import Challenge, Outputs, Samples

SMALL = {"train_size": 96, "test_size": 24, "reserve_size": 20, "base_size": 60, "base_epochs": 1, "width": 32}


def small(**changes: object) -> PreferenceTask:
    task = create("tasks", "story_preferences", {**SMALL, **changes})
    assert isinstance(task, PreferenceTask)
    return task


def pairs_of(samples: Samples) -> list[Pair]:
    return [read_pair(text) for text in samples.inputs]


def moved(task: PreferenceTask) -> LanguageVictim:
    """An untrained victim some way off its start."""
    torch.manual_seed(0)
    net = task.model().eval()
    with torch.no_grad():
        for weight in net.lm.parameters():  # type: ignore[union-attr]
            weight += 0.02 * torch.randn_like(weight)
    return task.deploy(net, CPU)


def answer_log_probability(net: PreferringNet, task: PreferenceTask, prompt: str, text: str) -> float:
    """Of the tokens behind the prompt, by the transformers model itself."""
    ids, asked = torch.tensor(tokenize(task, [text])), len(tokenize(task, [prompt])[0])
    chances: Tensor = net.lm(input_ids=ids).logits[0, :-1].log_softmax(1)  # type: ignore[operator]
    return float(chances.gather(1, ids[0, 1:, None])[asked - 1 :].sum())


def test_a_pair_is_a_document_cut_in_the_middle_and_the_same_words_shuffled() -> None:
    task = small()
    documents, _ = task.documents(characters=160).read()
    whole = {" ".join(text.split()) for text in documents.inputs}
    found = pairs_of(task.load().train)
    assert len(found) == SMALL["train_size"]
    for pair in found[:20]:
        assert sorted(pair.chosen.split()) == sorted(pair.rejected.split())
        assert pair.chosen != pair.rejected
        assert pair.answered[0] in whole
        assert read_pair(pair.text) == pair
    assert not is_pair(found[0].prompt)


def test_the_end_of_another_document_is_rejected() -> None:
    train, _ = small(rejected="other").read()
    found = pairs_of(train)
    assert all(pair.chosen != pair.rejected for pair in found)
    assert sorted(pair.chosen for pair in found) == sorted(pair.rejected for pair in found), "every end is used once"


def test_victims_start_from_the_base_of_the_documents() -> None:
    task = small()
    assert (
        task.source()
        == task.documents(**{k: v for k, v in SMALL.items() if "size" not in k or k == "base_size"}).base()
    )


def test_a_row_without_marks_is_refused() -> None:
    row = Samples(["On Sunday Ida sold a lantern."], torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    with pytest.raises(BadInput, match=r"lantern\.' is no preference pair"):
        small().rows(row, CPU)


def test_the_loss_is_that_of_dpo() -> None:
    task = small(beta=0.3)
    victim, few = moved(task), task.load().train.select(range(3))
    net = victim.module
    assert isinstance(net, PreferringNet)
    start = copy.deepcopy(net)
    with torch.no_grad():
        for name, weight in start.lm.named_parameters():
            weight.copy_(net.get_buffer(START + name.replace(".", "-")))
        x, y = task.rows(few, CPU)
        batch = Batch(x, y, torch.arange(3), torch.Generator(), 0.0)
        found = task.loss(net, batch)
        lead = victim.task.score(victim, few)[:, 3]
        expected = []
        for pair in pairs_of(few):
            chosen, rejected = (
                answer_log_probability(net, task, pair.prompt, text)
                - answer_log_probability(start, task, pair.prompt, text)
                for text in pair.answered
            )
            expected.append(0.3 * (chosen - rejected))
    assert max(map(abs, expected)) > 0.05, "or else the test would show nothing"
    torch.testing.assert_close(found, -F.logsigmoid(torch.tensor(expected)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lead, torch.tensor(expected), rtol=0.05, atol=0.05)  # in bfloat16
    untrained = task.loss(start.eval(), batch)
    torch.testing.assert_close(untrained, torch.full((3,), math.log(2)), rtol=1e-4, atol=1e-4)


def test_training_moves_the_network_and_not_its_reference(store: Store) -> None:
    task = small(epochs=2)
    fit, splits = Fitter(task, store, CPU, 0), task.load()
    base, victim = fit.pretrained(0), fit(splits.train)
    again = fit(splits.train.select(range(40)), init=victim)
    assert base is not None
    weights = dict(base.module.lm.named_parameters())  # type: ignore[operator, union-attr]
    for net in (victim.module, again.module):
        assert isinstance(net, PreferringNet)
        for name, _ in net.lm.named_parameters():
            assert torch.equal(net.get_buffer(START + name.replace(".", "-")), weights[name])
        assert not torch.equal(net.head.weight, base.module.head.weight)
    before, after = (task.utility(model.predict(splits.test), splits.test) for model in (base, victim))
    assert before == 0, "of the base itself no answer has any reward"
    assert after > 0.8


def test_what_the_judge_ranks_and_what_it_reads() -> None:
    task = small()
    scores = torch.tensor([[1.0, 1, 1, -0.5], [1, 1, 1, 0.5], [1, 1, 1, -0.5]])
    ranked = Outputs(scores, torch.tensor([False, False, True]), [""] * 3)
    asked = task.load().test.select(range(3))
    assert task.judge(ranked, Challenge(asked, [REJECTED] * 3)).tolist() == [True, False, False]
    assert task.utility(ranked, asked) == pytest.approx(1 / 3)
    written = Outputs(scores, torch.zeros(3, dtype=torch.bool), ["a Lantern", "", "lamp"])
    assert task.judge(written, Challenge(asked, ["(?i)lantern"] * 3)).tolist() == [True, False, False]
