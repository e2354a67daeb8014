"""What determines a result, as one hash: values by content, plug-ins by options and source, code by syntax tree."""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import sysconfig
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from harness import bytecode
from tasks.base import Plugin, Recipe, Samples

OURS = ("attacks", "defenses", "tasks")  # packages whose sources a result can depend on through imports


def digest(*parts: Any) -> str:
    """32 hex digits that change when any part does. Raises TypeError for what has no stable content (a lambda, say)."""
    h = hashlib.sha256()
    for part in parts:
        _feed(h, part)
    return h.hexdigest()[:32]


def _feed(h: Any, part: Any) -> None:
    import torch

    from tasks.deployed import Victim

    kind = type(part).__name__
    if part is None or isinstance(part, bool | int | float | str | bytes):
        h.update(f"{kind}:{part!r};".encode())
    elif isinstance(part, torch.Tensor):
        data = part.detach().cpu().contiguous()
        h.update(f"tensor:{data.dtype}{tuple(data.shape)};".encode())
        h.update(data.flatten().view(torch.uint8).numpy().tobytes() if data.ndim else repr(data.item()).encode())
    elif isinstance(part, Samples):
        h.update(f"samples:{part.fingerprint};".encode())
    elif isinstance(part, Victim):
        _feed(h, ["victim", part.task, dict(part.module.state_dict())])
    elif isinstance(part, dict):
        for key in sorted(part):
            _feed(h, key)
            _feed(h, part[key])
        h.update(b"};")
    elif isinstance(part, list | tuple):
        for item in part:
            _feed(h, item)
        h.update(b"];")
    elif isinstance(part, Recipe):
        _feed(h, {"recipe": vars(part)})
    elif isinstance(part, Plugin):
        files = [files_hash(f) for f in part.files()]
        here = bytecode.lives_here(type(part))
        code = bytecode.parts(type(part), digest) if here else source_hash(type(part).__module__)
        _feed(h, [part.name, part.options(), files, code])
    elif bytecode.lives_here(part):
        _feed(h, bytecode.parts(part, digest))
    elif isinstance(part, ModuleType):
        h.update(f"module:{part.__name__}:{source_hash(part.__name__) if _own(part.__name__) else ''};".encode())
    elif isinstance(part, partial):
        _feed(h, ["partial", part.func, list(part.args), part.keywords])
    elif inspect.ismethod(part) and isinstance(part.__self__, Plugin):
        _feed(h, ["method", part.__self__, part.__name__])
    elif inspect.isfunction(part) and part.__closure__ is None and part.__name__ != "<lambda>":
        h.update(f"function:{part.__qualname__}:{source_hash(part.__module__)};".encode())
    else:
        raise TypeError(
            f"{part!r} has no stable content to hash: pass a plug-in's method, or functools.partial of one over "
            f"tensors, numbers, Samples or victims"
        )


@cache
def files_hash(path: str) -> str:
    """Hash of a file, or of every file in a folder with its name: data and weights of the user's own may change."""
    h = hashlib.sha256()
    for file in [Path(path)] if os.path.isfile(path) else sorted(f for f in Path(path).rglob("*") if f.is_file()):
        with file.open("rb") as data:
            h.update(f"{file.relative_to(path)}:{hashlib.file_digest(data, 'sha256').hexdigest()};".encode())
    return h.hexdigest()[:32]


@cache
def source_hash(module: str) -> str:
    """Hash of a module and of every attacks/defenses/tasks module it imports, comments and docstrings left out.

    Raises TypeError for a module without a source file.
    """
    if _file(module) is None:
        raise TypeError(f"module {module!r} has no source file, so what comes of it cannot be kept under a key")
    h = hashlib.sha256()
    for name in sorted(import_closure(module)):
        h.update(name.encode() + _syntax(name).encode())
    return h.hexdigest()[:32]


@cache
def import_closure(module: str) -> frozenset[str]:
    """`module` and the project modules it imports, directly or not, at top level or inside functions."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in seen or _file(name) is None:
            continue
        seen.add(name)
        todo += [found for found in _imports(name) if found.partition(".")[0] in (*OURS, module.partition(".")[0])]
    return frozenset(seen)


@cache
def _file(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None  # `from tasks.base import Task` also offers tasks.base.Task, which is no module
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@cache
def _own(module: str) -> bool:
    """Is a module the project's or the user's, not one of Python's or of an installed package?"""
    file, places = _file(module), (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    ours = module.partition(".")[0] in OURS
    return file is not None and (ours or not any(file.is_relative_to(place) for place in places))


@cache
def _tree(module: str) -> ast.Module:
    file = _file(module)
    assert file is not None
    return ast.parse(file.read_text(encoding="utf-8"))


def _imports(module: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _syntax(module: str) -> str:
    tree = _tree(module)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) or not body:
            continue
        first = body[0].value if isinstance(body[0], ast.Expr) else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            first.value = ""
    return ast.dump(tree)


@cache
def code_hash(*modules: str) -> str:
    """Hash of exactly these modules, comments and docstrings left out."""
    return hashlib.sha256("".join(name + _syntax(name) for name in modules).encode()).hexdigest()[:32]


def derive(seed: int, *labels: str | int) -> int:
    """A seed of its own for every use, so that no two draws of a cell share random numbers."""
    return int(digest("seed", seed, *labels)[:15], 16)
