"""The registry is the folder: a plug-in's name is its file's name. Looking does not run plug-in code (nor torch)."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields, replace
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadPlugin, UnknownName

if TYPE_CHECKING:
    from tasks.plugin import Plugin

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("tasks", "attacks", "defenses")
PRESETS = {file.stem: file for file in sorted((ROOT / "harness" / "presets").glob("*.yaml"))}  # grids by name


@dataclass(frozen=True)
class Entry:
    """One plug-in, described by its source file alone."""

    kind: str  # tasks, attacks or defenses
    name: str
    module: str
    stage: str  # a defense's folder, an attack's folder, a task's modality
    modalities: tuple[str, ...]
    needs: tuple[str, ...]
    paper: str
    why_not: str
    summary: str
    options: dict[str, str]  # name -> "type = default"
    source: str = ""  # an installed distribution and its version, a file, or module:Class; nothing: the suite's own


def fits(modality: str, modalities: Iterable[str]) -> bool:
    """Is a plug-in for these modalities one for this one? "any" is for all."""
    return not {modality, "any"}.isdisjoint(modalities)


@dataclass(frozen=True)
class Spec:
    """A plug-in by name, with the options that differ from its defaults."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def label(self) -> str:
        """name, or name(option=value, ...): unique inside a grid, and what tables show."""
        return self.name + (f"({', '.join(f'{k}={v}' for k, v in self.options)})" if self.options else "")


@dataclass(frozen=True)
class Given:
    """A plug-in that lies in no folder and has no entry point; see harness.plugins.custom."""

    kind: str
    cls: type[Plugin]
    source: str  # a file, or module:Class


given: dict[str, Given] = {}  # by name


def forget() -> None:
    """Look again: `given` has changed."""
    entries.cache_clear()
    load_class.cache_clear()


def suggest(field: str, value: object, valid: Iterable[str]) -> str:
    """The one-line complaint for an unknown name: the field, the value, what is valid, the nearest known name."""
    names = sorted(valid)
    near = get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{field}: unknown {value!r}; {hint}valid: {', '.join(names)}"


@cache
def entries(kind: str) -> dict[str, Entry]:
    """Every plug-in of a kind by name: this project's files, the entry points `tinydrop.<kind>` of others, those given.

    Raises BadPlugin for a name that two have.
    """
    found: dict[str, Entry] = {}
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
        if name in found:
            raise BadPlugin(f"two {kind} are called {name!r}: {found[name].module} and {module}; rename or remove one")
        found[name] = replace(_describe(kind, name, module, file), source=source)
    found |= {name: _described(name, its) for name, its in given.items() if its.kind == kind}
    return dict(sorted(found.items()))


def _is_plugin(file: Path) -> bool:
    """Whether a file of a kind's folder is a plug-in: it lies in a sub-folder, and no name begins with "_"."""
    return len(file.parts) > 1 and not any(part.startswith("_") for part in file.parts)


def entry(kind: str, name: str) -> Entry:
    """The entry of a name. Raises UnknownName with a suggestion."""
    known = entries(kind)
    if name not in known:
        hint = f"; {name}.py is a file here: name it with --plugin" if os.path.isfile(f"{name}.py") else ""
        raise UnknownName(suggest(kind, name, known) + hint)
    return known[name]


@cache
def load_class(kind: str, name: str) -> type[Plugin]:
    """Import a plug-in's file and return the one plug-in class defined there, or the class that was given."""
    from tasks.plugin import Plugin

    if name in given and given[name].kind == kind:
        return given[name].cls
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

    from tasks.plugin import BadInput

    cls = load_class(kind, name)
    options = options or {}
    valid = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in options:
        if key not in valid:
            raise BadInput(
                suggest(f"{kind}.{name}", key, valid) if valid else f"{kind}.{name} has no options; found {key!r}"
            )
    try:
        return cls(**options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "missing":
            raise BadInput(f"{kind}.{name}.{where}: needs a value; it has no default") from None
        raise BadInput(f"{kind}.{name}.{where}={first['input']!r}: {first['msg']}") from None


def _describe(kind: str, name: str, module: str, file: Path) -> Entry:
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
            if node.value is not None and node.target.id in (
                "modality",
                "modalities",
                "needs",
                "paper",
                "why_not",
                "stage",
            ):
                literals[node.target.id] = ast.literal_eval(node.value)
        else:
            default = f" = {ast.unparse(node.value)}" if node.value is not None else ""
            options[node.target.id] = ast.unparse(node.annotation) + default
    folder = file.parent.name
    modality = literals.get("modality") or _modality_of_base(tree, classes[-1])
    return Entry(
        kind=kind,
        name=name,
        module=module,
        stage=modality if kind == "tasks" else literals.get("stage", folder),
        modalities=(modality,) if kind == "tasks" else tuple(literals.get("modalities", ("image", "text", "audio"))),
        needs=tuple(literals.get("needs", ())),
        paper=literals.get("paper", ""),
        why_not=literals.get("why_not", ""),
        summary=(ast.get_docstring(classes[-1]) or "").split("\n\n")[0].replace("\n", " "),
        options=options,
    )


def _modality_of_base(tree: ast.Module, cls: ast.ClassDef) -> str:
    """The folder under tasks/ that the base class of a task is imported from: tasks are there by modality."""
    bases = {ast.unparse(base) for base in cls.bases}
    for node in tree.body:
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("tasks."):
            continue
        if bases & {alias.asname or alias.name for alias in node.names}:
            return str(node.module).split(".")[1]
    return ""


def _described(name: str, its: Given) -> Entry:
    """The same of a class, whose source may be nowhere to be read."""
    cls: Any = its.cls
    stage = cls.modality if its.kind == "tasks" else getattr(cls, "stage", "") or "own"
    options = {}
    for field in fields(cls):
        plain: Any = field.type
        plain = plain.__origin__ if hasattr(plain, "__metadata__") else plain  # float of Annotated[float, ...]
        kind = plain if isinstance(plain, str) else getattr(plain, "__name__", str(plain))
        options[field.name] = kind + ("" if field.default is MISSING else f" = {field.default!r}")
    modalities = (cls.modality,) if its.kind == "tasks" else tuple(cls.modalities)
    summary = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    return Entry(
        its.kind,
        name,
        its.source,
        stage,
        modalities,
        tuple(cls.needs),
        cls.paper,
        cls.why_not,
        summary,
        options,
        its.source,
    )
