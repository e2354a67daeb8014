"""Plug-ins of the user's own that no registry knows: a file, a class of a module, or an object from a notebook."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import MISSING, fields
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.console import one_line
from harness.errors import BadGrid, BadPlugin
from harness.keys.bytecode import MAIN
from harness.plugins import registry
from harness.plugins.registry import KINDS, Given, Spec, entries, given, load_class

if TYPE_CHECKING:
    from types import ModuleType

    from tasks.plugin import Plugin


def add(source: str | Path) -> str:
    """Make a plug-in known to this process: a file, whose name is the plug-in's, or module:Class. Runs its code.

    Returns its name. Raises BadPlugin for what cannot be imported, is not one plug-in, or has a name that is taken.
    """
    module, colon, path = str(source).partition(":")
    if not colon or Path(source).suffix == ".py":
        return add_file(Path(source))
    known = next((name for name, its in given.items() if its.source == source), None)
    if known is not None:
        return known
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last: what lies here shadows nothing
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise BadPlugin(f"--plugin {source}: {_reason(error)}") from error
    if not isinstance(found, type) or not _kinds(found):
        raise BadPlugin(f"--plugin {source}: is no class of a task, attack or defense")
    return add_class(found)


def add_file(path: Path) -> str:
    """As `add`, for a file."""
    path = path.resolve()
    name, where = path.stem, f"--plugin {path}"
    if name in given and given[name].source == str(path):
        return name
    if not path.is_file() or path.suffix != ".py" or not name.isidentifier():
        raise BadPlugin(f"{where}: not a Python file that could be imported")
    if any(module_file(taken.module) == path for kind in KINDS if (taken := entries(kind).get(name))):
        return name  # it is installed, and this is its file
    refuse_taken(where, name, "rename the file", path)
    spec = spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        _keep(name, _only_class(module), str(path))
    except Exception as error:
        del sys.modules[name]
        raise BadPlugin(f"{where}: {_reason(error)}") from error
    return name


def add_class(cls: type[Plugin]) -> str:
    """Make a class known to this process, unless it is; its name is the class's: MyDefense is my_defense.

    A class of the same place under the same name takes over: a notebook's cell was run again. Raises BadPlugin for a
    name that is taken.
    """
    kind = _kinds(cls)[0]
    if cls.name in entries(kind) and load_class(kind, cls.name) is cls:
        return cls.name
    name = called(cls)
    source = f"{'__main__' if cls.__module__ in MAIN else cls.__module__}:{cls.__qualname__}"
    if name not in given or given[name].source != source:
        refuse_taken(f"{kind}: {source}", name, "rename the class")
    _keep(name, cls, source)
    return name


def undecorated(cls: type[Plugin]) -> str:
    """What to do about a class whose own fields are no options; nothing if they are."""
    return "" if "__dataclass_fields__" in vars(cls) else f"decorate the class {cls.__name__} with @options"


def called(cls: type[Plugin]) -> str:
    """The name of a class that is handed over, which is set: its module may hold other things too."""
    cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
    return cls.name


def module_file(module: str) -> Path | None:
    """Where a module's source lies."""
    spec = find_spec(module)
    return Path(spec.origin).resolve() if spec and spec.origin else None


def refuse_taken(where: str, name: str, advice: str, file: Path | None = None) -> None:
    """Raises BadPlugin if a plug-in is called so, or, of what becomes a module, a module other than this file."""
    for taken in (entries(kind).get(name) for kind in KINDS):
        if taken:
            raise BadPlugin(f"{where}: {name!r} is already {taken.module}; {advice}")
    if file is not None and find_spec(name) is not None and module_file(name) != file:
        raise BadPlugin(f"{where}: {name!r} is the name of another module ({module_file(name)}); {advice}")


def spec(kind: str, found: Any) -> Spec:
    """What a grid says of an object: its name, and the options that differ from their defaults. Raises BadGrid."""
    if isinstance(found, type) and kind in _kinds(found):
        raise BadGrid(f"{kind}: {found.__name__} is a class; hand over an object: {found.__name__}(...)")
    if kind not in _kinds(type(found)):
        raise BadGrid(
            f"{kind}: {found!r} is neither a name, nor a mapping with `name` and options, nor one of the {kind}"
        )
    options = {}
    for field in fields(found):
        value = getattr(found, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if value != default:
            options[field.name] = value
        if not _plain(value):
            raise BadGrid(f"{kind}.{type(found).__name__}.{field.name}: {value!r} is neither a plain value nor a tuple")
    return Spec(add_class(type(found)), tuple(sorted(options.items())))


def _plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def sources(names: Iterable[str], jobs: int) -> tuple[str, ...]:
    """What `jobs` workers have to `add` for these plug-ins. Raises BadPlugin for a class that they could not import."""
    names = set(names)
    used = {name: its.source for name, its in given.items() if name in names}
    script = hasattr(sys.modules["__main__"], "__file__")  # which a worker runs again, unlike a notebook
    for name, source in used.items():
        if jobs and ("<locals>" in source or (source.startswith("__main__:") and not script)):
            raise BadPlugin(
                f"jobs={jobs}: workers cannot import {source}; use jobs=0, or write it to {name}.py and import it"
            )
    return tuple(used.values())


def _keep(name: str, cls: type[Plugin], source: str) -> None:
    if why := undecorated(cls):
        raise BadPlugin(why)
    if name not in given or given[name].cls is not cls:
        given[name] = Given(_kinds(cls)[0], cls, source)
        registry.forget()


def _kinds(cls: type) -> list[str]:
    from attacks.base import Attack
    from defenses.base import Defense
    from tasks.base import Task
    from tasks.plugin import Plugin

    bases = {Task: "tasks", Attack: "attacks", Defense: "defenses"}
    return [kind for base, kind in bases.items() if issubclass(cls, base) and issubclass(cls, Plugin)]


def _only_class(module: ModuleType) -> type[Plugin]:
    found = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__ and _kinds(c)]
    if len(found) != 1:
        raise TypeError(f"must define exactly one task, attack or defense, found {len(found)}")
    return found[0]


def _reason(error: Exception) -> str:
    if isinstance(error, BadPlugin):
        return str(error)
    return f"{type(error).__name__}: {one_line(error, 300)}"
