"""Building blocks of the contract kit: conditions, error messages, and checks of options and global generators."""

from __future__ import annotations

import hashlib
import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from attacks.base import Attack
from harness.console import one_line
from harness.errors import Broken
from harness.keys.bytecode import lives_here
from harness.plugins.custom import assign_name, missing_decorator
from tasks.plugin import NotApplicable, Plugin
from tasks.samples import Samples


def require(kept: bool, message: str) -> None:
    """Raises Broken with this message unless the contract is kept."""
    if not kept:
        raise Broken(message)


@contextmanager
def translate_errors(plugin: Plugin, where: str = "") -> Iterator[None]:
    """Turns whatever a plug-in raises into Broken: one line of text, and the line of its file that raised."""
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
        raise Broken(f"{name}{said}{_find_line(plugin, error)}{where}") from error


def check_options(plugin: Plugin) -> None:
    """Requires that options round-trip and that plug-ins can be hashed, as keys are made of both."""
    cls = type(plugin)
    if lives_here(cls):
        assign_name(cls)
    require(not missing_decorator(cls), f"{plugin.name}: {missing_decorator(cls)}")
    typed = {name for base in cls.__mro__ for name in vars(base).get("__annotations__", {})}
    for name, value in vars(cls).items():
        plain = name in typed or name.startswith("_") or not isinstance(value, int | float | str | tuple)
        require(plain, f"{plugin.name}: {name} = {value!r} has no type, so it is no option; "
             f"write `{name}: {type(value).__name__} = {value!r}`, or ClassVar for a constant")  # fmt: skip
    try:
        again = cls(**plugin.options())
    except ValidationError as error:
        first = error.errors()[0]
        raise Broken(f"{plugin.name}.{first['loc'][0]}={first['input']!r}: {first['msg']}") from None
    require(again == plugin and hash(again) == hash(plugin), f"{plugin.name}: options need values that can be hashed")


def check_unseen(attack: Attack) -> None:
    """Requires that every trigger of `unseen` is a change of options that the attack has."""
    for word, changes in attack.unseen.items():
        require(word.isidentifier(), f"{attack.name}.unseen: {word!r} is no word for a metric; write letters and _")
        try:
            replace(attack, **changes)  # type: ignore[type-var]
        except (TypeError, ValidationError) as error:
            raise Broken(f"{attack.name}.unseen[{word!r}]: {one_line(error, None)}") from None


def _find_line(plugin: Plugin, error: Exception) -> str:
    """The last line of the plug-in's own file that an error passed through, in words; "" if there is none."""
    try:
        file = inspect.getsourcefile(type(plugin))
    except (TypeError, OSError):  # a class of a notebook
        return ""
    trace = [frame for e in (error.__cause__, error) if e for frame in traceback.extract_tb(e.__traceback__)]
    lines = [frame.lineno for frame in trace if frame.filename == file]
    return f" ({Path(str(file)).name}, line {lines[-1]})" if lines else ""


def hash_rows(samples: Samples) -> list[bytes]:
    """One hash of every row's input."""
    inputs = samples.inputs
    rows = [t.encode("utf-8", "surrogatepass") for t in inputs] if isinstance(inputs, list) else [
        row.contiguous().numpy().tobytes() for row in inputs
    ]  # fmt: skip
    return [hashlib.sha256(row).digest() for row in rows]
