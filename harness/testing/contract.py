"""What breaks a contract, and where: the words of the contract kit."""

from __future__ import annotations

import inspect
import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from pydantic import ValidationError

from harness.console import one_line
from harness.errors import Broken
from harness.keys.bytecode import lives_here
from harness.plugins.custom import assign_name, missing_decorator
from tasks.plugin import NotApplicable, Plugin


def need(kept: bool, message: str) -> None:
    """Raises Broken with this message unless the contract is kept."""
    if not kept:
        raise Broken(message)


@contextmanager
def told(plugin: Plugin, where: str = "") -> Iterator[None]:
    """Whatever a plug-in raises becomes Broken: in one line, with the line of its file where it happened."""
    try:
        yield
    except (Broken, NotApplicable):
        raise
    except Exception as error:
        # The harness's own complaints say what is wrong; of others the type says half of it.
        ours = type(error).__module__.partition(".")[0] in ("harness", "tasks") or isinstance(error, PermissionError)
        said = one_line(error, None)
        said = said if ours else f"{type(error).__name__}: {said}"
        name = "" if said.startswith(plugin.name) else f"{plugin.name}: "
        raise Broken(f"{name}{said}{_line(plugin, error)}{where}") from error


def check_options(plugin: Plugin) -> None:
    """Options round-trip and plug-ins can be hashed, or nothing could be kept under a key."""
    cls = type(plugin)
    if lives_here(cls):
        assign_name(cls)
    need(not missing_decorator(cls), f"{plugin.name}: {missing_decorator(cls)}")
    typed = {name for base in cls.__mro__ for name in vars(base).get("__annotations__", {})}
    for name, value in vars(cls).items():
        plain = name in typed or name.startswith("_") or not isinstance(value, int | float | str | tuple)
        need(plain, f"{plugin.name}: {name} = {value!r} has no type, so it is no option; "
             f"write `{name}: {type(value).__name__} = {value!r}`, or ClassVar for a constant")  # fmt: skip
    try:
        again = cls(**plugin.options())
    except ValidationError as error:
        first = error.errors()[0]
        raise Broken(f"{plugin.name}.{first['loc'][0]}={first['input']!r}: {first['msg']}") from None
    need(again == plugin and hash(again) == hash(plugin), f"{plugin.name}: options need values that can be hashed")


def _line(plugin: Plugin, error: Exception) -> str:
    """Where in the plug-in's own file an error was raised or passed through, if anywhere."""
    try:
        file = inspect.getsourcefile(type(plugin))
    except (TypeError, OSError):  # a class of a notebook
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(str(file)).name}, line {lines[-1]})" if lines else ""


@contextmanager
def globals_untouched(plugin: Plugin) -> Iterator[None]:
    """Raises Broken where the plug-in draws from a generator that everybody shares, or seeds it."""
    before = _global_states()
    yield
    for name, state in _global_states().items():
        kept = state == before[name]
        need(kept, f"{plugin.name} draws from the global generator of {name}, or seeds it; use the rng it is given")


def _global_states() -> dict[str, object]:
    torch_state = torch.get_rng_state().numpy().tobytes()
    return {"torch": torch_state, "numpy": repr(np.random.get_state()), "random": random.getstate()}
