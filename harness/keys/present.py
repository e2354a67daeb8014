"""What a function of a file reads when it runs, beyond its code: the values that globals and attributes have now.

Data counts: numbers, texts, tensors, arrays, and lists and dicts of them. What has no content to hash, as a logger or a
lock, counts by its type, and functions and modules by their code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from enum import Enum
from functools import cached_property
from inspect import getattr_static
from pathlib import PurePath
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from harness.keys.bytecode import attribute_names, outer_names, unwrap
from harness.keys.source import PLUGIN_PACKAGES, is_own
from tasks.plugin import Plugin

DATA = (bool, int, float, str, bytes, torch.Tensor, np.ndarray, np.generic, re.Pattern, PurePath, Enum)


def present_values(function: FunctionType, owner: Plugin | None = None) -> list[Any]:
    """Names and values, for `digest`: of a function and of the user's functions that it calls.

    owner: the object whose method it is. What that holds beyond its options counts too.
    """
    found: list[Any] = [_own_state(owner)] if owner is not None else []
    waiting, seen = [function], set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for name, value in _names(current, owner):
            if isinstance(value, FunctionType):
                waiting += [value] if _is_users(value.__module__) or value.__module__ == function.__module__ else []
            else:
                found.append([name, _data_of(value)])
    return found


def _names(function: FunctionType, owner: Plugin | None) -> Iterator[tuple[str, Any]]:
    """What a function's code names: globals, what is read of the user's modules and classes, and of the object."""
    attributes = sorted(attribute_names(function))
    for name, value in outer_names(function):
        yield name, value
        place = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        if isinstance(value, SimpleNamespace) or (isinstance(value, ModuleType | type) and _is_users(str(place))):
            yield from ((f"{name}.{a}", vars(value)[a]) for a in attributes if a in vars(value))
    cls: Any = type(owner)
    options = {field.name for field in fields(cls)} if owner is not None else set()
    for attribute in attributes if owner is not None else ():
        value = getattr_static(cls, attribute, None)
        if value is not None and attribute not in options:
            yield f"self.{attribute}", unwrap(value)


def _own_state(owner: Plugin) -> list[Any]:
    """What an object holds beside its options, but for what it computes from them once."""
    options = {field.name for field in fields(owner)}  # type: ignore[arg-type]
    return [
        [name, _data_of(value)] for name, value in sorted(vars(owner).items())
        if name not in options and not name.startswith("__")
        and not isinstance(getattr_static(type(owner), name, None), cached_property)
    ]  # fmt: skip


def _is_users(module: str) -> bool:
    """Whether a module is the user's: not this project's, whose code keeps no state that changes a result."""
    return module.partition(".")[0] not in (*PLUGIN_PACKAGES, "harness", "") and is_own(module)


def _data_of(value: Any, around: tuple[int, ...] = ()) -> Any:
    """A value with what has no content to hash, or holds itself, replaced by the name of its type."""
    if value is None or (isinstance(value, DATA) and not getattr(getattr(value, "dtype", None), "hasobject", False)):
        return value
    if id(value) not in around and isinstance(value, dict | list | tuple | set | frozenset):
        inner = (*around, id(value))
        if isinstance(value, dict):
            pairs = sorted(value.items(), key=lambda pair: repr(pair[0]))
            return ["dict", *([_data_of(key, inner), _data_of(item, inner)] for key, item in pairs)]
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [type(value).__name__, *(_data_of(item, inner) for item in items)]
    return type(value).__name__
