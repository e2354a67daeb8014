"""The code that a result depends on, as one hash that does not know where the code lies.

A module counts by its syntax tree without comments and docstrings. What it imports from this project or from the user's
own files counts by the content of the file that it comes from, whatever that file is called and wherever it lies; what
it imports from a library counts by name. So moving a file changes no hash, and importing the same name from another
file does. A module whose name is computed (`import_module(name)`) cannot be seen.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

PLUGIN_PACKAGES = ("attacks", "defenses", "tasks")  # what a result can depend on through imports
NOT_HASHED = ("ctx", "kind", "type_comment")  # fields of a syntax tree that say nothing new
INSTALLED = {"site-packages", "dist-packages"}  # folders of installed libraries, in whatever environment


_behind: set[str] = set()  # modules that run with other code than their files have, as `look_again` found


def source_hash(*modules: str) -> str:
    """32 hex digits for the code of these modules and of all project modules they import (`import_closure`).

    Raises TypeError for a module without a source file, and for one that was edited after it was imported, as found by
    `look_again`.
    """
    for module in modules:
        if find_module_file(module) is None:
            raise TypeError(f"module {module!r} has no source file, so what comes of it cannot be kept under a key")
    reached = frozenset().union(*map(import_closure, modules))
    if behind := sorted(name for name in reached if name in _behind or _parse(name).older):
        raise TypeError(
            f"{_parsed[behind[0]].file} was edited after it was imported, so the old code would run; start Python again"
        )
    return _hash_modules(reached)


def look_again() -> None:
    """Notice which files were edited since they were read: before a plan, as a notebook may have run for days.

    What this process has not imported yet is read again, and so is a module that was reloaded together with all that
    import names from it. Others run on with their old code, and `source_hash` refuses them.
    """
    edited = {name for name, parsed in _parsed.items() if parsed.was_edited()}
    reloaded = {name for name, parsed in _parsed.items() if parsed.was_reloaded()}
    current = {name for name in reloaded if _importers(name) <= reloaded}
    _behind.clear()
    _behind.update(name for name in edited - current if name in sys.modules)
    old = (edited | current) - _behind
    for name in old:
        del _parsed[name]
    for kept in (import_closure, _is_library, _hash_modules, _module_hash, _code_hash) if old else ():
        kept.cache_clear()


def _importers(module: str) -> set[str]:
    """The modules of this process that hold names of a module, which reloading it does not renew."""
    return {
        name for name, parsed in _parsed.items()
        if name in sys.modules and any(target == module and bound for target, bound, _ in parsed.imports)
    }  # fmt: skip


@cache
def _hash_modules(reached: frozenset[str]) -> str:
    return hashlib.sha256("".join(sorted(map(_module_hash, reached))).encode()).hexdigest()[:32]


@cache
def import_closure(module: str) -> frozenset[str]:
    """`module` and the project's or user's modules that it imports, directly or not, also inside functions.

    Modules of the harness count only where `module` is one: what grades a cell is listed, file by file, in
    `harness.grid.grid.GRADING`. Imports for type checkers alone do not run and do not count.
    """
    reached: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            targets = [*(target for target, _, _ in _parse(name).imports), *_packages_around(name)]
            waiting += [target for target in targets if _counts_by_content(target, module)]
    return frozenset(reached)


def imported_names(file: Path) -> set[str]:
    """The top-level modules and packages that a file imports by name; it is only read, and they need not be there."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            names.add(node.value)  # of import_module("name"), perhaps
    return names


def _packages_around(module: str) -> list[str]:
    """The packages of a user's own that Python runs before it imports this module of theirs."""
    parts = module.split(".")
    own = parts[0] not in (*PLUGIN_PACKAGES, "harness")  # whose packages do nothing
    return [".".join(parts[:n]) for n in range(1, len(parts))] if own else []


def find_module_file(module: str) -> Path | None:
    """The Python file of a module; None where there is none. Not cached: a plug-in's module may come later."""
    spec = _spec_of(module)
    return Path(spec.origin).resolve() if spec and spec.origin and spec.origin.endswith(".py") else None


def _spec_of(module: str) -> ModuleSpec | None:
    """Where a module comes from. Unlike `find_spec`, it imports no package around it, whose code would run."""
    if module in sys.modules:
        return getattr(sys.modules[module], "__spec__", None)
    package, _, name = module.rpartition(".")
    if not package:
        return find_spec(module) if name else None
    around = _spec_of(package)
    places = list(around.submodule_search_locations or ()) if around else []
    try:
        return PathFinder.find_spec(module, places)
    except KeyError:  # a folder without __init__.py, for which Python needs the package around it
        spec = ModuleSpec(module, None, is_package=True)
        spec.submodule_search_locations = [str(Path(place) / name) for place in places]
        return spec


def is_own(module: str) -> bool:
    """Whether a module has a source file that is the project's or the user's, not Python's or a library's."""
    return not _is_library(module.partition(".")[0]) and find_module_file(module) is not None


@cache
def _is_library(package: str) -> bool:
    """Whether a top-level package or module is Python's or an installed library, or is missing altogether."""
    spec = None if package in sys.stdlib_module_names else _spec_of(package)
    if package in PLUGIN_PACKAGES or spec is None:
        return spec is None
    place = Path([*(spec.submodule_search_locations or ()), spec.origin or ""][0])
    return not INSTALLED.isdisjoint(place.parts) or package in _installed_in(place.parent)


@cache
def _installed_in(folder: Path) -> frozenset[str]:
    """The top-level packages and modules that pip has put into a folder of any name, as `--target` does."""
    lines = [line for record in folder.glob("*.dist-info/RECORD") for line in record.read_text("utf-8").splitlines()]
    return frozenset(re.split(r"[/.,]", line, maxsplit=1)[0] for line in lines)


def _counts_by_content(target: str, module: str) -> bool:
    """Whether an imported module counts by its content for the one that imports it, and not by its name alone."""
    package = target.partition(".")[0]
    if package == "harness":
        return False
    # The package is asked about first: to look for a module inside it would import a library.
    own = package == module.partition(".")[0] or not _is_library(package)
    return own and find_module_file(target) is not None


@cache
def _module_hash(module: str) -> str:
    """The hash of one module's own code and of what each of its imports binds."""
    bindings = set()
    for target, name, alias in _parse(module).imports:
        where = _code_hash(target) if _counts_by_content(target, module) else target
        where = "harness" if where.startswith("harness.") else where
        bindings.add(f"{where} {name} {alias}")
    return hashlib.sha256("\n".join([_code_hash(module), *sorted(bindings)]).encode()).hexdigest()


@cache
def _code_hash(module: str) -> str:
    """The hash of one module's own statements, without imports and docstrings."""
    return hashlib.sha256(repr(_to_lists(_parse(module).tree)).encode()).hexdigest()


class _ParsedModule(ast.NodeTransformer):
    """A module's tree without imports and docstrings, and the imports beside it: (module, name or "", bound name)."""

    def __init__(self, module: str, file: Path) -> None:
        self.module = module
        self.file = file
        self.package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        self.spec = getattr(sys.modules.get(module), "__spec__", None)  # another one after a reload
        self.imports: list[tuple[str, str, str]] = []
        self.source = file.read_bytes()
        try:
            tree = ast.parse(self.source)
            self.older = _holds_other_values(module, tree)
            self.tree = self.visit(tree)
        except SyntaxError as error:
            raise TypeError(f"{file}, line {error.lineno}: {error.msg}") from None

    def was_edited(self) -> bool:
        """Whether the file has other code now; comments and docstrings are none."""
        try:
            if self.older or self.file.read_bytes() == self.source:
                return self.older
            now = _ParsedModule(self.module, self.file)
        except (OSError, TypeError):
            return True
        return (_to_lists(now.tree), now.imports) != (_to_lists(self.tree), self.imports)

    def was_reloaded(self) -> bool:
        """Whether Python has imported the module again since the file was read."""
        return self.spec is not None and getattr(sys.modules.get(self.module), "__spec__", None) is not self.spec

    def visit_Call(self, node: ast.Call) -> ast.AST:
        called = ast.unparse(node.func).rpartition(".")[2]
        if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
            name = str(node.args[0].value)
            with suppress(ImportError):  # a relative name where there is no package
                self.imports.append((resolve_name(name, self.package), "", ""))
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> Any:
        if ast.unparse(node.test) not in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            return self.generic_visit(node)
        others = [self.visit(statement) for statement in node.orelse]
        return [statement for statement in others if statement is not None]

    def visit_Import(self, node: ast.Import) -> None:
        self.imports += [(alias.name, "", alias.asname or "") for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        source = resolve_name("." * node.level + (node.module or ""), self.package)
        for alias in node.names:
            is_module = _counts_by_content(f"{source}.{alias.name}", self.module)
            target = (f"{source}.{alias.name}", "") if is_module else (source, alias.name)
            self.imports.append((*target, alias.asname or alias.name))

    def generic_visit(self, node: ast.AST) -> ast.AST:
        body = getattr(node, "body", None)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            first = body[0].value if isinstance(body[0], ast.Expr) else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                del body[0]
        return super().generic_visit(node)


def _holds_other_values(module: str, tree: ast.Module) -> bool:
    """Whether a user's module that is loaded holds another value of a constant than its file, edited since, says."""
    loaded = vars(sys.modules[module]) if module in sys.modules else {}
    if not loaded or module.partition(".")[0] in (*PLUGIN_PACKAGES, "harness"):
        return False
    changing = {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}
    named = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(target, ast.Name):
            name, value = target.id, node.value.value
            once = name.isupper() and named.count(name) == 1 and name not in changing
            if once and name in loaded and repr(loaded[name]) != repr(value):
                return True
    return False


_parsed: dict[str, _ParsedModule] = {}  # by module, as when it was first asked for


def _parse(module: str) -> _ParsedModule:
    if module not in _parsed:
        file = find_module_file(module)
        assert file is not None
        _parsed[module] = _ParsedModule(module, file)
    return _parsed[module]


def _to_lists(node: Any) -> Any:
    """A syntax tree as nested lists, the same in every Python version: what is empty is left out."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name not in NOT_HASHED)
        return [type(node).__name__, *([name, _to_lists(v)] for name, v in fields if v is not None and v != [])]
    return [_to_lists(item) for item in node] if isinstance(node, list) else repr(node)
