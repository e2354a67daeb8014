"""A grid, as the user writes it, and the cells it expands to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from harness.errors import BadGrid, UnknownName
from harness.plugins.registry import KINDS, PRESETS, Spec, create, entries, entry, fits, suggest

if TYPE_CHECKING:
    from tasks.plugin import Plugin

# The code of every cell, beside that of its plug-ins: a key covers these files and all that they import from attacks/,
# defenses/ and tasks/. What else they import from the harness keeps, shows or looks up, and changes no number.
GRADING = (
    *(f"harness.cell.{name}" for name in ("steps", "case", "metrics", "stealth", "poison", "train", "dp")),
    "harness.keys.seeds",
)
FIELDS = ("tasks", "attacks", "doses", "defenses", "seeds", "timeout", "description", "also")


@dataclass(frozen=True)
class Grid:
    """task x attack x dose x defense x seed. Attacks meet only tasks of their modality; defenses meet every task.

    also: further grids that run with this one; what such a block does not say is as it is here.
    """

    tasks: tuple[Spec, ...]
    attacks: tuple[Spec, ...]
    doses: tuple[int, ...]
    defenses: tuple[Spec, ...]
    seeds: tuple[int, ...]
    timeout: float = 3600.0  # seconds a cell may take
    description: str = ""
    also: tuple[Grid, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One measurement. `key` changes with the options, the seed and the source of everything that makes the result."""

    key: str
    task: Spec
    attack: Spec
    dose: int
    defense: Spec
    seed: int

    @property
    def label(self) -> str:
        return f"{self.task.label}/{self.attack.label}/{self.dose}/{self.defense.label}/{self.seed}"

    @property
    def columns(self) -> dict[str, Any]:
        """What identifies it, as plan.json and tables of cells have it."""
        return {
            "key": self.key, "label": self.label, "task": self.task.label, "task_name": self.task.name,
            "attack": self.attack.label, "attack_name": self.attack.name, "dose": self.dose,
            "defense": self.defense.label, "defense_name": self.defense.name, "seed": self.seed,
        }  # fmt: skip

    @property
    def group(self) -> tuple[str, str, int, int]:
        """Cells of a group share one poison set and one undefended victim."""
        return self.task.label, self.attack.label, self.dose, self.seed


def read(source: str, changes: Iterable[str] = ()) -> Grid:
    """A grid from a preset's name or a YAML file, with `key=value` changes. Raises BadGrid."""
    tree = written(source)
    for change in changes:
        _apply(tree, change)
    return parse(tree)


def written(source: str) -> dict[str, Any]:
    """The mapping that `parse` takes, as a preset or a YAML file has it. Raises BadGrid."""
    path = Path(source)
    if source in PRESETS and not path.is_file():
        path = PRESETS[source]
    elif not path.is_file():
        raise BadGrid(f"{suggest('GRID', source, PRESETS)}; or the path of a YAML file")
    try:
        tree = _loaded(path.read_text(encoding="utf-8"), str(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadGrid(f"{path}: not readable as YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(tree, dict):
        raise BadGrid(f"{path}: must be a mapping with {', '.join(FIELDS[:5])}; found {type(tree).__name__}")
    return tree


class _Loader(yaml.SafeLoader):
    """Safe, and a key that stands twice in a mapping is refused, where YAML itself lets the last one win."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line, where = key.start_mark.line + 1, key.start_mark.name
            if key.value in lines:
                raise BadGrid(f"{where}, line {line}: {key.value!r} is in line {lines[key.value]} already; say it once")
            lines[key.value] = line
        return node


def _loaded(text: str, where: str) -> Any:
    """What a YAML text says. Raises BadGrid and YAMLError."""
    loader = _Loader(text)
    loader.name = where
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def parse(tree: dict[str, Any]) -> Grid:
    """A validated grid from a mapping; every mistake is a BadGrid of one line.

    Plug-ins are names, mappings of a name and options, or objects.
    """
    for key in tree:
        if key not in FIELDS:
            raise BadGrid(suggest("grid", key, FIELDS))
    lists = {field: _list(tree, field) for field in FIELDS[:5]}
    specs = {kind: tuple(_spec(kind, item) for item in lists[kind]) for kind in KINDS}
    doses, seeds = (tuple(_count(field, item) for item in lists[field]) for field in ("doses", "seeds"))
    for field, values in {
        **{k: [s.label for s in v] for k, v in specs.items()},
        "doses": doses,
        "seeds": seeds,
    }.items():
        twice = sorted({str(v) for v in values if list(values).count(v) > 1})
        if twice:
            raise BadGrid(f"{field}: {twice[0]} is listed twice; list every entry once")
    timeout = tree.get("timeout", Grid.timeout)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0:
        raise BadGrid(f"timeout: {timeout!r} is not a number of seconds above 0")
    _check_pairs(specs["tasks"], specs["attacks"])
    return Grid(
        specs["tasks"], specs["attacks"], doses, specs["defenses"], seeds, timeout, str(tree.get("description", "")),
        tuple(parse({**tree, "also": [], **block}) for block in _blocks(tree)),
    )  # fmt: skip


def planned(tree: dict[str, Any]) -> Grid:
    """The grid that a plan on disk was made of (`asdict` of it); every mistake is a BadGrid of one line."""
    written = as_written(tree)
    try:
        return parse(written)
    except BadGrid as error:
        if not isinstance(error.__cause__, UnknownName):
            raise
        way = "a plug-in of your own: name it with --plugin, or call harness.run.run again"
        raise BadGrid(f"plan.json: {error} ({way})") from None


def as_written(tree: dict[str, Any]) -> dict[str, Any]:
    """The mapping that a user would have written to get this grid (`asdict` of one). Raises BadGrid."""
    try:
        rest = {field: tree[field] for field in ("timeout", "description")}
        return {**_axes(tree), **rest, "also": [_axes(block) for block in tree["also"]]}
    except (KeyError, TypeError, ValueError) as error:
        raise BadGrid(
            f"plan.json: its grid is damaged ({error!r}); `tinydrop run` of the grid writes it again"
        ) from None


def tree_of(grid: Grid) -> dict[str, Any]:
    """The mapping that `parse` would make this grid of; its lists may also hold names, mappings and objects."""
    axes = {field: [_item(item) for item in getattr(grid, field)] for field in FIELDS[:5]}
    return {**axes, "timeout": grid.timeout, "description": grid.description, "also": [
        {field: tree_of(block)[field] for field in FIELDS[:5]} for block in grid.also
    ]}  # fmt: skip


def _item(item: Any) -> Any:
    return {"name": item.name, **dict(item.options)} if isinstance(item, Spec) else item


def _axes(tree: dict[str, Any]) -> dict[str, Any]:
    specs = {kind: [{"name": s["name"], **dict(s["options"])} for s in tree[kind]] for kind in KINDS}
    return {"doses": tree["doses"], "seeds": tree["seeds"], **specs}


def expand(grid: Grid) -> list[Cell]:
    """Every cell once, grouped so that what shares a victim stands together; attack `none` has dose 0 only."""
    found = {cell.key: cell for part in (grid, *grid.also) for cell in _expand(part)}
    return list(found.values())


def _expand(grid: Grid) -> list[Cell]:
    from harness.keys.content import digest
    from harness.keys.source import source_hash

    plugins = {(k, s): _create(k, s) for k in KINDS for s in getattr(grid, k)}
    try:
        hashes = {at: digest(p) for at, p in plugins.items()}
    except TypeError as error:
        raise BadGrid(str(error)) from None
    grading = source_hash(*GRADING)
    for attack in grid.attacks:
        _check_target(plugins["attacks", attack], [plugins["tasks", t] for t in grid.tasks if meets(t, attack)])
    cells = []
    for task in grid.tasks:
        for attack in grid.attacks:
            if not meets(task, attack):
                continue
            stem = grading + hashes["tasks", task] + hashes["attacks", attack]
            for dose in (0,) if attack.name == "none" else grid.doses:
                for seed in grid.seeds:
                    prefix = hashlib.sha256(f"{stem}:{dose}:{seed}:".encode())
                    for defense in grid.defenses:
                        h = prefix.copy()
                        h.update(hashes["defenses", defense].encode())
                        cells.append(Cell(h.hexdigest()[:32], task, attack, dose, defense, seed))
    return cells


def meets(task: Spec, attack: Spec) -> bool:
    """Is the attack made for the task's modality?"""
    return fits(entry("tasks", task.name).modalities[0], entry("attacks", attack.name).modalities)


def plugin_names(cells: Iterable[Cell]) -> set[str]:
    """The names of the tasks, attacks and defenses of these cells."""
    return {spec.name for cell in cells for spec in (cell.task, cell.attack, cell.defense)}


def groups(cells: Iterable[Cell]) -> Iterator[list[Cell]]:
    """Runs of cells that share a victim, in order."""
    run: list[Cell] = []
    for cell in cells:
        if run and cell.group != run[0].group:
            yield run
            run = []
        run.append(cell)
    if run:
        yield run


def _create(kind: str, spec: Spec) -> Plugin:
    from tasks.plugin import BadInput

    try:
        return create(kind, spec.name, dict(spec.options))
    except BadInput as error:
        raise BadGrid(str(error)) from None


def _list(tree: dict[str, Any], field: str) -> list[Any]:
    if field not in tree:
        raise BadGrid(f"{field}: missing; a grid has {', '.join(FIELDS[:5])}")
    value = tree[field]
    value = list(value) if isinstance(value, list | tuple | range) else [value]
    if not value:
        raise BadGrid(f"{field}: is empty; name at least one")
    return value


def _blocks(tree: dict[str, Any]) -> list[dict[str, Any]]:
    blocks = tree.get("also") or []
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise BadGrid(f"also: {blocks!r} is not a list of mappings with {', '.join(FIELDS[:5])}")
    for block in blocks:
        for key in block:
            if key not in FIELDS[:5]:
                raise BadGrid(suggest("also", key, FIELDS[:5]))
    return blocks


def _spec(kind: str, item: Any) -> Spec:
    if isinstance(item, str):
        item = {"name": item}
    if item is not None and not isinstance(item, dict | list | int | float):  # what YAML holds
        from harness.plugins import custom

        return custom.spec(kind, item)
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise BadGrid(f"{kind}: {item!r} is neither a name nor a mapping with `name` and options")
    name = item["name"]
    try:
        entry(kind, name)
    except UnknownName as error:
        raise BadGrid(str(error)) from error
    options = {k: v for k, v in item.items() if k != "name"}
    for key, value in options.items():
        if isinstance(value, dict):
            raise BadGrid(f"{kind}.{name}.{key}: {value!r} is a mapping; options are plain values or lists")
    return Spec(name, tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in sorted(options.items())))


def _count(field: str, item: Any) -> int:
    if isinstance(item, bool) or not isinstance(item, int) or item < 0:
        raise BadGrid(f"{field}: {item!r} is not a whole number of 0 or more")
    return item


def _check_pairs(tasks: tuple[Spec, ...], attacks: tuple[Spec, ...]) -> None:
    for attack in attacks:
        if not any(meets(task, attack) for task in tasks):
            kinds = ", ".join(entry("attacks", attack.name).modalities)
            fitting = [name for name in entries("tasks") if meets(Spec(name), attack)]
            raise BadGrid(
                f"attacks: {attack.name!r} is for {kinds} and no such task is listed; valid: {', '.join(fitting)}"
            )


def _check_target(attack: Any, tasks: list[Any]) -> None:
    """A target class that no task has is a mistake; where some have it, it is not applicable to the others."""
    classes = {task.name: type(task).classes for task in tasks}
    known = all(isinstance(names, tuple) and names for names in classes.values())  # not read from a user's files
    target = getattr(attack, "target", None)
    if known and isinstance(target, int) and all(target >= len(names) for names in classes.values()):
        valid = ", ".join(f"{name} has classes 0 to {len(names) - 1}" for name, names in classes.items())
        raise BadGrid(f"attacks.{attack.name}.target={target}: {valid}")


def split_change(change: str, example: str) -> tuple[str, Any]:
    """key=value, the value read as YAML. Raises BadGrid, with the example."""
    key, equals, text = change.partition("=")
    if not equals:
        raise BadGrid(f"--set {change!r}: write key=value, e.g. {example}")
    try:
        return key, _loaded(text, f"--set {change!r}")
    except yaml.YAMLError:
        raise BadGrid(f"--set {change!r}: the value is not readable as YAML") from None


def _apply(tree: dict[str, Any], change: str) -> None:
    """key=value: a grid field (doses=[0,5]), or an option of every entry of that name (digits.epochs=5)."""
    key, value = split_change(change, "doses=[0,5] or digits.epochs=5")
    name, dot, option = key.partition(".")
    if not dot:
        if key not in FIELDS:
            raise BadGrid(suggest("--set", key, FIELDS))
        tree[key] = value
        return
    names: set[str] = set()
    found = False
    for part in (tree, *_blocks(tree)):
        for kind in part.keys() & set(KINDS):
            items = part[kind] if isinstance(part[kind], list) else [part[kind]]
            for i, item in enumerate(items):
                spec = {"name": item} if isinstance(item, str) else item
                if isinstance(spec, dict):
                    names.add(spec.get("name", ""))
                    if spec.get("name") == name:
                        items[i], found = {**spec, option: value}, True
            part[kind] = items
    if not found:
        raise BadGrid(suggest("--set", name, names) + " (the plug-ins of this grid)")
