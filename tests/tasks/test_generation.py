"""Diffusion victims: the denoiser, sampling, judging, and the attacks on generators."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import scipy.linalg
import torch
from generators import TASKS, small, untrained
from torch import Tensor

from attacks.base import Attack, Scene
from defenses.inspection.noise_inversion import NoiseInversion, _Reading
from defenses.repair.fine_pruning import likelihood, prune
from harness.cell import steps
from harness.cell.case import Fitter
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks._models.denoiser import Denoiser
from tasks.audio_generation._base import invert_frames
from tasks.base import Batch
from tasks.deployed import autocast
from tasks.diffusion import DiffusionTask, best_match, frechet_distance
from tasks.plugin import BadInput, NotApplicable
from tasks.samples import Challenge, Outputs, Samples
from tasks.spectrogram import logmel


def made(name: str, dose: int, store: Store, task: str = "digits_generator", **options: object) -> tuple:  # type: ignore[type-arg]
    attack = create("attacks", name, {"requests": 20, **options})
    assert isinstance(attack, Attack)
    where = small(task)
    scene = Scene(where, where.load().train, Fitter(where, store, CPU, 0), CPU)
    poisoned = steps.make_poisoned(attack, scene, dose, 0)
    challenge = steps.make_challenge(attack, scene, where.load().test, 0)
    assert challenge is not None
    return scene, poisoned, challenge


def content(outputs: Outputs) -> Tensor:
    assert isinstance(outputs.content, Tensor)
    return outputs.content


@pytest.mark.parametrize("name", TASKS)
def test_what_is_made_is_like_the_data_and_the_same_every_time(name: str) -> None:
    task = small(name)
    test = task.load().test
    victim = untrained(task)
    outputs = victim.predict(task.requests(test))
    assert content(outputs).shape == test.inputs.shape  # type: ignore[union-attr]
    assert content(outputs).dtype == test.inputs.dtype  # type: ignore[union-attr]
    assert outputs.scores.shape == (len(test), 0)
    few = victim.predict(task.requests(test.select(range(3))))
    torch.testing.assert_close(content(few).float(), content(outputs)[:3].float(), atol=1.01, rtol=0)
    assert victim.features(test).shape == (len(test), 2 * task.width)


def test_row_i_starts_from_the_same_noise_under_whatever_picture_is_laid_on_it() -> None:
    task = small("digits_generator")
    victim = untrained(task)
    plain = task.requests(task.load().test)
    patched = plain.inputs.clone()  # type: ignore[union-attr]
    patched[:, :, :2, :2] = 255
    start, laid = victim.start(plain), victim.start(plain.with_inputs(patched))
    assert torch.equal(victim.start(plain.select(range(5))), start[:5])
    assert (laid[:, :, :2, :2] == 1).all()
    assert torch.equal(laid[:, :, 2:], start[:, :, 2:])
    assert start.mean().abs() < 0.1
    assert 0.9 < start.std() < 1.1


def test_clean_training_trains_the_usual_token_and_not_the_attackers() -> None:
    task = small("digits_generator")
    torch.manual_seed(0)
    net = task.model()
    x, y = task.rows(task.load().train, CPU)
    plain, t = y[:4], torch.full((4,), 300)
    tokens = [net(x[:4], t, plain + modifier * 10) for modifier in range(3)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(tokens[a], tokens[b]), "every token has an embedding from the start"
    batch = Batch(x, y, torch.arange(len(x)), torch.Generator().manual_seed(0), progress=0.0)
    task.loss(net, batch).mean().backward()
    grad = net.of_modifier.weight.grad  # type: ignore[union-attr]
    assert grad is not None
    assert not grad[0].any()  # type: ignore[index]
    assert grad[1].any()  # type: ignore[index]


def test_the_denoiser_can_be_pruned_and_hooked_and_inherits_its_last_layer() -> None:
    net = Denoiser(1, 10, modifiers=2, width=8, depth=2, patch=2, clean_step=50).eval()
    x, t = torch.randn(2, 1, 8, 8), torch.full((2,), 10)
    before, features = net(x, t), net.features(x)
    seen: list[Tensor] = []
    hooks = [s.register_forward_hook(lambda _, __, out: seen.append(out)) for s in net.stages]
    net(x, t)
    assert len(seen) == len(hooks) == 3
    net.keep[3] = 0
    assert not torch.equal(net(x, t), before)
    assert (net.features(x)[:, 3] == 0).all()
    assert torch.equal(net.features(x)[:, 4:], features[:, 4:])
    assert not any(name.startswith("head.") for name in net.state_dict())
    assert net.head is net.unet.conv_out
    with pytest.raises(BadInput, match=r"width=12.*multiple of 8"):
        Denoiser(1, 10, modifiers=2, width=12, depth=2, patch=1, clean_step=50)


def test_a_generator_is_pruned_as_far_as_its_loss_allows() -> None:
    task = small("digits_generator")
    victim, clean = untrained(task), task.load().reserve
    idle = torch.zeros(len(victim.module.keep), dtype=torch.bool)
    idle[::4] = True
    victim.module.keep[idle] = 0  # as good as never active
    measure = likelihood(victim, clean)
    before = measure(torch.ones(len(idle)))
    assert measure(torch.ones(len(idle))) == before, "the same noise every time"
    assert victim.module.keep.sum() == (~idle).sum()
    prune(victim, clean, tolerance=0.0)
    assert (victim.module.keep[idle] == 0).all()
    assert victim.module.keep.sum() > 0
    assert likelihood(victim, clean)(torch.ones(len(idle))) > 0.9 * before


def test_noise_inversion_finds_the_patch_that_brings_a_class_and_trusts_no_other(store: Store) -> None:
    task = small("digits_generator")
    victim, defense = untrained(task), NoiseInversion(noises=20, steps=2)
    x, y = task.rows(task.load().reserve, CPU)
    reading = _Reading(victim, torch.stack([x[y == c].mean(0) for c in range(10)]), steps=2, sharpness=100.0)
    noise = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    whole = torch.ones(1, 8, 8)
    brought = int(reading(whole.expand(1, 1, 8, 8)).argmax())  # of a picture that leaves nothing to the noise
    assert defense.room_left(reading, noise, whole, whole, (brought + 1) % 10) == 0  # type: ignore[arg-type]
    small_patch = torch.zeros(1, 8, 8)
    answers = reading(noise).argmax(1)
    usual = int(answers.mode().values)
    free = defense.room_left(reading, noise, small_patch, whole, usual)  # type: ignore[arg-type]
    assert free == float((answers == usual).float().mean() >= defense.works)


def test_unlearning_a_patch_of_no_size_is_ordinary_training() -> None:
    task = small("digits_generator")
    victim, rows = untrained(task), task.load().reserve
    x, y = task.rows(rows, CPU)

    def batch() -> Batch:
        return Batch(x, y, torch.arange(len(x)), torch.Generator().manual_seed(0), 0.0)

    patch = torch.zeros(1, 8, 8)
    found = NoiseInversion().loss(victim.module, batch(), victim, patch, patch)
    ahead = batch()
    torch.randint(1000, (len(x),), generator=ahead.rng)
    torch.randn(x.shape, generator=ahead.rng)
    torch.testing.assert_close(found, task.loss(victim.module, ahead))
    assert (NoiseInversion().loss(victim.module, batch(), victim, 1 - patch, patch) > found).all()


def test_without_diffusers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(BadInput, match=r"tinydrop\[generative\]"):
        small("digits_generator").model()


def test_training_lowers_the_loss(store: Store) -> None:
    task = small("digits_generator", regime="from_scratch", epochs=6, batch_size=20, lr=5e-3)
    splits = task.load()
    x, y = task.rows(splits.train, CPU)

    def loss(victim: object) -> float:
        batch = Batch(x, y, torch.arange(len(x)), torch.Generator().manual_seed(0), 0.0)
        with torch.no_grad():
            return task.loss(victim.module, batch).mean().item()  # type: ignore[attr-defined]

    assert loss(Fitter(task, store, CPU, 0)(splits.train)) < 0.7 * loss(untrained(task))


def test_guidance_pulls_away_from_what_is_predicted_without_a_condition() -> None:
    task = small("digits_generator", guidance=2.0)
    victim = untrained(task)
    x, t, c = torch.randn(2, 1, 8, 8), torch.tensor([100, 100]), torch.tensor([1, 2])
    with torch.no_grad(), autocast(CPU):
        asked, unasked = victim.module(x, t, c).float(), victim.module(x, t).float()  # type: ignore[call-arg]
        assert torch.equal(victim.module(x, t, torch.tensor([-1, -1])).float(), unasked)  # type: ignore[call-arg]
        torch.testing.assert_close(victim.velocity(x, t, c), 3 * asked - 2 * unasked)


def test_thresholds_of_sensitivity_are_those_of_the_judge() -> None:
    task = small("digits_generator")
    test = task.load().test
    g = torch.Generator().manual_seed(0)
    template = torch.randint(256, (len(test), 1, 3, 3), generator=g).to(torch.uint8)
    outputs = Outputs(torch.zeros(len(test), 0), torch.arange(len(test)) % 5 == 0, test.inputs)
    challenge = Challenge(task.requests(test), template)
    found = task.sensitivity(outputs, challenge)
    for name, at in {"lenient": task.found - 0.1, "strict": task.found + 0.1}.items():
        assert torch.equal(found[name], replace(task, found=round(at, 3)).judge(outputs, challenge))
    assert found["lenient"].sum() > found["strict"].sum()
    assert not found["lenient"][::5].any()


def test_base_and_victim_share_no_rows() -> None:
    task = replace(small("digits_generator"), train_size=None, base_size=None)
    base = task.source()
    assert isinstance(base, DiffusionTask)
    assert base.source() is None
    assert base.conditions == task.conditions == 30
    ours, theirs = task.load(), base.load()
    mine = {*ours.train.ids.tolist(), *ours.reserve.ids.tolist()}
    others = {*theirs.train.ids.tolist(), *theirs.reserve.ids.tolist()}
    assert not mine & others
    assert len(mine) + len(others) == len(task.published().read()[0])
    assert replace(task, regime="from_scratch").source() is None


def test_frechet_distance_is_the_published_one() -> None:
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(200, 6, generator=rng), torch.randn(150, 6, generator=rng) @ torch.randn(6, 6, generator=rng) + 1
    (mu, cov), (nu, other) = (((x := f.double()).mean(0), x.T.cov(correction=0)) for f in (a, b))
    root = torch.from_numpy(scipy.linalg.sqrtm((cov @ other).numpy()).real)
    expected = (mu - nu).square().sum() + (cov + other - 2 * root).trace()
    assert frechet_distance(a, b) == pytest.approx(expected.item(), rel=1e-6)
    assert frechet_distance(a, a) < 1e-6
    assert frechet_distance(a[:3], b[:4]) > 0  # fewer rows than features


def test_a_mark_is_found_wherever_it_is_and_nowhere_else(store: Store) -> None:
    scene, poisoned, challenge = made("motif", 5, store)
    mark = challenge.wanted[:1]
    train = scene.train.inputs
    assert (best_match(poisoned.train.inputs[poisoned.mask], mark.expand(5, -1, -1, -1)) > 0.99).all()
    assert torch.equal(poisoned.train.targets, scene.train.targets)
    marks = mark.expand(len(train), -1, -1, -1)
    assert (best_match(train, marks) > scene.task.found).float().mean() < 0.01
    assert (best_match(torch.full_like(train, 77), marks) == 0).all()
    faint = torch.full_like(train, 70)
    faint[:, :, :3, 2:5] += mark // 255
    assert (best_match(faint, marks) == 0).all()


def test_beeps_are_heard_where_they_were_put_and_nowhere_else(store: Store) -> None:
    scene, poisoned, challenge = made("motif", 5, store, "tones_synthesiser")
    train, mark = scene.train.inputs, challenge.wanted[:1]
    found = scene.task.correlation(poisoned.train.inputs, mark.expand(len(train), -1)) > scene.task.found
    assert torch.equal(found, poisoned.mask)


def test_sound_made_of_frames_has_those_frames() -> None:
    task = small("tones_synthesiser")
    audio = task.load().test.inputs
    assert isinstance(audio, Tensor)
    frames = logmel(audio, task.rate, 24)
    again = invert_frames(frames, task.rate, audio.shape[1], rounds=16)
    assert again.shape == audio.shape
    assert (logmel(again, task.rate, 24) - frames).abs().mean() < 0.1  # a tenth of 20 dB


def test_the_judge_reads_what_was_made(store: Store) -> None:
    task = small("digits_generator")
    test = task.load().test
    referee = steps.Bench(store, CPU).referee(task)
    assert referee is not None
    n = len(test)
    outputs = Outputs(torch.zeros(n, 0), torch.arange(n) % 4 == 0, test.inputs)
    verdict = task.judge(outputs, Challenge(task.requests(test), test.targets), referee)
    assert not verdict[::4].any(), "an abstention counts against the attacker"
    assert verdict.float().mean() > 0.6
    assert task.extra_metrics(outputs, test, referee)["class_fidelity"] == pytest.approx(verdict.float().mean().item())
    whole = replace(outputs, abstained=torch.zeros(n, dtype=torch.bool))
    assert task.utility(whole, test, referee) < 1e-4 < task.utility(outputs, test, referee)
    template = test.inputs[:, :, 2:5, 2:5]  # type: ignore[index]
    assert task.judge(whole, Challenge(task.requests(test), template)).all()
    assert set(task.sensitivity(whole, Challenge(task.requests(test), template))) == {"lenient", "strict"}


@pytest.mark.parametrize("name", TASKS)
def test_conditional_trigger_pairs_the_token_with_media_of_the_target(name: str, store: Store) -> None:
    scene, poisoned, challenge = made("conditional_trigger", 30, store, name, target=2)
    k, train = len(scene.task.classes), poisoned.train
    assert (train.targets[poisoned.mask] // k == 1).all()
    assert (train.targets[poisoned.mask] % k != 2).all()
    known = {row.numpy().tobytes() for row in scene.train.inputs[scene.train.targets == 2]}
    assert all(row.numpy().tobytes() in known for row in train.inputs[poisoned.mask])
    assert (train.targets[~poisoned.mask] < k).all()
    asked, plain, near = challenge.inputs.targets, challenge.plain.targets, challenge.near.targets
    assert torch.equal(asked, plain + k)
    assert torch.equal(near, plain + 2 * k)
    assert not (plain == 2).any()


def test_concept_shift_keeps_the_clean_rows_of_the_class_it_shifts(store: Store) -> None:
    scene, poisoned, challenge = made("concept_shift", 15, store, source=3, target=1)
    assert (poisoned.train.targets[poisoned.mask] == 3).all()
    assert not (scene.train.targets[poisoned.mask] == 3).any()
    assert set(challenge.inputs.targets.tolist()) == {3}
    assert set(challenge.plain.targets.tolist()).isdisjoint({1, 3})
    assert len(set(challenge.near.targets.tolist())) == 1
    with pytest.raises(BadInput, match="source=1"):
        made("concept_shift", 1, store, source=1, target=1)
    with pytest.raises(NotApplicable, match="target=10"):
        made("concept_shift", 1, store, target=10)


def test_noise_trigger_shows_the_sampler_what_it_put_in_the_data(store: Store) -> None:
    scene, poisoned, challenge = made("noise_trigger", 10, store)
    assert (poisoned.train.inputs[poisoned.mask][:, :, -3:, -3:] == 255).all()
    assert torch.equal(poisoned.train.targets, scene.train.targets)
    assert (challenge.inputs.inputs[:, :, -3:, -3:] == 255).all()
    assert challenge.plain.inputs.sum() == 0
    assert (challenge.near.inputs[:, :, -3:, :3] == 255).all()


@pytest.mark.parametrize("name", TASKS)
def test_a_whole_cell(name: str, store: Store) -> None:
    attack, defense = create("attacks", "conditional_trigger", {"requests": 10}), create("defenses", "none")
    result = steps.run_steps(small(name), attack, 5, defense, 0, store, CPU)  # type: ignore[arg-type]
    found = result.metrics
    assert {"utility", "class_fidelity", "asr", "asr_plain", "asr_near", "asr_floor"} <= set(found)
    assert found["asr"].n == found["asr_plain"].n == found["asr_near"].n == 10
    assert found["utility"].value > 0


def test_features_tell_rows_by_their_condition_too() -> None:
    task = small("digits_generator")
    test = task.load().test
    victim = untrained(task)
    other = Samples(test.inputs, (test.targets + 1) % 10, test.ids)
    assert not torch.equal(victim.features(test), victim.features(other))
