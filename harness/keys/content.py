"""Everything that a result depends on as one hash: values by content, plug-ins by options and source, code by tree."""

from __future__ import annotations

import hashlib
import inspect
import re
from dataclasses import fields
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import ModuleType
from typing import Any

import numpy as np
import torch

from harness.keys import bytecode
from harness.keys.present import present_values
from harness.keys.source import is_own, source_hash
from tasks.base import Recipe, Task
from tasks.deployed import Victim
from tasks.files import files_hash, fingerprint, named_files
from tasks.plugin import Plugin
from tasks.samples import Samples

__all__ = ["content_hash", "digest", "files_hash"]


def digest(*parts: Any) -> str:
    """32 hex digits that change when any part does. Raises TypeError for a part without stable content, as a lambda."""
    h = hashlib.sha256()
    for part in parts:
        _feed(h, part)
    return h.hexdigest()[:32]


def content_hash(plugin: Plugin) -> str:
    """The hash of what files hold of a plug-in: its code, and what it reads. A notebook's class is in no file."""
    modules = _modules_of(plugin)
    return digest(source_hash(*modules) if modules else "", fingerprint(named_files(plugin)))


def _modules_of(plugin: Plugin) -> list[str]:
    """The modules whose code a plug-in runs: its own and, as an option may name it, that of a task's source."""
    found = [] if bytecode.lives_here(type(plugin)) else [type(plugin).__module__]
    source = plugin.source() if isinstance(plugin, Task) else None
    return found if source is None else [*found, *_modules_of(source)]


def _feed(h: Any, part: Any) -> None:
    kind = type(part).__name__
    if part is None or isinstance(part, bool | int | float | str | bytes):
        h.update(f"{kind}:{part!r};".encode())
    elif isinstance(part, torch.Tensor):
        data = part.detach().cpu().contiguous()
        h.update(f"tensor:{data.dtype}{tuple(data.shape)};".encode())
        h.update(data.flatten().view(torch.uint8).numpy().tobytes() if data.ndim else repr(data.item()).encode())
    elif isinstance(part, Samples):
        fresh = Samples(part.inputs, part.targets, part.ids)  # rows may have been changed in place since the last look
        h.update(f"samples:{fresh.fingerprint};".encode())
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
        files = fingerprint(named_files(part))
        here = [bytecode.content_of(type(part), digest)] if bytecode.lives_here(type(part)) else []
        modules = _modules_of(part)
        _feed(h, [part.name, part.options(), files, *here, *([source_hash(*modules)] if modules else [])])
    elif bytecode.lives_here(part):
        _feed(h, bytecode.content_of(part, digest))
    elif isinstance(part, np.ndarray | np.generic | re.Pattern | set | frozenset | PurePath | Enum):
        _feed_value(h, part)
    elif bytecode.is_plain_object(part) and not bytecode.lives_here(type(part)):
        _feed(h, ["object", *_class_of(part), {f.name: getattr(part, f.name) for f in fields(part)}])
    elif isinstance(part, ModuleType):
        code = source_hash(part.__name__) if is_own(part.__name__) else part.__name__
        h.update(f"module:{code};".encode())
    elif isinstance(part, partial):
        _feed(h, ["partial", part.func, list(part.args), part.keywords])
    elif inspect.ismethod(part) and isinstance(part.__self__, Plugin):
        function: Any = part.__func__
        _feed(h, ["method", part.__self__, part.__name__, present_values(function, part.__self__)])
    elif inspect.isfunction(part) and part.__closure__ is None and part.__name__ != "<lambda>":
        h.update(f"function:{part.__qualname__}:{source_hash(part.__module__)};".encode())
        _feed(h, present_values(part))
    else:
        raise TypeError(
            f"{part!r} has no stable content to hash: pass a plug-in's method, or functools.partial of one over "
            f"tensors, numbers, Samples or victims"
        )


def _feed_value(h: Any, part: Any) -> None:
    """Values of NumPy and Python that hold others, or come with a type of their own."""
    if isinstance(part, np.ndarray | np.generic):
        if part.dtype.hasobject:
            raise TypeError("an array of objects has no stable content to hash; make it one of numbers or texts")
        h.update(f"array:{part.dtype}{part.shape};".encode() + part.tobytes() + b";")
    elif isinstance(part, re.Pattern):
        _feed(h, ["pattern", part.pattern, part.flags])
    elif isinstance(part, set | frozenset):
        _feed(h, ["set", sorted(map(digest, part))])
    elif isinstance(part, PurePath):
        _feed(h, ["path", str(part)])
    else:
        _feed(h, ["enum", *_class_of(part), part.name])


def _class_of(part: Any) -> list[str]:
    module = type(part).__module__
    return [type(part).__qualname__, source_hash(module) if is_own(module) else module]
