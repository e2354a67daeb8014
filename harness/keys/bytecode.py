"""The content of a class or function of a notebook or script, which no module's file holds.

It is its bytecode and that of everything it names there, directly or not. Comments and docstrings do not count; another
minor version of Python does.
"""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any

MAIN = ("__main__", "__mp_main__")  # in a worker, the script that started it has the second name
GENERATED = {"__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__"}  # methods that dataclass adds


def lives_here(thing: Any) -> bool:
    """Whether this is a class or function of the notebook or script that runs."""
    return isinstance(thing, type | FunctionType) and thing.__module__ in MAIN


def content_of(thing: Any, digest: Callable[[Any], str], seen: set[int] | None = None) -> list[Any]:
    """Nested lists for `digest`: the code of a class or function of `__main__`, and what that code names.

    Functions and classes of `__main__` count by their own code, those of other modules by the module, and other values
    by what `digest` makes of them. Raises TypeError, naming it, for a value that has no stable content.
    """
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    content = [thing.__qualname__]
    for name, value in _members(thing) if isinstance(thing, type) else [("", thing)]:
        if isinstance(value, FunctionType):
            content += [name, _code(value.__code__, value.__doc__), value.__defaults__, value.__kwdefaults__]
        for used, item in _outer_names(value) if isinstance(value, FunctionType) else [(name, value)]:
            content += [used, _resolve(f"{thing.__qualname__} uses {used!r}", item, digest, seen)]
    if isinstance(thing, type):
        content += [_resolve(f"{thing.__qualname__}'s base", base, digest, seen) for base in thing.__bases__]
    return content


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Methods and attributes of a class, without its options: their values are the object's and count with it."""
    options = {field.name for field in fields(cls)} if is_dataclass(cls) else set()
    for name, value in sorted(vars(cls).items()):
        inner = _unwrap(value)
        if isinstance(inner, FunctionType):
            if name not in (GENERATED if is_dataclass(cls) else ()):
                yield name, inner
        elif name not in options and name != "name" and not name.startswith("_"):
            yield name, inner


def _unwrap(value: Any) -> Any:
    """The function inside a static or class method, a property or a decorator; any other value as it is."""
    for attribute in ("__func__", "fget", "func"):
        if inner := getattr(value, attribute, None):
            value = inner
            break
    return inspect.unwrap(value) if callable(value) else value


def _code(code: CodeType, doc: str | None = None) -> list[Any]:
    """Instructions and what they work on, without line numbers."""
    constants = [_constant(c) for c in code.co_consts if doc is None or c != doc]
    return [code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)  # a set's order is not stable


def _outer_names(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The globals and outer variables that a function's code names, with their present values."""
    names: set[str] = set()
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        names |= {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
        waiting += [c for c in code.co_consts if isinstance(c, CodeType)]
    for name in sorted(names & function.__globals__.keys()):
        yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        if name != "__class__":  # what super() needs
            yield name, cell.cell_contents


def _resolve(where: str, value: Any, digest: Callable[[Any], str], seen: set[int]) -> Any:
    value = inspect.unwrap(value) if callable(value) else value
    if lives_here(value):
        return content_of(value, digest, seen)
    if callable(value) and hasattr(value, "__name__") and not isinstance(value, MethodType):
        return [value.__name__, sys.modules.get(value.__module__ or "")]
    try:
        return digest(value)
    except TypeError:
        what = f"{where}, a {type(value).__name__}, whose content cannot be hashed"
        raise TypeError(f"{what}; make it an option, or build it in a method") from None
