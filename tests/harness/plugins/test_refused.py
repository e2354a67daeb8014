"""Plug-ins that could not mean what they say are refused when they are registered, in one line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from helpers import invoke

from attacks.base import Attack
from attacks.image.badnets import Badnets
from defenses.base import Defense
from harness.errors import BadGrid, BadPlugin
from harness.grid.grid import expand
from harness.grid.mapping import grid_from_mapping
from harness.plugins import custom, registry
from tasks.files import named_files
from tasks.plugin import options

NUMBERS = count()
DEFENSE = """
from defenses.base import Defense
from tasks.plugin import options
HEAD


@options
class Mine(Defense):
    BODY

    def defend(self, case):
        return case.fit(case.train)
"""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before, plugins, path = set(sys.modules), dict(registry.CUSTOM), list(sys.path)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) is None or "pytest-" in str(sys.modules[name].__file__):
            del sys.modules[name]
    registry.CUSTOM.clear()
    registry.CUSTOM.update(plugins)
    registry.clear_caches()
    sys.path[:] = path


def plugin_file(folder: Path, head: str = "", body: str = "share: float = 0.5") -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"refused_{next(NUMBERS)}.py"
    file.write_text(DEFENSE.replace("HEAD", head).replace("BODY", body))
    return file


@pytest.mark.parametrize(
    "head", ["import sys\nsys.exit()", "import argparse\nargparse.ArgumentParser().parse_args(['--no'])", "quit()"]
)
def test_a_file_that_ends_python_is_refused(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = plugin_file(tmp_path, head)
    reason = r"ends Python when it is imported \(SystemExit\); put that under if __name__ == '__main__'"
    for words in (("run", "quickstart", "--dry-run", "--plugin", file), ("check", file)):
        with pytest.raises(BadPlugin, match=rf"--plugin {file}: it {reason}"):
            invoke(*words)
    assert file.stem not in sys.modules
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BadPlugin, match=reason):
        custom.add(f"{file.stem}:Mine")


@pytest.mark.parametrize(
    ("use", "lies"),
    [
        ("import LIBS.h", "LIBS/h.py"), ("from LIBS.h import S", "LIBS/h.py"), ("from LIBS import h", "LIBS/h.py"),
        ("from LIBS.h import S", "LIBS/h/__init__.py"), ("from LIBS import S", "LIBS/__init__.py"),
    ],
)  # fmt: skip
def test_packages_of_one_name_in_two_folders_are_not_taken_for_each_other(use: str, lies: str, tmp_path: Path) -> None:
    libs = f"libs_{next(NUMBERS)}"
    for folder in (tmp_path / "one", tmp_path / "two"):
        helper = folder / lies.replace("LIBS", libs)
        helper.parent.mkdir(parents=True)
        helper.write_text("S = 1")
    head = use.replace("LIBS", libs)
    custom.add(plugin_file(tmp_path / "one", head))
    custom.add(plugin_file(tmp_path / "one", head))  # whose helper it is
    with pytest.raises(BadPlugin, match=rf"'{libs}(\.h)?' is imported from .*one.*, not from .*two.*; rename one"):
        custom.add(plugin_file(tmp_path / "two", head))


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("'/'", "files() returned '/'; return a list of paths"),
        ("None", "files() returned None; return a list of paths"),
        ("[3]", "files() returned [3]; return a list of paths"),
        ("['/nowhere/at/all']", "files() names '/nowhere/at/all', which is not there"),
    ],
)
def test_files_that_are_none_are_refused(returned: str, reason: str, tmp_path: Path) -> None:
    file = plugin_file(tmp_path, body=f"def files(self):\n        return {returned}")
    name = custom.add(file)
    grid = {"tasks": ["digits"], "attacks": ["badnets"], "doses": [1], "defenses": [name], "seeds": [0]}
    with pytest.raises(BadGrid, match=re.escape(f"{name}.{reason}")):
        expand(grid_from_mapping(grid))


def test_files_are_named_by_texts_or_paths(tmp_path: Path) -> None:
    name = custom.add(plugin_file(tmp_path, body=f"def files(self):\n        return [{str(tmp_path)!r}]"))
    assert named_files(registry.create("defenses", name)) == [str(tmp_path)]


def test_words_that_the_harness_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPlugin, match=r"Mine: modalities = 'image' is no tuple of texts; write `modalities = \('im"):
        custom.add(plugin_file(tmp_path, body="modalities = 'image'"))
    assert type("Fine", (Defense,), {"modalities": ("image",)})
    for alters in ((), ("poison",), ("poison", "challenge")):
        assert type("Fine", (Attack,), {"alters": alters})
    wrong: dict[Any, str] = {
        "poison": r"alters = 'poison' is no tuple of texts; write `alters = \('poison',\)`",
        ("trigger", "poison"): "alters = .* holds 'trigger'; valid are poison, challenge",
    }
    for alters, reason in wrong.items():
        with pytest.raises(TypeError, match=f"Mine: {reason}"):
            type("Mine", (Attack,), {"alters": alters})


def test_a_new_default_without_its_type_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Mine: target = 4 has no type, .*old default; write `target: ClassRef = 4`"):

        @options
        class Mine(Badnets):
            target = 4

    @options
    class Fine(Badnets):
        modalities = ("image",)
        size: int = 1

    assert Fine().size == 1
