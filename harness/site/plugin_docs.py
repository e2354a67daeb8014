"""What the page of a plug-in says: every option with its meaning, the docstring, and a task's data."""

from __future__ import annotations

import ast
import inspect
import io
import json
import re
import textwrap
import tokenize
from dataclasses import dataclass
from functools import cache
from tokenize import COMMENT
from typing import Any

from harness.plugins.registry import PluginEntry, entries, load_class
from harness.site.headline import Field

BOUNDS = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "to"}
TYPES = {"integer": "whole number", "string": "text", "boolean": "true or false"}  # other types keep their JSON name
ANNOTATIONS = {
    "int": "whole number", "float": "number", "str": "text", "bool": "true or false", "None": "null",
    "Positive": "whole number above 0", "Count": "whole number from 0", "Share": "number from 0 to 1",
    "ClassRef": "number or name of a class", "Above0": "number above 0", "AtLeast0": "number from 0",
    "FileName": "file or folder",
}  # fmt: skip


@dataclass(frozen=True)
class Option:
    """An option of a plug-in, its own or a base class's."""

    name: str
    values: str  # what is allowed, in words
    default: str  # empty: the option is required
    meaning: str  # the comment beside it, or empty


def list_options(kind: str, entry: PluginEntry | None) -> list[Option]:
    """All that a grid may set, inherited ones last. For a plug-in that cannot be imported, what the registry read."""
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    if entry is None:
        return []
    cls = _class(kind, entry)
    try:
        schema = TypeAdapter(cls).json_schema() if cls else {}
    except PydanticUserError:  # an option of a type that JSON does not have
        cls = None
    if cls is None:
        split = {name: what.partition(" = ") for name, what in entry.options.items()}
        return [Option(name, _annotation_in_words(values), default, "") for name, (values, _, default) in split.items()]
    known, needed = schema.get("properties", {}), schema.get("required", ())
    meanings = {name: comment for base in reversed(cls.__mro__) for name, comment in _comments(base).items()}
    own = [name for name in known if name in entry.options]
    defaults = {name: "" if name in needed else _default(schema) for name, schema in known.items()}
    return [
        Option(name, values_in_words(known[name]), defaults[name], meanings.get(name, ""))
        for name in (*own, *(name for name in known if name not in entry.options))
    ]


def read_paragraphs(kind: str, entry: PluginEntry | None) -> list[str]:
    """The docstring below its summary (source, deviations, figures), paragraph by paragraph."""
    cls = _class(kind, entry) if entry else None
    paragraphs = inspect.cleandoc(cls.__doc__ or "").split("\n\n") if cls else []
    return [" ".join(paragraph.split()) for paragraph in paragraphs[1:]]


def _class(kind: str, entry: PluginEntry) -> Any:
    """None where this plug-in, or an extra that it needs, is not installed."""
    if entry != entries(kind).get(entry.name):
        return None
    try:
        return load_class(kind, entry.name)
    except ImportError:
        return None


def _annotation_in_words(annotation: str) -> str:
    """A type annotation in words. It is only read: nothing of it is run."""
    return re.sub(r"\w+", lambda name: ANNOTATIONS.get(name[0], name[0]), annotation).replace(" | ", " or ")


def values_in_words(schema: dict[str, Any]) -> str:
    """The values that a JSON schema allows."""
    if "anyOf" in schema:
        return " or ".join(values_in_words(part) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(map(_as_in_a_grid, schema.get("enum", [schema.get("const")])))
    if schema.get("type") == "array":
        return f"list of {values_in_words(schema['items'])}" if schema.get("items") else "list"
    kind = str(schema.get("type", "any")) if schema.get("format") != "path" else "file or folder"
    bounds = [f"{word} {schema[name]:g}" for name, word in BOUNDS.items() if name in schema]
    return " ".join([TYPES.get(kind, kind), *bounds])


def _default(schema: dict[str, Any]) -> str:
    return _as_in_a_grid(schema["default"]) if "default" in schema else "made anew"


def _as_in_a_grid(value: Any) -> str:
    """A value as it is written in a grid."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


@cache
def _comments(cls: type) -> dict[str, str]:
    """By option: the comment on its line in this class."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
        comments = {
            t.start[0]: t.string for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == COMMENT
        }
        (tree,) = ast.parse(source).body
    except (OSError, TypeError, SyntaxError):  # a built-in class, or one made at run time
        return {}
    return {
        node.target.id: comments[node.end_lineno].lstrip("# ")
        for node in getattr(tree, "body", [])
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno in comments
    }


def data_facts(entry: PluginEntry | None) -> list[tuple[str, Field]]:
    """A task's data: its source, version and licence, and what is measured on it."""
    cls = _class("tasks", entry) if entry else None
    if cls is None:
        return []
    hub = f"https://huggingface.co/datasets/{cls.dataset}" if "/" in cls.dataset else ""
    known = {
        "dataset": Field(cls.dataset, href=hub), "revision": Field(cls.revision or ("main" if hub else "")),
        "licence": Field(cls.licence), "clean metric": Field(cls.clean_metric),
        "classes": Field(", ".join(cls.classes) if isinstance(cls.classes, tuple) and len(cls.classes) > 1 else ""),
        "sampling rate": Field(f"{cls.rate:,} Hz" if cls.rate else ""),
    }  # fmt: skip
    return [(name, value) for name, value in known.items() if value.text]
