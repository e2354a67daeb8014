"""Trees of values as JSON files, tables and terminals can hold them, whatever a plug-in or a file name has put in."""

from __future__ import annotations

from math import isfinite
from typing import Any

from harness.console import one_line
from harness.plugins.registry import MOST


def as_plain_tree(value: Any) -> Any:
    """The same tree of JSON's types. Never raises.

    Numbers that are not finite or beyond 64 bits become texts; characters that are not in UTF-8 become escapes, as
    \\udce9; tuples and sets become lists, keys and objects texts.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value) if abs(value) <= MOST else one_line(value)
    if isinstance(value, float):
        return float(value) if isfinite(value) else str(float(value))
    if isinstance(value, dict):
        return {
            as_plain_tree(key if isinstance(key, str) else one_line(key)): as_plain_tree(v) for key, v in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [as_plain_tree(item) for item in value]
    return one_line(value)
