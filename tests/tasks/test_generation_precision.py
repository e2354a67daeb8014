"""Diffusion victims compute in bfloat16, in a memory layout that is fast; in float32 where gradients are clipped."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from generators import TASKS, small, untrained
from torch import nn

from harness.cell.train import Stepper, make_network, make_optimizer, train_victim
from harness.testing.checks import CPU
from tasks._models.denoiser import Denoiser
from tasks.base import Batch
from tasks.deployed import autocast, layout


@pytest.mark.parametrize("name", TASKS)
def test_sampling_in_half_precision_makes_what_float32_makes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = small(name, steps=20)
    victim, requests = untrained(task), task.requests(task.load().test)
    x, t = victim.start(requests), torch.full((len(requests),), 500)
    seen: list[torch.dtype] = []
    hook = victim.module.unet.conv_in.register_forward_hook(lambda _, __, out: seen.append(out.dtype))  # type: ignore[attr-defined]
    half, made = victim.velocity(x, t, requests.targets), victim.sample(x, requests.targets, task.steps)
    assert set(seen) == {torch.bfloat16}
    hook.remove()
    assert half.dtype == made.dtype == torch.float32, "only the network is run in half precision"
    monkeypatch.setattr("tasks.diffusion.autocast", lambda device: nullcontext())
    whole, exact = victim.velocity(x, t, requests.targets), victim.sample(x, requests.targets, task.steps)
    assert not torch.equal(half, whole)
    assert (half - whole).norm() < 0.03 * whole.norm()
    assert (made - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("name", TASKS)
def test_group_norms_never_see_the_layout_that_is_slow_on_cpus(name: str) -> None:
    """In training, sampling and reading features, all of which are in half precision."""
    task = small(name)
    train = task.load().train
    module = make_network(task, task.recipe(), 0, CPU, None)
    half: list[bool] = []
    plain: list[bool] = []
    for part in module.modules():
        if isinstance(part, nn.GroupNorm):
            part.register_forward_hook(lambda _, x, out: plain.append(x[0].is_contiguous()))
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(lambda _, x, out: half.append(out.dtype == torch.bfloat16))
    x, y = task.rows(train, CPU)
    batch = Batch(layout(x), y, torch.arange(len(x)), torch.Generator().manual_seed(0), progress=0.0)
    stepper = Stepper(module, task.loss, make_optimizer(module, task.recipe()), None, autocast(CPU))
    assert stepper.step(batch).isfinite()
    victim = task.deploy(module, CPU)
    victim.predict(task.requests(train))
    victim.features(train)
    assert len(plain) > 20
    assert all(plain)
    assert all(half)


def test_a_picture_of_several_channels_keeps_no_layout_that_is_slow_on_cpus() -> None:
    module = Denoiser(3, classes=2, modifiers=1, width=8, depth=2, patch=2, clean_step=50)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([5, 5])
    made = [module(part, t) for part in (x, layout(x))]
    assert not layout(x).is_contiguous()
    assert torch.equal(*made)
    assert made[1].is_contiguous()


@pytest.mark.parametrize("name", TASKS)
def test_private_training_stays_in_float32(name: str) -> None:
    pytest.importorskip("opacus")
    task = small(name)
    victim = untrained(task)
    seen: list[torch.dtype] = []
    victim.module.unet.conv_in.register_forward_hook(lambda _, __, out: seen.append(out.dtype))  # type: ignore[attr-defined]
    recipe = replace(task.recipe(), dp_clip=1.0, dp_noise=0.1)
    train_victim(task, task.load().train, recipe=recipe, seed=0, device=CPU, init=victim)
    assert set(seen) == {torch.float32}
