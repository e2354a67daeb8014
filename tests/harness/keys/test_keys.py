"""Keys: what changes them, what does not, and that today's are those of yesterday.

A golden key that differs says that the code behind a result has changed. If that was meant, write the new ones down:
`python tests/harness/keys/test_keys.py`. The golden cell's numbers must stay, unless a result was meant to change.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import invalidate_caches
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.cell import steps
from harness.cell.case import Fitter
from harness.grid.grid import GRADING, expand
from harness.grid.mapping import grid_from_mapping
from harness.keys import source
from harness.keys.seeds import derive
from harness.keys.source import import_closure, source_hash
from harness.plugins.registry import KINDS, create
from harness.store.folder import Store

GOLDEN = Path(__file__).parent / "golden"
CPU = torch.device("cpu")
NUMBERS = count()  # of packages: what is known of a module is kept for the life of a process
GRID = {
    "tasks": [{"name": "digits", "train_size": 200, "epochs": 1}, {"name": "synthetic_reviews", "train_size": 100}],
    "attacks": ["badnets", "badwords"],
    "doses": [5],
    "defenses": ["none", {"name": "outlier", "share": 0.1}],
    "seeds": [0],
}


def keys_of_today() -> dict[str, str]:
    """Four cells and two victims."""
    keys = {cell.label: cell.key for cell in expand(grid_from_mapping(GRID))}
    for options in GRID["tasks"]:
        name = options["name"]  # type: ignore[index]
        task: Any = create("tasks", name, {k: v for k, v in options.items() if k != "name"})  # type: ignore[attr-defined]
        fit = Fitter(task, Store(Path()), CPU, 0)
        keys[f"victim of {name}"] = fit.key(task.load().train, task.recipe(), 0, None, None)
    return keys


def numbers_of_the_cell(folder: Path) -> dict[str, Any]:
    """What one small cell gives, and the content of its training set."""
    task, attack, defense = (create(k, n) for k, n in zip(KINDS, ("digits", "badnets", "none"), strict=True))
    result = steps.run_steps(task, attack, 60, defense, 3, Store(folder), CPU)  # type: ignore[arg-type]
    numbers = {name: [metric.value, metric.n] for name, metric in sorted(result.metrics.items())}
    return {"dataset": result.dataset, "train_size": result.train_size, "metrics": numbers}


def test_keys_are_the_golden_ones() -> None:
    assert keys_of_today() == json.loads((GOLDEN / "keys.json").read_text()), __doc__


def test_the_golden_cell_gives_its_numbers(tmp_path: Path) -> None:
    golden, found = json.loads((GOLDEN / "cell.json").read_text()), numbers_of_the_cell(tmp_path)
    assert found["dataset"] == golden["dataset"]
    assert found["metrics"].keys() == golden["metrics"].keys()
    for name, (value, n) in golden["metrics"].items():
        assert found["metrics"][name][1] == n, name
        # What is computed from data alone is exact; a victim's answers may differ in a few rows between processors.
        trained = name.startswith(("asr", "utility"))
        assert found["metrics"][name][0] == pytest.approx(value, abs=0.03 if trained else 1e-6), name


def test_derived_seeds_differ_and_stay() -> None:
    assert len({derive(s, label) for s in range(20) for label in ("poison", "inject", "defense")}) == 60
    assert derive(3, "poison", "badnets") == 51809683024802591


@pytest.fixture
def hash_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Source hash of module `entry` among files of a user's own, each call in a package of another name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def of(entry: str, files: dict[str, str]) -> str:
        package = f"probe_{next(NUMBERS)}"
        for name, text in files.items():
            file = tmp_path / package / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("HERE", package))
        invalidate_caches()
        return source_hash(f"{package}.{entry}")

    return of


HELPER = "def scale(x):\n    return 2 * x\n"
USER = "from __future__ import annotations\nimport math\nfrom HERE.helper import scale\ny = scale(math.pi)\n"


def test_moving_a_file_changes_no_hash(hash_of: Callable[..., str]) -> None:
    before = hash_of("user", {"user.py": USER, "helper.py": HELPER})
    moved = USER.replace("HERE.helper", "HERE.deep.other")
    assert hash_of("user", {"user.py": moved, "deep/other.py": HELPER}) == before
    assert hash_of("a.b.c", {"a/b/c.py": USER, "helper.py": HELPER}) == before
    assert hash_of("user", {"user.py": USER.replace("HERE.helper", ".helper"), "helper.py": HELPER}) == before
    late = "from __future__ import annotations\nfrom HERE.helper import scale\nimport math\ny = scale(math.pi)\n"
    assert hash_of("user", {"user.py": late, "helper.py": HELPER}) == before, "the order of imports does nothing"


def test_comments_docstrings_and_type_checking_change_no_hash(hash_of: Callable[..., str]) -> None:
    before = hash_of("user", {"user.py": USER, "helper.py": HELPER})
    said = HELPER.replace("    return", '    """Doc."""\n    # why\n    return')
    assert hash_of("user", {"user.py": '"""Doc."""\n' + USER, "helper.py": said}) == before
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from HERE.far import Thing\n" + USER
    plain = "from typing import TYPE_CHECKING\n" + USER
    far = {"helper.py": HELPER, "far.py": "Thing = int\n"}
    assert hash_of("user", {"user.py": typed, **far}) == hash_of("user", {"user.py": plain, **far})


@pytest.mark.parametrize("guard", ["if TYPE_CHECKING:\n    pass\nelse:\n", "if not TYPE_CHECKING:\n"])
def test_what_runs_beside_type_checking_counts(hash_of: Callable[..., str], guard: str) -> None:
    text = f"from typing import TYPE_CHECKING\n{guard}    rate = 1\n"
    assert hash_of("user", {"user.py": text}) != hash_of("user", {"user.py": text.replace("= 1", "= 2")})


@pytest.mark.parametrize("folder", ["", "apart"])  # beside the plug-in's file, or in a folder without __init__.py
def test_a_plugin_of_one_file_counts_what_it_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    hashes = []
    for factor in (2, 3, 3):
        number = next(NUMBERS)
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"helper_{number}.py").write_text(f"def scale(x):\n    return {factor} * x\n")
        where = f"{folder}.helper_{number}".strip(".")
        (tmp_path / f"plugin_{number}.py").write_text(f"import torch\nfrom {where} import scale\n")
        invalidate_caches()
        hashes.append(source_hash(f"plugin_{number}"))
    assert hashes[0] != hashes[1] == hashes[2]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("helper.py", "2 * x", "3 * x"),  # what is imported
        ("user.py", "math.pi", "math.e"),  # the file itself
        ("user.py", "import math", "import cmath as math"),  # the same name from another library
        ("user.py", "import scale", "import half as scale"),  # another name from the same file
        ("user.py", "HERE.helper", "HERE.twin"),  # the same name from another file that is reached as well
    ],
)
def test_what_changes_a_hash(hash_of: Callable[..., str], file: str, old: str, new: str) -> None:
    files = {
        "user.py": USER + "from HERE.twin import other\n",
        "helper.py": HELPER + "def half(x):\n    return x / 2\n",
        "twin.py": "from HERE.helper import half as other\ndef scale(x):\n    return 5 * x\n",
    }
    before = hash_of("user", files)
    assert old in files[file]
    assert hash_of("user", {**files, file: files[file].replace(old, new)}) != before


def test_a_cell_counts_what_its_metrics_compute_with(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = frozenset().union(*map(import_closure, GRADING))
    assert "harness.keys.seeds" in reached
    assert not any(m.startswith("harness.") for m in reached - set(GRADING)), "storing and showing change no number"
    assert {"tasks.text._texts", "tasks.fluency"} <= import_closure("tasks.text.sst2"), "a task measures fidelity"
    assert {"tasks.audio._sounds", "tasks.spectrogram"} <= import_closure("tasks.audio_generation.fsdd_synthesiser")
    reached = import_closure("attacks.image.badnets")
    assert {"attacks.image.badnets", "attacks.base", "tasks.base"} <= reached
    assert not any(m.startswith(("harness", "defenses")) for m in reached)


def test_a_module_without_a_source_has_no_hash() -> None:
    with pytest.raises(TypeError, match="module 'math' has no source file"):
        source_hash("math")
    assert not source.is_own("json")


@pytest.mark.parametrize("recorded", [True, False])
def test_what_pip_put_into_a_folder_of_any_name_is_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    """As with `pip install --target`, where machines share nothing: keys must be those of any other installation."""
    monkeypatch.syspath_prepend(str(tmp_path))
    number = next(NUMBERS)
    for file, text in {
        f"library_{number}/__init__.py": "", f"single_{number}.py": "", f"mine_{number}.py": "",
        "some-1.0.dist-info/RECORD": f"library_{number}/__init__.py,sha256=x,0\nsingle_{number}.py,,\n" * recorded,
    }.items():  # fmt: skip
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    invalidate_caches()
    found = [source.is_own(f"{name}_{number}") for name in ("library", "single", "mine")]
    assert found == [not recorded, not recorded, True]


if __name__ == "__main__":
    from tempfile import TemporaryDirectory

    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        for name, value in {"keys": keys_of_today(), "cell": numbers_of_the_cell(Path(folder))}.items():
            (GOLDEN / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")
    sys.exit(0)
