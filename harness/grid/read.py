"""Reading a grid: a preset or a YAML file, and the `--set` changes of the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.console import expand_home, printable
from harness.errors import BadGrid
from harness.grid.grid import Grid
from harness.grid.load_yaml import load_yaml
from harness.grid.mapping import AXES, FIELDS, blocks_of, grid_from_mapping
from harness.plugins.registry import KINDS, PRESETS, suggest


def read_grid(source: str, changes: Iterable[str] = ()) -> Grid:
    """A grid from a preset's name or a YAML file, with `key=value` changes. Raises BadGrid."""
    mapping = read_mapping(source)
    for change in changes:
        _apply_change(mapping, change)
    return grid_from_mapping(mapping)


def read_mapping(source: str) -> dict[str, Any]:
    """The mapping that a preset or a YAML file holds, for `grid_from_mapping`. Raises BadGrid."""
    path = expand_home(source)
    if source in PRESETS and not path.is_file():
        path = PRESETS[source]
    elif not path.is_file():
        raise BadGrid(f"{suggest('GRID', source, PRESETS)}; or the path of a YAML file")
    where = printable(str(path))
    mapping = load_yaml(path.read_bytes(), where)
    if not isinstance(mapping, dict):
        found = "it is empty" if mapping is None else f"found {type(mapping).__name__}"
        raise BadGrid(f"{where}: must be a mapping with {', '.join(AXES)}; {found}")
    return mapping


def split_change(change: str, example: str) -> tuple[str, Any]:
    """The key and the value of `key=value`; the value is read as YAML. Raises BadGrid, which shows the example."""
    key, equals, text = change.partition("=")
    if not equals:
        raise BadGrid(f"--set {change!r}: write key=value, e.g. {example}")
    return key, load_yaml(text, f"--set {change!r}")


def _apply_change(mapping: dict[str, Any], change: str) -> None:
    """Set a field of the grid (doses=[0,5]), or an option of every entry of that name (digits.epochs=5)."""
    key, value = split_change(change, "doses=[0,5] or digits.epochs=5")
    name, dot, option = key.partition(".")
    if dot:
        _set_option(mapping, name, option, value)
    elif key in FIELDS:
        mapping[key] = value
    else:
        raise BadGrid(suggest("--set", key, FIELDS))


def _set_option(mapping: dict[str, Any], name: str, option: str, value: Any) -> None:
    names: set[str] = set()
    for part in (mapping, *blocks_of(mapping)):
        for kind in part.keys() & set(KINDS):
            part[kind] = items = part[kind] if isinstance(part[kind], list) else [part[kind]]
            for i, item in enumerate(items):
                spec = {"name": item} if isinstance(item, str) else item
                if isinstance(spec, dict):
                    names.add(spec.get("name", ""))
                    if spec.get("name") == name:
                        items[i] = {**spec, option: value}
    if name not in names:
        raise BadGrid(suggest("--set", name, names) + " (the plug-ins of this grid)")
