"""Code that a plug-in imports counts wherever it lies; code that was edited after it was imported is not run as new."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module, invalidate_caches, reload
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from helpers import grid_file, tinydrop

from harness.cell import steps
from harness.errors import BadGrid, BadPlugin
from harness.grid.grid import expand
from harness.grid.mapping import grid_from_mapping
from harness.keys.source import import_closure, look_again, source_hash
from harness.plugins import custom, registry
from harness.run import run

NUMBERS = count(1000)  # of modules that no library has the name of
PLUGIN = """
from typing import ClassVar

import torch
from defenses.base import Case, Defense
from tasks.deployed import Model
from tasks.plugin import options
IMPORT


@options
class NAME(Defense):
    '''Drops a share of the rows.'''

    stage: ClassVar[str] = "filtering"
    paper: ClassVar[str] = "none"

    def defend(self, case: Case) -> Model:
        score = torch.rand(len(case.train), generator=case.rng)
        case.report(train=score, flagged=score < SHARE)
        return case.fit(case.train)
"""
SMALL = {"name": "digits", "train_size": 60, "epochs": 1, "reserve_size": 20, "test_size": 20}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python imports from; modules and plug-ins of the test are gone after it."""
    before, plugins, path = set(sys.modules), dict(registry.CUSTOM), list(sys.path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    registry.CUSTOM.clear()
    registry.CUSTOM.update(plugins)
    registry.clear_caches()
    sys.path[:] = path
    look_again()


def write(folder: Path, files: dict[str, str], number: int) -> None:
    """The files, with N in names and texts replaced by the number."""
    for name, text in files.items():
        file = folder / name.replace("N", str(number))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("N", str(number)))
    invalidate_caches()


HELPERS: dict[str, dict[str, str]] = {
    "beside it": {"pN.py": "from hN import S", "hN.py": "S = 1"},
    "used by attribute": {"pN.py": "import hN\nx = hN.S", "hN.py": "S = 1"},
    "under another name": {"pN.py": "import hN as other", "hN.py": "S = 1"},
    "with all its names": {"pN.py": "from hN import *", "hN.py": "S = 1"},
    "of a helper": {"pN.py": "import aN", "aN.py": "from bN import *", "bN.py": "import hN", "hN.py": "S = 1"},
    "inside a function": {"pN.py": "def f():\n    from hN import S", "hN.py": "S = 1"},
    "in a package": {"pN.py": "from kN.hN import S", "kN/__init__.py": "", "kN/hN.py": "S = 1"},
    "in a folder that is none": {"pN.py": "from kN import hN", "kN/hN.py": "S = 1"},
    "deep in a package": {"pN.py": "import kN.d.hN", "kN/__init__.py": "", "kN/d/hN.py": "S = 1"},
    "the package around it": {"pN.py": "import kN.a\nx = kN.S", "kN/__init__.py": "S = 1", "kN/a.py": ""},
    "if there": {"pN.py": "try:\n    import hN\nexcept ImportError:\n    pass", "hN.py": "S = 1"},
    "by import_module": {"pN.py": "from importlib import import_module\nx = import_module('hN')", "hN.py": "S = 1"},
    "by __import__": {"pN.py": "x = __import__('hN')", "hN.py": "S = 1"},
}  # fmt: skip


@pytest.mark.parametrize("where", HELPERS)
def test_a_helper_counts(where: str, here: Path) -> None:
    assert_counts(here, HELPERS[where], "pN")


@pytest.mark.parametrize("relative", ["from .h import S", "from . import h", "from .d.h import S", "from .. import h"])
def test_a_helper_of_the_same_package_counts(relative: str, here: Path) -> None:
    files = {"kN/__init__.py": "", "kN/e/__init__.py": "", "kN/e/p.py": relative}
    assert_counts(here, files | dict.fromkeys(("kN/h.py", "kN/e/h.py", "kN/e/d/h.py"), "S = 1"), "kN.e.p")


def assert_counts(here: Path, files: dict[str, str], module: str) -> None:
    """The hash of the module follows S, and nothing else."""
    number, hashes = next(NUMBERS), []
    for text in ("S = 1", "S = 2", "S = 2  # still", "S = 1"):
        write(here, {name: body.replace("S = 1", text) for name, body in files.items()}, number)
        look_again()
        hashes.append(source_hash(module.replace("N", str(number))))
    assert hashes[0] != hashes[1] == hashes[2]
    assert hashes[0] == hashes[3]


def test_a_changed_helper_runs_the_cell_again(tmp_path: Path) -> None:
    text = PLUGIN.replace("IMPORT", "from helper_mod import SHARE").replace("NAME", "ModDef")
    (tmp_path / "mod_def.py").write_text(text)
    grid = grid_file(tmp_path, tasks=[SMALL], doses=[0], defenses=["mod_def"], seeds=[0])
    found = []
    for share in ("0.1", "0.5125"):
        (tmp_path / "helper_mod.py").write_text(f"SHARE = {share}\n")
        words = ("run", grid, "--plugin", "mod_def.py", "--out", "run", "--jobs", 0)
        tinydrop(*words, cwd=tmp_path, check=True, PYTHONSAFEPATH="1")  # as for the installed command
        records = [json.loads(p.read_text()) for p in (tmp_path / "run" / "records").glob("*.json")]
        found.append(sorted(round(r["metrics"]["train_fpr"]["value"], 1) for r in records))
    assert [len(rates) for rates in found] == [1, 2]
    assert found[0][0] < 0.3 < found[1][1]


def test_a_helper_of_a_class_named_with_its_module_counts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = next(NUMBERS)
    text = PLUGIN.replace("IMPORT", f"from lies_{number} import SHARE").replace("NAME", f"Here{number}")
    write(here / "cwd", {"in_N.py": text, "lies_N.py": "SHARE = 0.1"}, number)
    monkeypatch.chdir(here / "cwd")
    custom.add(f"in_{number}:Here{number}")
    assert f"lies_{number}" in import_closure(f"in_{number}")


def test_helpers_of_one_name_in_two_folders_are_not_taken_for_each_other(here: Path) -> None:
    number = next(NUMBERS)
    for folder, name in (("one", f"First{number}"), ("two", f"Second{number}")):
        text = PLUGIN.replace("IMPORT", f"from shared_{number} import SHARE").replace("NAME", name)
        write(here, {f"{folder}/{name.lower()}.py": text, f"{folder}/shared_{number}.py": "SHARE = 0.1"}, number)
    custom.add(here / "one" / f"first{number}.py")
    with pytest.raises(BadPlugin, match=rf"'shared_{number}' is imported from .*one.*, not from .*two.*; rename one"):
        custom.add(here / "two" / f"second{number}.py")


@pytest.fixture
def defense(here: Path) -> Callable[[], Any]:
    """Makes an object of a plug-in class in plug_N.py, whose helper help_N.py is changed by its tests."""
    number = next(NUMBERS)
    text = PLUGIN.replace("IMPORT", f"from help_{number} import SHARE").replace("NAME", f"Plug{number}")
    write(here, {"plug_N.py": text, "help_N.py": "SHARE = 0.1  # of rows"}, number)

    def make() -> Any:
        return getattr(import_module(f"plug_{number}"), f"Plug{number}")()

    return make


def keys(plugin: Any) -> set[str]:
    grid = {"tasks": ["digits"], "attacks": ["badnets"], "doses": [1], "defenses": [plugin], "seeds": [0]}
    return {cell.key for cell in expand(grid_from_mapping(grid))}


def helper_of(plugin: Any) -> Path:
    (name,) = (name for name in import_closure(type(plugin).__module__) if name.startswith("help_"))
    return Path(str(sys.modules[name].__file__))


def test_a_helper_edited_after_its_import_is_refused(defense: Callable[[], Any]) -> None:
    plugin = defense()
    before = keys(plugin)
    helper = helper_of(plugin)
    helper.write_text("# Another comment\nSHARE = 0.1\n")
    assert keys(plugin) == before
    helper.write_text("SHARE = 0.5\n")
    with pytest.raises(BadGrid, match=rf"{helper} was edited after it was imported.*; start Python again") as refused:
        keys(plugin)
    assert "\n" not in str(refused.value)
    assert keys("none"), "a grid without it runs"
    helper.unlink()
    with pytest.raises(BadGrid, match=r"was edited after it was imported|no source file"):
        keys(plugin)
    helper.write_text("SHARE = 0.1\n")
    assert keys(plugin) == before, "the edit is taken back"


def test_a_constant_edited_between_its_import_and_the_first_run_is_refused(
    defense: Callable[[], Any], here: Path
) -> None:
    plugin = defense()
    (helper,) = here.glob("help_*.py")
    helper.write_text("SHARE = 0.5125\n")
    for _ in range(2):
        with pytest.raises(BadGrid, match="was edited after it was imported"):
            keys(plugin)
    reload(sys.modules[helper.stem])
    reload(sys.modules[type(plugin).__module__])
    assert keys(defense())


def test_a_plug_in_that_was_reloaded_with_its_helper_is_new(defense: Callable[[], Any]) -> None:
    old = defense()
    before = keys(old)
    helper = helper_of(old)
    helper.write_text("SHARE = 0.5125\n")
    reload(sys.modules[helper.stem])
    with pytest.raises(BadGrid, match="was edited after it was imported"):
        keys(old)  # the plug-in still has the number that it imported
    reload(sys.modules[type(old).__module__])
    with pytest.raises(BadPlugin, match="was imported again since; make the object anew"):
        keys(old)
    new = defense()
    assert keys(new) != before
    assert keys(new) == keys(new)
    helper.write_text("SHARE = 0.75\n")
    with pytest.raises(BadGrid, match="was edited after it was imported"):
        keys(new)


def test_a_helper_that_is_not_imported_yet_may_change(here: Path) -> None:
    number = next(NUMBERS)
    write(here, {"pN.py": "def f():\n    from hN import S", "hN.py": "S = 1"}, number)
    before = source_hash(f"p{number}")
    import_module(f"p{number}")
    write(here, {"hN.py": "S = 2"}, number)
    look_again()
    assert source_hash(f"p{number}") != before


def test_broken_code_is_named(here: Path) -> None:
    number = next(NUMBERS)
    write(here, {"pN.py": "def f():\n    from hN import S", "hN.py": "\nS = = 1"}, number)
    with pytest.raises(TypeError, match=rf"h{number}\.py, line 2: invalid syntax"):
        source_hash(f"p{number}")


TABLE = "text,label\n" + "".join(f"good film {i},a\nbad film {i},b\n" for i in range(40))


def texts(folder: Path, **options: Any) -> dict[str, Any]:
    (folder / "rows.csv").write_text(TABLE)
    task = {
        "name": "csv_text",
        "path": str(folder / "rows.csv"),
        "reserve_size": 10,
        "epochs": 1,
        "width": 8,
    }
    return {
        "tasks": [{**task, **options}], "attacks": ["badwords"], "doses": [2], "defenses": ["none"], "seeds": [0],
    }  # fmt: skip


def test_a_table_rewritten_between_two_runs_of_a_process_is_run_anew(tmp_path: Path) -> None:
    grid = texts(tmp_path)
    first = run(grid, out=tmp_path / "run")
    (tmp_path / "rows.csv").write_text(TABLE.replace("good film", "fine film"))
    again = run(grid, out=tmp_path / "run")
    assert not "".join([*first.reason, *again.reason])
    assert [list(cells.status) for cells in (first, again)] == [["done"], ["done"]]
    assert set(first.key) != set(again.key)
    assert set(first.data) != set(again.data)
    (tmp_path / "rows.csv").write_text(TABLE)
    assert set(run(grid, out=tmp_path / "run").key) == set(first.key)


@pytest.mark.parametrize("when", ["before the cell", "during the cell"])
def test_files_that_change_while_a_grid_runs_fail_its_cells(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = texts(tmp_path)
    step = "run_steps" if when == "before the cell" else "_grade"
    real = getattr(steps, step)
    changes = iter(["fine film", "nice film"])

    def change(*args: Any, **more: Any) -> Any:
        (tmp_path / "rows.csv").write_text(TABLE.replace("good film", next(changes)))
        return real(*args, **more)

    monkeypatch.setattr(steps, step, change)
    cells = run({**grid, "defenses": ["none", "oracle"]} if when == "before the cell" else grid, out=tmp_path / "run")
    assert set(cells.status) == {"failed"}
    assert all("rows.csv changed while the grid ran; run the same command again" in reason for reason in cells.reason)
    monkeypatch.setattr(steps, step, real)
    assert set(run(grid, out=tmp_path / "run").status) == {"done"}, "the same command just runs"


def test_a_path_with_a_variable_that_is_not_set_is_refused_before_a_grid_starts(tmp_path: Path) -> None:
    grid = texts(tmp_path, path="$NOWHERE_AT_ALL/rows.csv")
    with pytest.raises(
        BadGrid,
        match=r"csv_text\.path='\$NOWHERE_AT_ALL/rows.csv': the .* \$NOWHERE_AT_ALL is not set",
    ):
        run(grid, out=tmp_path / "run")
