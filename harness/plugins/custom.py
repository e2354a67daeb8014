"""Custom plug-ins, which are in no folder of this project: a file, a class of a module, or an object of a notebook."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import MISSING, fields
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from keyword import iskeyword
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.console import expand_home, one_line
from harness.errors import BadGrid, BadPlugin
from harness.keys.bytecode import MAIN
from harness.keys.source import PLUGIN_PACKAGES, find_module_file, import_closure, imported_names
from harness.plugins import registry
from harness.plugins.registry import CUSTOM, KINDS, CustomPlugin, Spec, entries, load_class

if TYPE_CHECKING:
    from types import ModuleType

    from tasks.plugin import Plugin


def add(source: str | Path) -> str:
    """Register a plug-in in this process: a file, whose name becomes the plug-in's, or module:Class. Runs its code.

    Returns the plug-in's name. Raises BadPlugin for a source that cannot be imported or is not exactly one plug-in,
    and for a name that is taken.
    """
    module, colon, path = str(source).partition(":")
    if not colon or Path(source).suffix == ".py":
        return add_file(expand_home(str(source)))
    registered = next((name for name, plugin in CUSTOM.items() if plugin.source == source), None)
    if registered is not None:
        return registered
    _find_imports_in(Path.cwd())
    try:
        cls: Any = import_module(module)
        for part in path.split("."):
            cls = getattr(cls, part)
    except (Exception, SystemExit) as error:
        raise BadPlugin(f"--plugin {source}: {_reason(error)}") from error
    if not isinstance(cls, type) or not _kinds_of(cls):
        raise BadPlugin(f"--plugin {source}: is no class of a task, attack or defense")
    return add_class(cls)


def add_file(path: Path) -> str:
    """Register the plug-in of a file, as `add` does."""
    path = path.resolve()
    name, where = path.stem, f"--plugin {path}"
    if name in CUSTOM and CUSTOM[name].source == str(path):
        return name
    if not path.is_file():
        raise BadPlugin(f"{where}: not a Python file: there is no such file")
    if path.suffix != ".py" or not name.isidentifier() or iskeyword(name):
        raise BadPlugin(f"{where}: not a Python file that could be imported; its name must be like my_plugin.py")
    if any(find_module_file(taken.module) == path for kind in KINDS if (taken := entries(kind).get(name))):
        return name  # it is installed, and this is its file
    refuse_taken(where, name, "rename the file", path)
    spec = spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = sys.modules[name] = module_from_spec(spec)
    try:
        if any((path.parent / f"{n}.py").is_file() or (path.parent / n).is_dir() for n in imported_names(path)):
            _find_imports_in(path.parent)
        spec.loader.exec_module(module)
        _refuse_other_helpers(name, path.parent)
        _register(name, _find_only_class(module), str(path))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise BadPlugin(f"{where}: {_reason(error)}") from error
    return name


def _find_imports_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last, so that files of this folder shadow nothing


def _refuse_other_helpers(name: str, folder: Path) -> None:
    """Raise BadPlugin if a module imports something of the user's that has the name of a file beside it, but is not."""
    for helper in sorted(import_closure(name)):
        if helper.partition(".")[0] in (*PLUGIN_PACKAGES, "harness"):
            continue
        path, found = folder.joinpath(*helper.split(".")), find_module_file(helper)
        beside = [file for file in (path / "__init__.py", path.with_name(f"{path.name}.py")) if file.is_file()]
        if beside and found not in [file.resolve() for file in beside]:
            raise BadPlugin(f"{helper!r} is imported from {found}, not from {beside[0]}; rename one of them")


def add_class(cls: type[Plugin]) -> str:
    """Register a class in this process, unless it is there; its name follows the class's: MyDefense is my_defense.

    A class replaces one of the same name and place, since a notebook's cell may be run again. Raises BadPlugin for a
    name that is taken.
    """
    kind = _kinds_of(cls)[0]
    if getattr(sys.modules.get(cls.__module__), cls.__name__, cls) is not cls and cls.__module__ not in MAIN:
        raise BadPlugin(f"{cls.__name__}: {cls.__module__} was imported again since; make the object anew from it")
    if cls.name in entries(kind) and load_class(kind, cls.name) is cls:
        return cls.name
    name = assign_name(cls)
    source = f"{'__main__' if cls.__module__ in MAIN else cls.__module__}:{cls.__qualname__}"
    if name not in CUSTOM or CUSTOM[name].source != source:
        refuse_taken(f"{kind}: {source}", name, "rename the class")
    _register(name, cls, source)
    return name


def missing_decorator(cls: type[Plugin]) -> str:
    """How to mend a class whose own fields are not options yet; "" if they are."""
    return "" if "__dataclass_fields__" in vars(cls) else f"decorate the class {cls.__name__} with @options"


def assign_name(cls: type[Plugin]) -> str:
    """Name a class after itself and return the name; it cannot be its module's, which may define other things too."""
    cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
    return cls.name


def refuse_taken(where: str, name: str, advice: str, file: Path | None = None) -> None:
    """Raise BadPlugin if a plug-in has this name, or, given the file of a new module, if another module has it."""
    for taken in (entries(kind).get(name) for kind in KINDS):
        if taken:
            raise BadPlugin(f"{where}: {name!r} is already {taken.module}; {advice}")
    module = find_spec(name) if file is not None else None
    if module is not None and find_module_file(name) != file:
        raise BadPlugin(f"{where}: {name!r} is the name of another module ({module.origin}); {advice}")


def spec_of(kind: str, plugin: Any) -> Spec:
    """The Spec of an object: its name, and the options that differ from their defaults. Raises BadGrid."""
    if isinstance(plugin, type) and kind in _kinds_of(plugin):
        raise BadGrid(f"{kind}: {plugin.__name__} is a class; hand over an object: {plugin.__name__}(...)")
    if kind not in _kinds_of(type(plugin)):
        raise BadGrid(
            f"{kind}: {plugin!r} is neither a name, nor a mapping with `name` and options, nor one of the {kind}"
        )
    options = {}
    for field in fields(plugin):
        value = getattr(plugin, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if value != default:
            options[field.name] = value
        if not _is_plain(value):
            where = f"{kind}.{type(plugin).__name__}.{field.name}"
            raise BadGrid(f"{where}: {value!r} is neither a plain value nor a tuple")
    return Spec(add_class(type(plugin)), tuple(sorted(options.items())))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def worker_sources(names: Iterable[str], jobs: int) -> tuple[str, ...]:
    """The sources that `jobs` workers must `add` for these plug-ins. BadPlugin for a class that they cannot import."""
    names = set(names)
    used = {name: plugin.source for name, plugin in CUSTOM.items() if name in names}
    script = hasattr(sys.modules["__main__"], "__file__")  # a worker runs a script again, but no notebook
    for name, source in used.items():
        if jobs and ("<locals>" in source or (source.startswith("__main__:") and not script)):
            raise BadPlugin(
                f"jobs={jobs}: workers cannot import {source}; use jobs=0, or write it to {name}.py and import it"
            )
    return tuple(used.values())


def _register(name: str, cls: type[Plugin], source: str) -> None:
    if advice := missing_decorator(cls):
        raise BadPlugin(advice)
    if name not in CUSTOM or CUSTOM[name].cls is not cls:
        CUSTOM[name] = CustomPlugin(_kinds_of(cls)[0], cls, source)
        registry.clear_caches()


def _kinds_of(cls: type) -> list[str]:
    from attacks.base import Attack  # imported late: torch, which `tinydrop list` need not load
    from defenses.base import Defense  # imported late: torch
    from tasks.base import Task  # imported late: torch
    from tasks.plugin import Plugin  # imported late: pydantic

    bases = {Task: "tasks", Attack: "attacks", Defense: "defenses"}
    return [kind for base, kind in bases.items() if issubclass(cls, base) and issubclass(cls, Plugin)]


def _find_only_class(module: ModuleType) -> type[Plugin]:
    own = [cls for cls in vars(module).values() if isinstance(cls, type) and cls.__module__ == module.__name__]
    plugins = [cls for cls in own if _kinds_of(cls)]
    if len(plugins) != 1:
        raise TypeError(f"must define exactly one task, attack or defense, found {len(plugins)}")
    return plugins[0]


def _reason(error: BaseException) -> str:
    if isinstance(error, BadPlugin):
        return str(error)
    if isinstance(error, SystemExit):
        return "it ends Python when it is imported (SystemExit); put that under if __name__ == '__main__'"
    return f"{type(error).__name__}: {one_line(error, 300)}"
