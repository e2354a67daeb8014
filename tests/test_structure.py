"""The house: imports run one way, and the packages are this project's own."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

from helpers import ROOT

RANKS = {  # a part of the harness imports parts of lower ranks and itself; two of one rank never import each other
    "errors": 0, "console": 0, "keys": 0,
    "plugins": 1,
    "grid": 2, "store": 2,
    "cell": 3, "report": 3,
    "audit": 4, "certify": 4, "run": 4, "site": 4, "testing": 4,
    "cli": 5,
}  # fmt: skip
MAY_IMPORT = {
    "tasks": {"tasks"},
    "attacks": {"attacks", "tasks"},
    "defenses": {"defenses", "tasks"},
    "harness": {"harness", "attacks", "defenses", "tasks"},
}


Import = tuple[str, str, bool, int]  # importing module, imported module, whether it runs (not for type checkers), line


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports() -> list[Import]:
    """Every import of the project's own modules, at top level and inside functions."""
    files = [file for package in MAY_IMPORT for file in (ROOT / package).rglob("*.py")]
    known = {module_name(file) for file in files}
    found: list[Import] = []
    for file in files:
        tree = ast.parse(file.read_text())
        typed = {
            inner for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{file.relative_to(ROOT)}, line {node.lineno}: a relative import"
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in known else str(node.module) for name in inner]
            else:
                continue
            me = module_name(file)
            found += [(me, name, node not in typed, node.lineno) for name in names if name.split(".")[0] in MAY_IMPORT]
    return found


def test_imports_run_one_way() -> None:
    for importer, imported, _, line in imports():
        assert imported.split(".")[0] in MAY_IMPORT[importer.split(".")[0]], f"{importer}:{line} imports {imported}"


def test_the_harness_imports_by_rank() -> None:
    """At top level, inside functions and for type checkers alike."""
    parts = {
        path.stem for path in (ROOT / "harness").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert parts - {"__init__"} == set(RANKS)
    for importer, imported, _, line in imports():
        if not (importer.startswith("harness.") and imported.startswith("harness.")):
            continue
        mine, theirs = importer.split(".")[1], imported.split(".")[1]
        assert mine == theirs or RANKS[theirs] < RANKS[mine], f"{importer}:{line} imports {imported}"


def test_no_circle() -> None:
    """No module imports itself by way of others, not even inside a function."""
    graph: dict[str, set[str]] = {}
    for importer, imported, runs, _ in imports():
        if runs and importer != imported:
            graph.setdefault(importer, set()).add(imported)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in sorted(graph.get(module, ())):
                visit(other, (*path, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_an_import_inside_a_function_says_why() -> None:
    """Of the project's own modules. In harness/cli they are the rule, for the time that a command takes to start."""
    for package in MAY_IMPORT:
        for file in (ROOT / package).rglob("*.py"):
            text = file.read_text()
            lines = text.splitlines()
            functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
            for node in (node for function in functions for node in ast.walk(function)):
                own = isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in MAY_IMPORT
                if own and file.parent != ROOT / "harness" / "cli":
                    written = " ".join(lines[node.lineno - 1 : node.end_lineno])
                    assert "# imported late: " in written, f"{file.relative_to(ROOT)}, line {node.lineno}"


def test_a_private_module_is_imported_only_from_the_folder_that_holds_it() -> None:
    for importer, imported, _, line in imports():
        parts = imported.split(".")
        for depth, part in enumerate(parts):
            if part.startswith("_"):
                holder = ".".join(parts[:depth])
                assert importer.startswith(holder), f"{importer}:{line} imports {imported}"


def test_a_shadowing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import harness"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"tinydrop's package 'tasks' is shadowed: Python finds {tmp_path}" in done.stderr


def test_no_python_file_is_longer_than_400_lines() -> None:
    for package in (*MAY_IMPORT, "tests"):
        for file in (ROOT / package).rglob("*.py"):
            assert len(file.read_text().splitlines()) <= 400, file
