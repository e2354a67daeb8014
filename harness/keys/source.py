"""The code that a result depends on, as one hash that does not know where the code lies.

A module counts by its syntax tree without comments and docstrings. What it imports from this project counts by the
content of the file that it comes from, whatever that file is called and wherever it lies; what it imports from a
library counts by name. So moving a file changes no hash, and importing the same name from another file does.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

PLUGIN_PACKAGES = ("attacks", "defenses", "tasks")  # what a result can depend on through imports
SILENT = ("ctx", "kind", "type_comment")  # fields of a syntax tree that say nothing, or not the same in every Python


@cache
def source_hash(*modules: str) -> str:
    """32 hex digits for the code of these modules and of all project modules they import (`import_closure`).

    Raises TypeError for a module without a source file.
    """
    for module in modules:
        if module_file(module) is None:
            raise TypeError(f"module {module!r} has no source file, so what comes of it cannot be kept under a key")
    reached = frozenset().union(*map(import_closure, modules))
    return hashlib.sha256("".join(sorted(map(_module_hash, reached))).encode()).hexdigest()[:32]


@cache
def import_closure(module: str) -> frozenset[str]:
    """`module` and the project modules it imports, directly or not, at top level or inside functions.

    Of the harness only `module` itself: what grades a cell is listed, file by file, in `harness.grid.grid.GRADING`.
    Imports for type checkers alone do not run and do not count.
    """
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        targets = (target for target, _, _ in _parsed(name).imports)
        waiting += [target for target in targets if _counts(target, module)]
    return frozenset(seen)


@cache
def module_file(module: str) -> Path | None:
    """The Python file of a module; None where there is none."""
    try:
        spec = find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@cache
def is_own(module: str) -> bool:
    """Whether a module is the project's or the user's, not one of Python's or of an installed package."""
    file, places = module_file(module), (sysconfig.get_path(n) for n in ("stdlib", "platstdlib", "purelib", "platlib"))
    ours = module.partition(".")[0] in PLUGIN_PACKAGES
    return file is not None and (ours or not any(file.is_relative_to(place) for place in places))


def _counts(target: str, module: str) -> bool:
    """Whether the content of an imported module counts for the one that imports it."""
    inside = {*PLUGIN_PACKAGES, module.partition(".")[0]} - {"harness"}
    return target.partition(".")[0] in inside and module_file(target) is not None


@cache
def _module_hash(module: str) -> str:
    """Of one module: its own code, and what each of its imports binds."""
    bound = []
    for target, name, alias in _parsed(module).imports:
        where = _code_hash(target) if _counts(target, module) else target
        where = "harness" if where.startswith("harness.") else where
        bound.append(f"{where} {name} {alias}")
    return hashlib.sha256("\n".join([_code_hash(module), *sorted(set(bound))]).encode()).hexdigest()


@cache
def _code_hash(module: str) -> str:
    """Of one module's own statements, imports and docstrings left out."""
    return hashlib.sha256(repr(_shape(_parsed(module).tree)).encode()).hexdigest()


class _Parsed(ast.NodeTransformer):
    """A module's tree without imports and docstrings, and the imports beside it: (module, name or "", bound name)."""

    def __init__(self, module: str, file: Path) -> None:
        self.package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        self.imports: list[tuple[str, str, str]] = []
        self.tree = self.visit(ast.parse(file.read_text(encoding="utf-8")))

    def visit_If(self, node: ast.If) -> Any:
        return None if ast.unparse(node.test).endswith("TYPE_CHECKING") else self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.imports += [(alias.name, "", alias.asname or "") for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        source = resolve_name("." * node.level + (node.module or ""), self.package)
        for alias in node.names:
            is_module = source.partition(".")[0] in (*PLUGIN_PACKAGES, self.package.partition(".")[0]) and (
                module_file(f"{source}.{alias.name}") is not None
            )
            target = (f"{source}.{alias.name}", "") if is_module else (source, alias.name)
            self.imports.append((*target, alias.asname or alias.name))

    def generic_visit(self, node: ast.AST) -> ast.AST:
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            first = body[0].value if isinstance(body[0], ast.Expr) else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                del body[0]
        return super().generic_visit(node)


@cache
def _parsed(module: str) -> _Parsed:
    file = module_file(module)
    assert file is not None
    return _Parsed(module, file)


def _shape(node: Any) -> Any:
    """A syntax tree as nested lists, the same in every Python version: what is empty is left out."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name not in SILENT)
        return [type(node).__name__, *([name, _shape(v)] for name, v in fields if v is not None and v != [])]
    return [_shape(item) for item in node] if isinstance(node, list) else repr(node)
