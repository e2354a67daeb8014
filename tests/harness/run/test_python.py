"""Grids from Python: objects without registration, of scripts and notebooks, whose code counts in every key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from helpers import ROOT, invoke

from harness.errors import BadGrid, BadPlugin, Refused
from harness.grid.grid import expand, plugin_names
from harness.grid.mapping import grid_from_mapping
from harness.keys.content import digest
from harness.plugins import custom, registry
from harness.plugins.registry import create

TINY = {
    "tasks": [{"name": "digits", "train_size": 150, "epochs": 1, "reserve_size": 60}],
    "attacks": ["badnets"], "doses": [3], "defenses": ["none"], "seeds": [0],
}  # fmt: skip
DEFENSE = '''
from typing import ClassVar
from defenses.base import Case, Defense
from tasks.plugin import Share, options
from tasks.deployed import Model


@options
class FirstPart(Defense):
    """Trains on the first part of the training set only."""

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "filtering"
    least: ClassVar[int] = 10

    share: Share = 0.5

    def defend(self, case: Case) -> Model:
        return case.fit(case.train.select(range(rows(self.share, case.train))))  # keep


def rows(share, train):
    """How many."""
    return max(LEAST, (lambda n: int(share * n))(len(train)))


LEAST = 5
train = object()  # a global that no code names, though an attribute is called so
'''
SCRIPT = f"""{DEFENSE}
from harness.run import run

if __name__ == "__main__":
    import sys
    jobs = int(sys.argv[1])
    cells = run({TINY!r}, defenses=[FirstPart(share=0.4)], out=sys.argv[2], jobs=jobs)
    print(*cells.defense, *cells.status, sep=", ")
"""


def python(*words: object, **env: str) -> CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT), **env}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)


def notebook(source: str) -> dict[str, Any]:
    """The names that cells of this source leave behind: of `__main__`, and in no file."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<cell>", "exec", dont_inherit=True), names)
    return names


@pytest.fixture(autouse=True)
def _nothing_given() -> Any:
    yield
    registry.CUSTOM.clear()
    registry.clear_caches()


def test_a_script_hands_an_object_over_and_the_command_line_goes_on_from_there(tmp_path: Path) -> None:
    script, folder = tmp_path / "mine.py", tmp_path / "run"
    script.write_text(SCRIPT)
    for jobs in (1, 0):
        done = python(script, jobs, folder)
        assert done.stdout.splitlines()[-1] == "none, first_part(share=0.4), done, done", done.stderr
    records = [json.loads(p.read_text()) for p in (folder / "records").glob("*.json")]
    assert len(records) == 2, "what a worker ran was not run again here"
    mine = next(r for r in records if r["defense"]["name"] == "first_part")
    assert mine["defense"]["options"] == {"share": 0.4}
    assert mine["provenance"]["settings"]["plugins"] == ["__main__:FirstPart"]

    counts = json.loads(invoke("status", folder, "--json").stdout)
    assert counts["done"] == counts["total"] == 2
    assert invoke("report", folder).exit_code == 0
    assert "first_part(share=0.4)" in (folder / "report" / "summary.csv").read_text()
    assert invoke("verify", folder).exit_code == 0
    with pytest.raises(Refused, match="unknown 'first_part'") as refused:
        invoke("retry", folder)
    assert "name it with --plugin, or call harness.run.run again" in str(refused.value)


def test_workers_cannot_import_what_stands_in_no_file(tmp_path: Path) -> None:
    done = python("-c", SCRIPT, 1, tmp_path / "run")
    assert "jobs=1: workers cannot import __main__:FirstPart; use jobs=0, or write it to first_part.py" in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_object_of_a_module_has_the_keys_of_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "first_part.py").write_text(DEFENSE)
    monkeypatch.syspath_prepend(tmp_path)
    import first_part  # type: ignore[import-not-found]

    handed = grid_from_mapping(
        {**TINY, "defenses": ["none", first_part.FirstPart(share=0.4), create("defenses", "nad")]}
    )
    assert [s.label for s in handed.defenses] == ["none", "first_part(share=0.4)", "nad"]
    keys = [cell.key for cell in expand(handed)]
    assert custom.worker_sources(plugin_names(expand(handed)), jobs=2) == ("first_part:FirstPart",)
    del sys.modules["first_part"]
    registry.CUSTOM.clear()
    registry.clear_caches()
    custom.add(tmp_path / "first_part.py")
    written = grid_from_mapping({**TINY, "defenses": ["none", {"name": "first_part", "share": 0.4}, "nad"]})
    assert [cell.key for cell in expand(written)] == keys
    del sys.modules["first_part"]


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# keep", "# another comment", True),
        ('"""How many."""', '"""Said otherwise."""', True),
        ("train = object()", "train = 3", True),
        ("LEAST = 5", "LEAST = 6", False),
        ("int(share * n)", "int(share * n) + 1", False),
        ("max(LEAST", "min(LEAST", False),
        ("least: ClassVar[int] = 10", "least: ClassVar[int] = 11", False),
        ("share: Share = 0.5", "share: Share = 0.6", False),
    ],
)
def test_what_a_class_of_a_notebook_does_counts_in_its_key(old: str, new: str, same: bool) -> None:
    assert old in DEFENSE
    first, second = notebook(DEFENSE), notebook("\n\n" + DEFENSE.replace(old, new))
    assert (digest(first["FirstPart"]()) == digest(second["FirstPart"]())) == same
    assert digest(first["rows"]) != digest(first["FirstPart"]())


def test_a_cell_that_is_run_again_takes_over() -> None:
    tree = {**TINY, "defenses": ["none"]}
    keys = []
    for source in (DEFENSE, DEFENSE.replace("LEAST = 5", "LEAST = 6"), DEFENSE):
        handed = grid_from_mapping({**tree, "defenses": [notebook(source)["FirstPart"]()]})
        keys.append(expand(handed)[0].key)
    assert keys[0] == keys[2] != keys[1]


def test_what_cannot_be_handed_over_is_refused_in_one_line() -> None:
    names = notebook(DEFENSE)
    taken = notebook(DEFENSE.replace("FirstPart", "Nad"))
    lost = notebook(DEFENSE.replace("LEAST = 5", "LEAST = object()"))
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"defenses": [taken["Nad"]()]}, BadPlugin, "defenses: __main__:Nad: 'nad' is already defenses.repair.nad"),
        ({"defenses": [names["FirstPart"]]}, BadGrid, "FirstPart is a class; hand over an object: FirstPart(...)"),
        ({"attacks": [names["FirstPart"]()]}, BadGrid, "attacks: FirstPart(share=0.5) is neither a name"),
        ({"defenses": [lost["FirstPart"]()]}, BadGrid, "rows uses 'LEAST', a object, whose content cannot be hashed"),
    ]
    for change, kind, reason in wrong:
        with pytest.raises(kind) as error:
            expand(grid_from_mapping({**TINY, **change}))
        assert reason in str(error.value)
        assert "\n" not in str(error.value)
    from harness.run.api import run

    with pytest.raises(BadGrid, match="out: missing"):
        run(TINY)


def test_workers_and_devices_that_are_none_are_refused(tmp_path: Path) -> None:
    from harness.run.api import run

    with pytest.raises(BadGrid, match="jobs=-1: 0 runs in this process"):
        run(TINY, out=tmp_path / "run", jobs=-1)
    with pytest.raises(BadGrid, match="device='gpu': valid are auto, cpu, cuda"):
        run(TINY, out=tmp_path / "run", device="gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    from harness.run.api import run

    with pytest.raises(BadGrid, match="device cuda: no GPU is visible here; use device cpu"):
        run(TINY, out=tmp_path / "run", jobs=1, device="cuda")
    assert not (tmp_path / "run").exists()
