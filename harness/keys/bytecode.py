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
from enum import Enum
from functools import partial, partialmethod
from types import CodeType, FunctionType, MethodType
from typing import Any

from harness.keys.source import is_own, source_hash

MAIN = ("__main__", "__mp_main__")  # in a worker, the script that started it has the second name
GENERATED = {"__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__"}  # methods that dataclass adds
ADDED = {"_abc_impl", "_is_protocol", "_is_runtime_protocol"}  # what abc and typing add to a class, beside __names__


def lives_here(thing: Any) -> bool:
    """Whether this is a class or function of the notebook or script that runs, or a function decorated there."""
    if isinstance(thing, type):
        return thing.__module__ in MAIN
    return any(isinstance(layer, FunctionType) and _module_of(layer) in MAIN for layer in _layers(thing))


def content_of(thing: Any, digest: Callable[[Any], str], seen: set[int] | None = None) -> list[Any]:
    """Nested lists for `digest`: the code of a class or function of `__main__`, and what that code names.

    Functions and classes of `__main__` count by their own code, those of other modules by the module, and other values
    by what `digest` makes of them. Raises TypeError, naming it, for a value that has no stable content.
    """
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    content: list[Any] = [thing.__qualname__]
    for name, value in _members(thing) if isinstance(thing, type) else [("", thing)]:
        layers = [layer for layer in _layers(value) if isinstance(layer, FunctionType)]
        if not layers:
            content += [name, _resolve(f"{thing.__qualname__} uses {name!r}", value, digest, seen)]
        for layer in layers:
            content += [name, *_content_of_function(thing.__qualname__, layer, digest, seen)]
    if isinstance(thing, type):
        content += [_resolve(f"{thing.__qualname__}'s base", base, digest, seen) for base in thing.__bases__]
    return content


def _content_of_function(where: str, function: FunctionType, digest: Callable[[Any], str], seen: set[int]) -> list[Any]:
    """The code of a function of `__main__` and what it names; a decorator's of another module counts by the module."""
    if _module_of(function) not in MAIN:
        return [function.__qualname__, sys.modules.get(_module_of(function))]
    content: list[Any] = [_code(function.__code__, function.__doc__), _imported(function.__code__)]
    for used, item in [*outer_names(function), *_defaults(function)]:
        content += [used, _resolve(f"{where} uses {used!r}", item, digest, seen)]
    return content


def _defaults(function: FunctionType) -> list[tuple[str, Any]]:
    return [("defaults", function.__defaults__), ("keyword defaults", function.__kwdefaults__)]


def _module_of(function: FunctionType) -> str:
    """Where a function was written: functools.wraps copies another's __module__."""
    return str(function.__globals__.get("__name__", ""))


def _layers(value: Any) -> list[Any]:
    """A value, and what functools.wraps says is inside it, layer by layer."""
    layers = [value]
    while callable(value) and (value := getattr(value, "__wrapped__", None)) is not None:
        if any(value is layer for layer in layers):
            break
        layers.append(value)
    return layers


def _members(cls: type) -> Iterator[tuple[str, Any]]:
    """Methods and attributes of a class, without its options: their values are the object's and count with it."""
    options = {field.name for field in fields(cls)} if is_dataclass(cls) else set()
    for name, value in sorted(vars(cls).items()):
        inner = unwrap(value)
        if any(isinstance(layer, FunctionType) for layer in _layers(inner)):
            if name not in (GENERATED if is_dataclass(cls) else ()):
                yield name, inner
        elif name not in options and name != "name" and name not in ADDED and not _is_special(name):
            yield name, inner


def _is_special(name: str) -> bool:
    """Whether Python or a library gave a class this attribute, as __dict__ or, in an Enum, _member_map_."""
    return name.startswith("_") and name.endswith("_")


def unwrap(value: Any) -> Any:
    """The function inside a static or class method or a property; any other value as it is."""
    if isinstance(value, partial | partialmethod):
        return value
    for attribute in ("__func__", "fget", "func"):
        if inner := getattr(value, attribute, None):
            return inner
    return value


def _code(code: CodeType, doc: str | None = None) -> list[Any]:
    """Instructions and what they work on, without line numbers."""
    constants = [_constant(c) for c in code.co_consts if doc is None or c != doc]
    return [code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _code(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)  # a set's order is not stable


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    """Those of a code object and of the functions written inside it."""
    waiting = [code]
    while waiting:
        code = waiting.pop()
        yield from dis.get_instructions(code)
        waiting += [c for c in code.co_consts if isinstance(c, CodeType)]


def _imported(code: CodeType) -> list[str]:
    """Hashes of the user's modules that a function imports when it runs."""
    names, module = set(), ""
    for instruction in _instructions(code):
        if instruction.opname == "IMPORT_NAME":
            module = instruction.argval
            names.add(module)
        elif instruction.opname == "IMPORT_FROM":
            names.add(f"{module}.{instruction.argval}")  # where it is a module of a package
    return [source_hash(name) for name in sorted(names) if name and is_own(name)]


def outer_names(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The globals and outer variables that a function's code names, with their present values."""
    names = {i.argval for i in _instructions(function.__code__) if i.opname == "LOAD_GLOBAL"}
    for name in sorted(names & function.__globals__.keys()):
        yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        if name != "__class__":  # what super() needs
            yield name, cell.cell_contents


def attribute_names(function: FunctionType) -> set[str]:
    """The attributes that a function's code reads, of whatever."""
    return {i.argval for i in _instructions(function.__code__) if i.opname in ("LOAD_ATTR", "LOAD_METHOD")}


def _resolve(where: str, value: Any, digest: Callable[[Any], str], seen: set[int]) -> Any:
    if isinstance(value, partial | partialmethod):
        return [_resolve(where, part, digest, seen) for part in (value.func, value.args, value.keywords)]
    if lives_here(value):
        return content_of(value, digest, seen)
    if lives_here(type(value)) and isinstance(value, Enum):
        return [value.name, _resolve(where, value.value, digest, seen), content_of(type(value), digest, seen)]
    if lives_here(type(value)) and is_plain_object(value):
        values = [[f.name, _resolve(where, getattr(value, f.name), digest, seen)] for f in fields(value)]
        return [values, content_of(type(value), digest, seen)]
    value = inspect.unwrap(value) if callable(value) else value
    if callable(value) and hasattr(value, "__name__") and not isinstance(value, MethodType):
        return [value.__name__, sys.modules.get(value.__module__ or "")]
    try:
        return digest(value)
    except TypeError:
        what = f"{where}, a {type(value).__name__}, whose content cannot be hashed"
        raise TypeError(f"{what}; make it an option, or build it in a method") from None


def is_plain_object(value: Any) -> bool:
    """Whether this is an object of a frozen dataclass."""
    return is_dataclass(value) and not isinstance(value, type) and bool(value.__dataclass_params__.frozen)  # type: ignore[attr-defined]
