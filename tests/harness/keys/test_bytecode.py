"""What counts of a class of a notebook, beside what tests/harness/run/test_python.py shows."""

from __future__ import annotations

import re
import sys
from enum import Enum
from importlib import invalidate_caches
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from harness.keys.content import digest
from harness.keys.source import look_again

CELL = """
import functools
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar

import numpy as np
from defenses.base import Case, Defense
from tasks.deployed import Model
from tasks.plugin import options


def keeping(share):
    def decorate(function):
        @functools.wraps(function)
        def inside(*words):
            return function(*words), share, 0.25
        return inside
    return decorate


class Side(Enum):
    LEFT = 1
    _hidden = 2


@dataclass(frozen=True)
class Settings:
    rate: float = 0.5

    def twice(self):
        return 2 * self.rate, DEFAULT


DEFAULT = Settings(rate=0.75)
ARRAY, PATTERN, WORDS, PLACE, SIDE = np.arange(3), re.compile("a+"), {"x", "y"}, Path("/data"), Side.LEFT


@functools.cache
@keeping(0.125)
def helper(n):
    return n + 7


@options
class Mine(Defense):
    _alpha = 0.1
    __beta = 5

    @keeping(0.5)
    def defend(self, case: Case) -> Model:
        return case.fit(helper(3), ARRAY, PATTERN, WORDS, PLACE, SIDE, DEFAULT)
"""
CHANGES = [
    ("_alpha = 0.1", "_alpha = 0.2"),
    ("__beta = 5", "__beta = 6"),
    ("share, 0.25", "share, 0.5"),
    ("@keeping(0.5)", "@keeping(0.6)"),
    ("    @keeping(0.5)\n", ""),
    ("@keeping(0.125)", "@keeping(0.25)"),
    ("n + 7", "n + 8"),
    ("LEFT = 1", "LEFT = 3"),
    ("_hidden = 2", "_hidden = 3"),
    ("rate=0.75", "rate=0.8"),
    ("2 * self.rate", "3 * self.rate"),
    ("arange(3)", "arange(4)"),
    ('"a+"', '"b+"'),
    ('{"x", "y"}', '{"x", "z"}'),
    ('"/data"', '"/other"'),
]


def key(source: str) -> str:
    """The key of the class in a kernel that has just run this cell."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = kernel = ModuleType("__main__")
    try:
        exec(compile(source, "<cell>", "exec", dont_inherit=True), vars(kernel))
        return digest(vars(kernel)["Mine"]())
    finally:
        sys.modules["__main__"] = main


@pytest.fixture(scope="module")
def before() -> str:
    return key(CELL)


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_what_changes_what_a_class_does_changes_its_key(old: str, new: str, before: str) -> None:
    assert old in CELL
    assert key(CELL.replace(old, new, 1)) != before


def test_a_cell_that_is_run_again_has_its_key(before: str) -> None:
    assert key("\n# again\n" + CELL) == before


@pytest.mark.parametrize("how", ["from hN import f", "import hN", "from kN import h", "import kN.h"])
def test_a_helper_imported_inside_a_method_counts(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = f"inside_{abs(hash(how))}"
    monkeypatch.syspath_prepend(str(tmp_path))
    cell = CELL.replace("        return case.fit(", f"        {how}\n        return case.fit(").replace("N", number)
    (tmp_path / f"k{number}").mkdir()
    found = []
    for value in (1, 2, 1):
        for file in (tmp_path / f"h{number}.py", tmp_path / f"k{number}" / "h.py"):
            file.write_text(f"def f():\n    return {value}\n")
        invalidate_caches()
        look_again()
        found.append(key(cell))
    assert found[0] == found[2] != found[1]


class Side(Enum):
    LEFT = 1
    RIGHT = 2


def test_values_that_hold_others_have_a_digest() -> None:
    values = [
        np.arange(3), np.arange(3.0), np.arange(3).reshape(1, 3), re.compile("a"), re.compile("a", re.IGNORECASE),
        {1, 2}, {1, 3}, frozenset(), Path("a"), Path("b"), Side.LEFT, Side.RIGHT,
    ]  # fmt: skip
    assert len(set(map(digest, values))) == len(values)
    assert digest({"a", "b", "c"}) == digest(frozenset(["c", "b", "a"]))
    with pytest.raises(TypeError, match="array of objects has no stable content"):
        digest(np.array([object()]))


def test_a_private_value_that_cannot_be_hashed_is_named() -> None:
    with pytest.raises(TypeError, match=r"Mine uses '_alpha', a object, whose content cannot be hashed; make it"):
        key(CELL.replace("_alpha = 0.1", "_alpha = object()"))
