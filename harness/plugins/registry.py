"""The plug-ins by name: every file of a kind's sub-folders is one. Reading the registry runs no plug-in (nor torch)."""

from __future__ import annotations

import ast
import csv
import os
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields, replace
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.console import one_line, quote
from harness.errors import BadPlugin, UnknownName

if TYPE_CHECKING:
    from tasks.plugin import Plugin

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("tasks", "attacks", "defenses")
DESCRIBING = ("modality", "modalities", "needs", "paper", "why_not", "stage")  # class variables that an entry shows
MOST = 2**63 - 1  # of a whole number, for tables hold no greater one
VERDICTS = Path(__file__).with_name("verdicts.csv")  # written by harness.report.conformance
PRESETS = {file.stem: file for file in sorted((ROOT / "harness" / "presets").glob("*.yaml"))}  # grids by name


@dataclass(frozen=True)
class PluginEntry:
    """One plug-in, described by its source file alone."""

    kind: str  # tasks, attacks or defenses
    name: str
    module: str
    stage: str  # "control"; or what a defense does, the folder that an attack lies in, a task's modality
    modalities: tuple[str, ...]
    needs: tuple[str, ...]
    paper: str
    why_not: str
    summary: str
    options: dict[str, str]  # name -> "type = default"
    source: str = ""  # an installed distribution and its version, a file, or module:Class; nothing: the suite's own
    verdict: str = ""  # "works", or "unproven" and why: whether it does here what it is for; "" where it was not run


def fits(modality: str, modalities: Iterable[str]) -> bool:
    """Whether a plug-in for these modalities is usable with this one; "any" stands for all."""
    return not {modality, "any"}.isdisjoint(modalities)


@dataclass(frozen=True)
class Spec:
    """A plug-in by name, with the options that differ from its defaults."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """name, or name(option=value, ...): unique inside a grid, and what tables show."""
        shown = ", ".join(f"{option}={_shown(value)}" for option, value in self.options)
        return self.name + (f"({shown})" if self.options else "")


def _shown(value: Any) -> str:
    """A value as a label has it: texts without quotes, unless they look like a number or hold control characters."""
    plain = str(value)
    return ascii(value) if not plain.isprintable() or (isinstance(value, str) and value.isdecimal()) else plain


@dataclass(frozen=True)
class CustomPlugin:
    """A plug-in that has neither a file in this project nor an entry point; see harness.plugins.custom."""

    kind: str
    cls: type[Plugin]
    source: str  # a file, or module:Class


CUSTOM: dict[str, CustomPlugin] = {}  # by name


def clear_caches() -> None:
    """Forget what was read; call it when CUSTOM has changed."""
    entries.cache_clear()
    load_class.cache_clear()


def suggest(field: str, value: object, valid: Iterable[str]) -> str:
    """One line about an unknown name: the field, the value, the nearest valid name, and all valid ones."""
    names = sorted(valid)
    near = get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{field}: unknown {value!r}; {hint}valid: {', '.join(names)}"


@cache
def entries(kind: str) -> dict[str, PluginEntry]:
    """The plug-ins of a kind by name: this project's files, other packages' entry points `tinydrop.<kind>`, and CUSTOM.

    Raises BadPlugin if two have one name.
    """
    known: dict[str, PluginEntry] = {}
    places = [
        (file.stem, ".".join(file.relative_to(ROOT).with_suffix("").parts), file, "")
        for file in sorted((ROOT / kind).rglob("*.py"))
        if _is_plugin(file.relative_to(ROOT / kind))
    ]
    for point in entry_points(group=f"tinydrop.{kind}"):
        spec = find_spec(point.module)
        if spec and spec.origin:
            source = f"{point.dist.name} {point.dist.version}" if point.dist else point.module
            places.append((point.name, point.module, Path(spec.origin), source))
    for name, module, file, source in places:
        if name in known:
            raise BadPlugin(f"two {kind} are called {name!r}: {known[name].module} and {module}; rename or remove one")
        verdict = "" if source else verdicts().get((kind, name), "")
        known[name] = replace(_entry_of_file(kind, name, module, file), source=source, verdict=verdict)
    known |= {name: _entry_of_class(name, plugin) for name, plugin in CUSTOM.items() if plugin.kind == kind}
    return dict(sorted(known.items()))


@cache
def verdicts() -> dict[tuple[str, str], str]:
    """By kind and name, what the published conformance cells say of a method of this project."""
    with VERDICTS.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["verdict"] != "not run"]
    return {(row["kind"], row["method"]): ": ".join(filter(None, [row["verdict"], row["why"]])) for row in rows}


def _is_plugin(file: Path) -> bool:
    """Whether a file of a kind's folder is a plug-in: it lies in a sub-folder, and no name begins with "_"."""
    return len(file.parts) > 1 and not any(part.startswith("_") for part in file.parts)


def entry(kind: str, name: str) -> PluginEntry:
    """The entry of a name. Raises UnknownName with a suggestion."""
    known = entries(kind)
    if name not in known:
        hint = f"; {name}.py is a file here: name it with --plugin" if os.path.isfile(f"{name}.py") else ""
        raise UnknownName(suggest(kind, name, known) + hint)
    return known[name]


@cache
def load_class(kind: str, name: str) -> type[Plugin]:
    """The class of a plug-in: a custom one, or the only plug-in class that its module defines, which is imported."""
    from tasks.plugin import Plugin  # imported late: pydantic, which `--help` need not load

    if name in CUSTOM and CUSTOM[name].kind == kind:
        return CUSTOM[name].cls
    module = import_module(entry(kind, name).module)
    classes = [
        c
        for c in vars(module).values()
        if isinstance(c, type) and issubclass(c, Plugin) and c.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise ImportError(f"{module.__file__} must define exactly one plug-in class, found {len(classes)}")
    return classes[0]


def create(kind: str, name: str, options: dict[str, Any] | None = None) -> Plugin:
    """A plug-in with these options. Raises tasks.plugin.BadInput in one line: option, value and what is valid."""
    from pydantic import ValidationError

    from tasks.plugin import BadInput  # imported late: pydantic, which `--help` need not load

    cls = load_class(kind, name)
    values = {key: as_plain(value) for key, value in (options or {}).items()}
    valid = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in valid:
            raise BadInput(
                suggest(f"{kind}.{name}", key, valid) if valid else f"{kind}.{name} has no options; found {key!r}"
            )
        if fault := fault_of(value):
            raise BadInput(f"{kind}.{name}.{key}={quote(value)}: {fault}")
    try:
        return cls(**values)
    except ValidationError as error:
        raise BadInput(f"{kind}.{name}{_complaint(error.errors()[0])}") from None
    except Exception as error:  # in a __post_init__
        raise BadInput(f"{kind}.{name}: {type(error).__name__}: {one_line(error)}") from error


def as_plain(value: Any) -> Any:
    """Lists, also those in lists, as tuples; numbers and arrays of NumPy as Python's."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(as_plain, value)) if isinstance(value, list | tuple) else value


def fault_of(value: Any) -> str:
    """Why no option can have this value, which records, keys or file systems could not hold; "" if one can."""
    if isinstance(value, tuple):
        return next(filter(None, map(fault_of, value)), "")
    if isinstance(value, str):
        if "\0" in value or (not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value)):
            return "holds a character that is not in UTF-8; rename the file, or write the text again"
        return ""
    if isinstance(value, float) and not isfinite(value):
        return "must be finite; leave the option out for its default"
    if isinstance(value, int) and abs(value) > MOST:
        return f"is beyond {MOST:,}"
    if value is None or isinstance(value, int | float):
        return ""
    return f"is of type {type(value).__name__}; options are texts, numbers, true, false, null or lists of them"


def _complaint(first: Any) -> str:
    """What pydantic found first, after a plug-in's name: the option, its value and what is valid."""
    where = "".join(f".{part}" for n, part in enumerate(first["loc"]) if n == 0 or isinstance(part, int))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{where}: needs a value; it has no default"
    way_out = {
        "string_type": "" if isinstance(first["input"], tuple) else "; put it in quotes",
        "bool_type": "; write true or false",
        "tuple_type": "; write it as a list, [...]",
        "int_type": "; write it without quotes" if isinstance(first["input"], str) else "",
    }.get(first["type"], "")
    return f"{where}={quote(first['input'])}: {message}{way_out}" if where else f": {message}"


def _entry_of_file(kind: str, name: str, module: str, file: Path) -> PluginEntry:
    from tasks.plugin import Plugin  # imported late: it imports pydantic

    tree = ast.parse(file.read_text(encoding="utf-8"))
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    if not classes:
        raise ImportError(f"{file} defines no class, but every file of {kind}/ is a plug-in")
    literals: dict[str, Any] = {}
    options: dict[str, str] = {}
    for node in classes[-1].body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if ast.unparse(node.annotation).startswith("ClassVar"):
            if node.value is not None and node.target.id in DESCRIBING:
                literals[node.target.id] = ast.literal_eval(node.value)
        else:
            default = f" = {ast.unparse(node.value)}" if node.value is not None else ""
            options[node.target.id] = ast.unparse(node.annotation) + default
    folder = file.parent.name
    modality = literals.get("modality") or _modality_of_base(tree, classes[-1])
    return PluginEntry(
        kind=kind,
        name=name,
        module=module,
        stage=modality if kind == "tasks" else literals.get("stage", folder),
        modalities=(modality,) if kind == "tasks" else tuple(literals.get("modalities", Plugin.modalities)),
        needs=tuple(literals.get("needs", ())),
        paper=literals.get("paper", ""),
        why_not=literals.get("why_not", ""),
        summary=(ast.get_docstring(classes[-1]) or "").split("\n\n")[0].replace("\n", " "),
        options=options,
    )


def _modality_of_base(tree: ast.Module, cls: ast.ClassDef) -> str:
    """The folder under tasks/ that a task's base class is imported from, which is the modality."""
    bases = {ast.unparse(base) for base in cls.bases}
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("tasks."):
            continue
        if bases & {alias.asname or alias.name for alias in node.names}:
            return str(node.module).split(".")[1]
    return ""


def _entry_of_class(name: str, plugin: CustomPlugin) -> PluginEntry:
    """The entry of a class, whose source file may not be readable."""
    cls: Any = plugin.cls
    task = plugin.kind == "tasks"
    options = {}
    for field in fields(cls):
        annotation: Any = field.type
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__  # float of Annotated[float, ...]
        shown = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
        options[field.name] = shown + ("" if field.default is MISSING else f" = {field.default!r}")
    return PluginEntry(
        kind=plugin.kind,
        name=name,
        module=plugin.source,
        stage=cls.modality if task else getattr(cls, "stage", "") or "own",
        modalities=(cls.modality,) if task else tuple(cls.modalities),
        needs=tuple(cls.needs),
        paper=cls.paper,
        why_not=cls.why_not,
        summary=" ".join((cls.__doc__ or "").split("\n\n")[0].split()),
        options=options,
        source=plugin.source,
    )
