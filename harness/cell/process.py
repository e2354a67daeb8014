"""What a plug-in must leave as it was, since the cells of one process share it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from attacks.base import Attack
from harness.errors import BrokenAttack, BrokenDefense
from tasks.plugin import Plugin


@contextmanager
def keep_process(plugin: Plugin) -> Iterator[None]:
    """Raises BrokenAttack or BrokenDefense at the end of a block in which a plug-in drew from a global generator or
    changed a setting of the process; the settings are then as before, also where the block raised an error itself."""
    generators, settings = _generators(), _settings()
    try:
        yield
    finally:
        changed = [name for name, value in _settings().items() if value != settings[name]]
        os.chdir(settings["working directory"])
        torch.set_grad_enabled(settings["torch.set_grad_enabled"])
        torch.set_default_dtype(settings["torch.set_default_dtype"])
    error = BrokenAttack if isinstance(plugin, Attack) else BrokenDefense
    for name, state in _generators().items():
        if state != generators[name]:
            raise error(f"{plugin.name} draws from the global generator of {name}, or seeds it; use the given rng")
    if changed:
        raise error(f"{plugin.name} changed the {changed[0]} of the process; put it back as it was")


def _generators() -> dict[str, Any]:
    torch_state = torch.get_rng_state().numpy().tobytes()
    return {"torch": torch_state, "numpy": repr(np.random.get_state()), "random": random.getstate()}


def _settings() -> dict[str, Any]:
    return {
        "working directory": os.getcwd(),
        "torch.set_grad_enabled": torch.is_grad_enabled(),
        "torch.set_default_dtype": torch.get_default_dtype(),
    }
