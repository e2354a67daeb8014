"""What determines a class or function of a notebook or script, which no module's file holds: its bytecode, and what it
names there, however far away. Comments and docstrings do not count; another minor version of Python does."""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any

MAIN = ("__main__", "__mp_main__")  # a worker calls the script that it was started from by the second name
GENERATED = {"__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__"}  # by a dataclass


def lives_here(thing: Any) -> bool:
    """Is this a class or function of the notebook or script that runs?"""
    return isinstance(thing, type | FunctionType) and thing.__module__ in MAIN


def parts(thing: Any, digest: Callable[[Any], str], seen: set[int] | None = None) -> list[Any]:
    """Nested lists of what `digest` knows: the code of a class or function of `__main__`, and of what it names there.

    Functions and classes of `__main__` count by their own code, those of other modules by the module, anything else by
    its value. Raises TypeError, naming it, for a value that has no stable content.
    """
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    found = [thing.__qualname__]
    for name, value in _members(thing) if isinstance(thing, type) else [("", thing)]:
        if isinstance(value, FunctionType):
            found += [name, _code(value.__code__, value.__doc__), value.__defaults__, value.__kwdefaults__]
        for used, content in _named(value) if isinstance(value, FunctionType) else [(name, value)]:
            found += [used, _resolved(f"{thing.__qualname__} uses {used!r}", content, digest, seen)]
    if isinstance(thing, type):
        found += [_resolved(f"{thing.__qualname__}'s base", base, digest, seen) for base in thing.__bases__]
    return found


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Methods and attributes; of options only the values count, which are not the class's."""
    options = {field.name for field in fields(cls)} if is_dataclass(cls) else set()
    for name, value in sorted(vars(cls).items()):
        inner = next((v for at in ("__func__", "fget", "func") if (v := getattr(value, at, None))), value)
        inner = inspect.unwrap(inner) if callable(inner) else inner
        if isinstance(inner, FunctionType):
            if name not in (GENERATED if is_dataclass(cls) else ()):
                yield name, inner
        elif name not in options and name != "name" and not name.startswith("_"):
            yield name, inner


def _code(code: CodeType, doc: str | None = None) -> list[Any]:
    """Instructions and what they work on; no line numbers."""
    constants = [_constant(c) for c in code.co_consts if doc is None or c != doc]
    return [code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)  # a set's order is not stable


def _named(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The globals and outer variables that a function's code names, with what they are now."""
    names: set[str] = set()
    todo = [function.__code__]
    while todo:
        code = todo.pop()
        names |= {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
        todo += [c for c in code.co_consts if isinstance(c, CodeType)]
    for name in sorted(names & function.__globals__.keys()):
        yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        if name != "__class__":  # what super() needs
            yield name, cell.cell_contents


def _resolved(where: str, value: Any, digest: Callable[[Any], str], seen: set[int]) -> Any:
    value = inspect.unwrap(value) if callable(value) else value
    if lives_here(value):
        return parts(value, digest, seen)
    if callable(value) and hasattr(value, "__name__") and not isinstance(value, MethodType):
        return [value.__name__, sys.modules.get(value.__module__ or "")]
    try:
        return digest(value)
    except TypeError:
        what = f"{where}, a {type(value).__name__}, whose content cannot be hashed"
        raise TypeError(f"{what}; make it an option, or build it in a method") from None
