"""A grid as plain lists and mappings, which is how users write it and how plan.json stores it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from harness.console import quote
from harness.errors import BadGrid, UnknownName
from harness.grid.grid import RETUNE_ROWS, Grid, meets
from harness.plugins import custom
from harness.plugins.registry import KINDS, Spec, as_plain, entries, entry, fault_of, suggest

AXES = ("tasks", "attacks", "doses", "defenses", "seeds")
LONGEST = 30 * 24 * 3600  # seconds: of a cell's time limit
MOST_COUNT = 2**53 - 1  # of a dose or a seed: JSON and tables hold no greater number exactly
FIELDS = (*AXES, "retune", "timeout", "description", "also")


def grid_from_mapping(mapping: dict[str, Any]) -> Grid:
    """A validated grid; every mistake is a BadGrid of one line.

    Plug-ins are names, mappings of a name and options, or objects. `also` lists further blocks; a field that a block
    leaves out is inherited.
    """
    for field in mapping:
        if field not in FIELDS:
            raise BadGrid(suggest("grid", field, FIELDS))
    lists = {field: _list(mapping, field) for field in AXES}
    specs = {kind: tuple(_spec(kind, item) for item in _expand(kind, lists[kind])) for kind in KINDS}
    doses, seeds = (tuple(_count(field, item) for item in lists[field]) for field in ("doses", "seeds"))
    retune = tuple(_count("retune", item) for item in _list(mapping, "retune")) if mapping.get("retune") else ()
    if retune and max(retune) > RETUNE_ROWS // 2:
        raise BadGrid(f"retune: {max(retune)} of {RETUNE_ROWS} rows is more than half of them")
    labels: dict[str, Sequence[Any]] = {kind: [spec.label for spec in specs[kind]] for kind in KINDS}
    for field, values in {**labels, "doses": doses, "seeds": seeds, "retune": retune}.items():
        repeated = sorted(str(value) for value, n in Counter(values).items() if n > 1)
        if repeated:
            raise BadGrid(f"{field}: {repeated[0]} is listed twice; list every entry once")
    timeout = check_timeout("timeout", mapping.get("timeout", Grid.timeout))
    description = mapping.get("description")
    if not isinstance(description, str | None):
        raise BadGrid(f"description: {quote(description)} is not a text; put it in quotes")
    if fault := fault_of(description):
        raise BadGrid(f"description: {quote(description)} {fault}")
    _check_pairs(specs["tasks"], specs["attacks"])
    return Grid(
        specs["tasks"], specs["attacks"], doses, specs["defenses"], seeds, timeout, description or "",
        tuple(grid_from_mapping({**mapping, "also": [], **block}) for block in blocks_of(mapping)),
        retune,
    )  # fmt: skip


def check_timeout(field: str, value: Any) -> float:
    """The seconds that a cell may take. Raises BadGrid unless they are a number above 0 and at most 30 days."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 < value <= LONGEST:
        raise BadGrid(f"{field}: {quote(value)} is not a number of seconds above 0 and up to {LONGEST:,} (30 days)")
    return value  # type: ignore[no-any-return]


def grid_from_plan(mapping: dict[str, Any]) -> Grid:
    """The grid that plan.json stores; every mistake is a BadGrid of one line that names the file."""
    try:
        return grid_from_mapping(mapping)
    except BadGrid as error:
        if isinstance(error.__cause__, UnknownName):
            way_out = "a plug-in of your own: name it with --plugin, or call harness.run.run again"
        else:
            way_out = "`tinydrop run` of the grid writes it again"
        raise BadGrid(f"plan.json: {error} ({way_out})") from None


def mapping_from_grid(grid: Grid) -> dict[str, Any]:
    """The mapping that `grid_from_mapping` makes this grid of. The lists of a Grid that Python code has built may
    also hold names, mappings and objects, which stay as they are."""
    blocks = [_axes(block) for block in grid.also]
    more = {"retune": list(grid.retune)} if grid.retune else {}
    return {**_axes(grid), **more, "timeout": grid.timeout, "description": grid.description, "also": blocks}


def _axes(grid: Grid) -> dict[str, list[Any]]:
    return {field: [_item(value) for value in getattr(grid, field)] for field in AXES}


def _item(value: Any) -> Any:
    return {"name": value.name, **dict(value.options)} if isinstance(value, Spec) else value


def blocks_of(mapping: dict[str, Any]) -> list[dict[str, Any]]:
    """The further blocks that `also` lists. Raises BadGrid."""
    blocks = mapping.get("also") or []
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise BadGrid(f"also: {quote(blocks)} is not a list of mappings with {', '.join(AXES)}")
    for field in (field for block in blocks for field in block):
        if field not in AXES:
            raise BadGrid(suggest("also", field, AXES))
    return blocks


def _list(mapping: dict[str, Any], field: str) -> list[Any]:
    if field not in mapping:
        raise BadGrid(f"{field}: missing; a grid has {', '.join(AXES)}")
    value = mapping[field]
    value = value.tolist() if hasattr(value, "tolist") else value  # of NumPy
    value = list(value) if isinstance(value, list | tuple | range) else [value]
    if not value:
        raise BadGrid(f"{field}: is empty; name at least one")
    return value


def _expand(kind: str, items: list[Any]) -> Iterator[Any]:
    """The same plug-ins, an attack with `recipes` once for each: its options, and those of the recipe over them."""
    for item in items:
        recipes = item.get("recipes") if isinstance(item, dict) else None
        if recipes is None or kind != "attacks":
            yield item
            continue
        if not isinstance(recipes, list) or not recipes or not all(isinstance(recipe, dict) for recipe in recipes):
            raise BadGrid(f"attacks.recipes: {quote(recipes)} is no list of options such as [{{size: 3}}, {{size: 4}}]")
        yield from ({k: v for k, v in item.items() if k != "recipes"} | recipe for recipe in recipes)


def _spec(kind: str, item: Any) -> Spec:
    if isinstance(item, str):
        item = {"name": item}
    if item is not None and not isinstance(item, dict | list | int | float | date | bytes | set):  # what YAML holds
        return custom.spec_of(kind, item)
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise BadGrid(f"{kind}: {quote(item)} is neither a name nor a mapping with `name` and options")
    name = item["name"]
    try:
        entry(kind, name)
    except UnknownName as error:
        raise BadGrid(str(error)) from error
    for key, value in item.items():
        if not isinstance(key, str):
            raise BadGrid(f"{kind}.{name}: {quote(key)} is not the name of an option")
        if isinstance(value, dict):
            raise BadGrid(f"{kind}.{name}.{key}: {quote(value)} is a mapping; options are plain values or lists")
    spec = Spec(name, tuple((key, as_plain(value)) for key, value in sorted(item.items()) if key != "name"))
    try:
        hash(spec)
    except TypeError:
        raise BadGrid(f"{kind}.{name}: {quote(item)}: options are plain values or lists of them") from None
    return spec


def _count(field: str, item: Any) -> int:
    if isinstance(item, bool) or not isinstance(item, int) or item < 0:
        way_out = "; write a list of numbers: [0, 5]" if isinstance(item, str) else ""
        raise BadGrid(f"{field}: {quote(item)} is not a whole number of 0 or more{way_out}")
    if item > MOST_COUNT:
        raise BadGrid(f"{field}: {quote(item)} is beyond {MOST_COUNT:,}")
    return item


def _check_pairs(tasks: tuple[Spec, ...], attacks: tuple[Spec, ...]) -> None:
    """Raises BadGrid for an attack that meets no task, and for a task that meets no attack."""
    for attack in attacks:
        if not any(meets(task, attack) for task in tasks):
            kinds = ", ".join(entry("attacks", attack.name).modalities)
            fitting = [name for name in entries("tasks") if meets(Spec(name), attack)]
            raise BadGrid(
                f"attacks: {attack.name!r} is for {kinds} and no such task is listed; valid: {', '.join(fitting)}"
            )
    for task in tasks:
        if not any(meets(task, attack) for attack in attacks):
            kind = entry("tasks", task.name).modalities[0]
            raise BadGrid(f"tasks: {task.name!r} is of {kind}, and no attack for that is listed; add one, e.g. `none`")
