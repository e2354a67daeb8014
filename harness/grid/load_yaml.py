"""YAML as people mean it: the plain values of YAML 1.2, and one line for what may mean two things.

PyYAML reads YAML 1.1, in which 1e-3 is a text, 010 is eight, 1:30 is ninety, and yes, no, on and off are booleans.
Here 1e-3 is a number, 010 is refused, and the others are texts.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from harness.console import one_line
from harness.errors import BadGrid

LARGEST = 1_000_000  # bytes of a file, and characters of its values once every alias is written out
INT = re.compile(r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# Numbers to some readers of YAML and texts, or other numbers, to the rest: 010, 0o10, 0b11, 1_000.
AMBIGUOUS = re.compile(
    r"[-+]?(0[0-9_]+(\.[0-9_]*)?([eE][-+]?[0-9]+)?|0o[0-7_]+|0b[01_]+|[1-9][0-9]*(_[0-9]+)+(\.[0-9_]*)?)"
)
AMBIGUOUS_TAG = "tag:yaml.org,2002:ambiguous"


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key that a mapping repeats, where YAML itself lets the last one win."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line, where = key.start_mark.line + 1, key.start_mark.name
            if key.value in lines:
                raise BadGrid(f"{where}, line {line}: {key.value!r} is in line {lines[key.value]} already; say it once")
            lines[key.value] = line
        return node


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    try:
        return int(node.value, 16 if "x" in node.value else 10)
    except ValueError:  # Python reads no more than some thousand digits
        shown = node.value[:40] + "..." * (len(node.value) > 40)
        raise BadGrid(f"{_place(node)}: {shown} is no whole number that can be read") from None


def _refuse_ambiguous(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> None:
    text = node.value[:40]
    plain = text.replace("_", "")
    number = f"{float(plain):g}" if re.fullmatch(r"[-+]?[0-9.]{1,9}", plain) else "it as a decimal number"
    raise BadGrid(f'{_place(node)}: {text} may be a number or a text; write {number}, or "{text}" in quotes')


_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1
for _tag, _pattern, _first in (
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("int", INT, "-+0123456789"),
    ("float", FLOAT, "-+.0123456789"),
    ("ambiguous", AMBIGUOUS, "-+0123456789"),
    ("null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    ("merge", re.compile("<<"), "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern.pattern})\\Z"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor(AMBIGUOUS_TAG, _refuse_ambiguous)


def load_yaml(text: str | bytes, where: str) -> Any:
    """The value of a YAML text, in UTF-8 or UTF-16; None of an empty one. Raises BadGrid, which names the line."""
    try:
        if len(text) > LARGEST:
            raise BadGrid(f"{where}: has {len(text):,} bytes; a grid has at most {LARGEST:,}")
        loader = _Loader(text)
        loader.name = where
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_size(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except BadGrid:
        raise
    except (yaml.YAMLError, ValueError, KeyError, AttributeError) as error:  # the last three: !!float x, !!bool x
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise BadGrid(f"{where}{line}: not readable as YAML: {one_line(problem, 200)}") from None
    except RecursionError:
        raise BadGrid(f"{where}: not readable as YAML: its lists and mappings lie too deep in each other") from None


def _check_size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """The characters of a node with its aliases written out. BadGrid for too many, and for an alias of itself.

    sizes: of the nodes seen so far, by id; -1 while one is still open.
    """
    if id(node) not in sizes:
        sizes[id(node)] = -1
        parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        inner = len(node.value) if isinstance(node, yaml.ScalarNode) else sum(_check_size(p, sizes) for p in parts)
        sizes[id(node)] = 1 + inner
        if inner > LARGEST:
            raise BadGrid(f"{_place(node)}: its aliases stand for more than {LARGEST:,} characters")
    if sizes[id(node)] < 0:
        raise BadGrid(f"{_place(node)}: an alias stands for something that holds the alias itself")
    return sizes[id(node)]


def _place(node: yaml.Node) -> str:
    return f"{node.start_mark.name}, line {node.start_mark.line + 1}"
