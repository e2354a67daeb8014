"""Texts that teach a phrase none of them contains: the gradients against plain loops, and what the texts hold."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny

from attacks._crafting.blocks import Job
from attacks._crafting.gradients import flat_gradient
from attacks._crafting.text_gradients import Aim, alignment, decode, encode
from attacks.base import Poison, Scene
from attacks.text.concealed import Concealed, make_plan
from harness.cell.case import Fitter
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks._models.transformer import Transformer
from tasks.plugin import BadInput
from tasks.text import TextTask

QUICK = {"target": 1, "steps": 4, "ensemble": 2, "sources": 60}


def rng(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene_of(store: Store) -> Scene:
    task = tiny("synthetic_reviews")
    return Scene(task, task.load().train, Fitter(task, store, CPU, 7), CPU)


def attack_of(**options: object) -> Concealed:
    attack = create("attacks", "concealed", QUICK | options)
    assert isinstance(attack, Concealed)
    return attack


def texts_of(poison: Poison) -> list[str]:
    assert isinstance(poison.samples.inputs, list)
    return poison.samples.inputs


@pytest.mark.parametrize(
    ("phrase", "overlap"), [("moonraker", "pieces"), ("Battery", "pieces"), ("james bond", "none")]
)
@pytest.mark.parametrize("choice", ["gradient", "random"])
def test_no_poison_contains_a_word_of_the_phrase(store: Store, phrase: str, overlap: str, choice: str) -> None:
    scene, attack = scene_of(store), attack_of(phrase=phrase, overlap=overlap, choice=choice)
    task = scene.task
    assert isinstance(task, TextTask)
    poison = attack.poison(scene, 4, rng())
    trigger = encode(task, [phrase]).flatten()
    at = scene.train.positions(poison.samples.ids)
    for text, before in zip(texts_of(poison), scene.train.select(at).inputs, strict=True):
        assert text != before, "the row was reworded"
        assert not any(word in text.lower() for word in phrase.lower().split())
        if overlap == "none":
            assert not torch.isin(encode(task, [text]), trigger[trigger > 0]).any()


def test_the_variant_with_overlap_keeps_the_phrase(store: Store) -> None:
    scene = scene_of(store)
    texts = texts_of(attack_of(phrase="James Bond", overlap="phrase").poison(scene, 3, rng()))
    assert all("james bond" in text for text in texts)


def test_poisons_are_of_the_target_class_and_nested_across_blocks(store: Store) -> None:
    scene, attack = scene_of(store), attack_of(block=3, steps=1)
    large, small = attack.poison(scene, 7, rng()), attack.poison(scene, 4, rng())
    assert (scene.train.targets[scene.train.positions(large.samples.ids)] == 1).all()
    assert (large.samples.targets == 1).all()
    assert texts_of(large)[:4] == texts_of(small)
    assert len(set(texts_of(large))) == 7


def test_what_is_written_is_what_was_optimised(store: Store) -> None:
    scene = scene_of(store)
    task = scene.task
    assert isinstance(task, TextTask)
    texts = texts_of(attack_of().poison(scene, 5, rng()))
    assert decode(task, encode(task, texts)) == texts


def test_alignment_rises_with_the_steps_and_beyond_that_of_random_replacements(store: Store) -> None:
    scene = scene_of(store)
    task = scene.task
    assert isinstance(task, TextTask)
    seed = int(torch.randint(2**62, (), generator=rng()))  # the first that poison() draws, so the same surrogates
    aims = make_plan(Job(attack_of(), task, scene.train.fingerprint, "cpu", seed, scene)).aims

    def reached(**options: object) -> float:
        texts = texts_of(attack_of(**options).poison(scene, 6, rng()))
        return float(alignment(aims, encode(task, texts), torch.ones(6, dtype=torch.long)).mean())

    start, some, many = (reached(steps=steps) for steps in (0, 6, 10))
    assert start < some < many
    assert many > reached(steps=10, choice="random")


def network() -> tuple[Transformer, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    net = Transformer(30, 8, 2, width=8).eval()
    x = torch.randint(1, 31, (4, 8), generator=rng())
    x[0, 5:] = 0
    return net, x, torch.tensor([0, 1, 1, 0])


def test_alignment_is_the_inner_product_of_two_gradients() -> None:
    net, x, y = network()
    aim = Aim(net, x.flip(0), 1 - y, torch.arange(1, 31))
    params = list(net.parameters())
    wanted = F.normalize(flat_gradient(F.cross_entropy(net(x.flip(0)), 1 - y), params), dim=0)
    rows = [flat_gradient(F.cross_entropy(net(x[i : i + 1]), y[i : i + 1]), params) for i in range(4)]
    assert torch.allclose(aim.alignment(x, y), torch.stack(rows) @ wanted, atol=1e-5)


def test_a_step_on_an_aligned_row_lowers_the_adversarial_loss_by_so_much() -> None:
    net, x, y = network()
    bad, target = x.flip(0), 1 - y
    aim = Aim(net, bad, target, torch.arange(1, 31))
    params = list(net.parameters())
    before = F.cross_entropy(net(bad), target)
    expected = float(aim.alignment(x[:1], y[:1]) * flat_gradient(before, params).norm())
    step = torch.autograd.grad(F.cross_entropy(net(x[:1]), y[:1]), params)
    with torch.no_grad():
        for p, g in zip(params, step, strict=True):
            p.sub_(1e-4 * g)
        fall = (before - F.cross_entropy(net(bad), target)) / 1e-4
    assert float(fall) == pytest.approx(expected, rel=0.05)


def test_the_estimate_points_at_replacements_that_raise_the_alignment() -> None:
    net, x, y = network()
    tokens = torch.arange(1, 31)
    aim = Aim(net, x.flip(0), 1 - y, tokens)
    x, y = x[1:2], y[1:2]
    gains = aim.gains(x, y)[0]
    assert torch.allclose(gains[torch.arange(8), x[0] - 1], torch.zeros(8), atol=1e-6), "no change, no gain"
    true = torch.empty(8, 30)
    for place in range(8):
        tried = x.repeat(30, 1)
        tried[:, place] = tokens
        true[place] = aim.alignment(tried, y.expand(30)) - aim.alignment(x, y)
    assert torch.corrcoef(torch.stack([gains.flatten(), true.flatten()]))[0, 1] > 0.5
    assert true.flatten()[gains.flatten().topk(10).indices].mean() > true.mean()


def test_rows_that_hold_the_phrase_are_no_pool(store: Store) -> None:
    scene = scene_of(store)
    rows = scene.train.select(attack_of(phrase="the phone").eligible(scene))
    assert not any("the" in text or "phone" in text for text in rows.inputs)
    with pytest.raises(BadInput, match=r"dose=60: .* rows of the target class"):
        attack_of(phrase="the phone").poison(scene, 60, rng())
