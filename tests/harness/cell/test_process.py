"""What a plug-in does to its process: it is named, and the next cell finds the process as it was."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.image.badnets import Badnets
from defenses.controls.random_filter import RandomFilter
from harness.cell.process import keep_process
from harness.errors import BrokenAttack, BrokenDefense

CHANGES: dict[str, Callable[[], object]] = {
    "the global generator of torch": lambda: torch.rand(1),
    "the global generator of numpy": lambda: np.random.random(),
    "the global generator of random": random.random,
    "changed the torch.set_grad_enabled of the process": lambda: torch.set_grad_enabled(False),
    "changed the torch.set_default_dtype of the process": lambda: torch.set_default_dtype(torch.float64),
    "changed the working directory of the process": lambda: os.chdir("/"),
}


@pytest.mark.parametrize("complaint", CHANGES)
def test_what_is_changed_is_named_and_put_back(complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BrokenDefense, match=f"^random_filter .*{complaint}"), keep_process(RandomFilter()):
        CHANGES[complaint]()
    assert (torch.is_grad_enabled(), torch.get_default_dtype(), Path.cwd()) == (True, torch.float32, tmp_path)
    with pytest.raises(BrokenAttack, match=complaint), keep_process(Badnets()):
        CHANGES[complaint]()


def test_an_error_of_its_own_comes_first() -> None:
    with pytest.raises(KeyError), keep_process(RandomFilter()):
        raise KeyError(torch.set_default_dtype(torch.float64))
    assert torch.get_default_dtype() == torch.float32


def test_generators_that_were_given_may_be_used() -> None:
    with keep_process(RandomFilter()):
        torch.rand(1, generator=torch.Generator().manual_seed(0))
        np.random.default_rng(0).random()
