"""No value that a plug-in raises, reports or is called brings down a run, its folder or its table."""

from __future__ import annotations

import csv
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attacks.image.badnets import Badnets
from defenses.base import Case, Defense
from defenses.controls.none import None_
from harness.errors import BadGrid, BadPlugin
from harness.run import run
from harness.run.record_cell import reason_of
from harness.run.script import refuse_unguarded_script
from harness.store import ledger, records
from harness.store.folder import Store
from tasks.deployed import Model
from tasks.plugin import BadInput, NotApplicable, options
from tests.helpers import invoke

TASK = {"name": "digits", "train_size": 100, "test_size": 40, "epochs": 1}
GRID: dict[str, Any] = {"tasks": [TASK], "attacks": ["badnets"], "doses": [3], "defenses": ["none"], "seeds": [0]}


class Silent(ValueError):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class NoException(BaseException):
    """As those of libraries in Rust."""


ODD: dict[str, tuple[BaseException, str]] = {
    "silent": (Silent(), "Silent: (an error whose text cannot be read: RuntimeError)"),
    "empty": (ValueError(), "ValueError: no message"),
    "key": (KeyError("x"), "KeyError: 'x'"),
    "huge": (ValueError("ab " * 300_000), "ValueError: ab ab ab"),
    "exit": (SystemExit(3), "SystemExit: 3"),
    "base": (NoException("panic"), "NoException: panic"),
    "lines": (BadInput("one\ntwo\x00\x1b[31m red"), r"one two\x00\x1b[31m red"),
    "bare": (BadInput(), "BadInput: no message"),
    "name": (OSError(2, "no such file", "caf\udce9"), r"caf\udce9"),
    "formula": (NotApplicable('=HYPERLINK("http://x.invalid","click")'), '=HYPERLINK("http://x.invalid","click")'),
    "nothing": (NotApplicable(), "its plug-in gives no reason"),
    "group": (ExceptionGroup("several", [ValueError("a")]), "ExceptionGroup: several"),
}


@options
class Raising(Defense):
    """Raises one of ODD."""

    stage = "filtering"
    what: str = ""

    def defend(self, case: Case[Any]) -> Model:
        raise ODD[self.what][0]


@options
class Reporting(Defense):
    """Reports a suspicion that is no number."""

    stage = "inspection"
    value: str = "nan"

    def defend(self, case: Case[Any]) -> Model:
        case.report(model=float(self.value))
        return case.fit(case.train)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A run in which all but one defense do something odd, and its cells."""
    out = tmp_path_factory.mktemp("odd") / "run"
    odd_ones = [*(Raising(what=what) for what in ODD), Reporting(value="-inf"), Reporting(value="inf"), None_()]
    return out, run({**GRID, "defenses": odd_ones}, out=out)


def test_every_odd_cell_is_recorded_and_the_last_one_runs(odd: tuple[Path, pd.DataFrame]) -> None:
    out, cells = odd
    reasons = dict(zip(cells.defense, cells.reason))
    for what, (_, reason) in ODD.items():
        found = reasons[f"raising(what={what})"]
        assert reason in found
        assert len(found) < 600
        assert found.isprintable()
    assert all("model" in reasons[f"reporting(value={value})"] for value in ("-inf", "inf"))
    assert cells.status.tolist()[-1] == "done"
    assert set(cells.status[cells.defense.str.startswith("reporting")]) == {"failed"}
    assert len(records.load_all(Store(out))) == len(cells)
    assert len(json.dumps(records.load_all(Store(out))[cells.key[3]].traceback)) < 200_000
    ledger.read_ledger(out)


def test_its_folder_can_be_looked_at_and_run_again(odd: tuple[Path, pd.DataFrame]) -> None:
    out, cells = odd
    for word in ("status", "report", "verify"):
        assert invoke(word, out).exit_code == 0, word
    for name in ("cells.csv", "summary.csv"):
        with (out / "report" / name).open() as file:
            assert not [text for row in csv.reader(file) for text in row if text[:1] in ("=", "+", "@")]
    from harness.report.cells import read_cells

    again = read_cells(out / "report" / "cells.csv")
    assert again.reason.tolist() == cells.reason.tolist(), "what is neutralised is read as it was"
    assert again.target_name.tolist()[-1] == "0"


def test_the_target_is_recorded_with_its_name(odd: tuple[Path, pd.DataFrame]) -> None:
    out, cells = odd
    done = cells[cells.status == "done"].iloc[0]
    assert (done.target, done.target_name) == (0, "0")
    assert "target class 0: 0" in invoke("show", out, done.key).output


def test_a_target_by_name_has_the_result_of_its_number(tmp_path: Path) -> None:
    cells = run({**GRID, "attacks": [Badnets(target=3), Badnets(target="3")]}, out=tmp_path)  # type: ignore[arg-type]
    by_number, by_name = (row for _, row in cells.iterrows())
    assert by_number.key != by_name.key
    assert (by_number.asr, by_number.utility) == (by_name.asr, by_name.utility)
    assert (by_name.attack, by_name.target, by_name.target_name) == ("badnets(target='3')", 3, "3")
    fits = [records.load_newest(Store(tmp_path), key).fits[0]["key"] for key in cells.key]  # type: ignore[union-attr]
    assert fits[0] == fits[1], "they share a victim"


def test_cells_run_outside_of_the_main_thread_and_without_a_limit(tmp_path: Path) -> None:
    found: list[pd.DataFrame] = []

    def go() -> None:
        with pytest.warns(UserWarning, match="not in the main thread: cells may take longer than the timeout of 5 s"):
            found.append(run({**GRID, "timeout": 5}, out=tmp_path))

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    assert found[0].status.tolist() == ["done"]


def test_a_folder_that_a_dose_beyond_64_bits_had_locked_works_again(tmp_path: Path) -> None:
    cells = run({**GRID, "doses": [0, 2]}, out=tmp_path)
    path = Store(tmp_path).record_path(cells.key[1])
    path.write_text(path.read_text().replace('"dose": 2,', '"dose": 100000000000000000000,'))
    with pytest.warns(UserWarning, match="damaged record"):
        assert "1 done" in invoke("status", tmp_path).output
    with pytest.warns(UserWarning, match="damaged record"):
        assert invoke("report", tmp_path).exit_code == 0
    with pytest.warns(UserWarning, match="damaged record"):
        assert run({**GRID, "doses": [0, 2]}, out=tmp_path).status.tolist() == ["done", "done"]


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ("call(2)", False),
        ("def main():\n    call(2)\nmain()", False),
        ("if True:\n    call(2)", False),
        ("if __name__ == '__main__':\n    call(2)", True),
        ("def main():\n    call(2)\nif __name__ == '__main__':\n    main()", True),
        ("import multiprocessing\nif multiprocessing.parent_process() is None:\n    call(2)", True),
        ("try:\n    if '__main__' == __name__:\n        call(2)\nfinally:\n    pass", True),
    ],
)
def test_a_script_without_its_guard_is_refused_before_a_worker_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, guarded: bool
) -> None:
    script = tmp_path / "script.py"
    script.write_text(text)
    main = type(sys)("__main__")
    vars(main).update(__file__=str(script), call=refuse_unguarded_script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    code = compile(text, str(script), "exec")
    if guarded:
        exec(code, vars(main))
    else:
        with pytest.raises(BadGrid, match=r"jobs=2: every worker would run .*script\.py, line \d, again; put the call"):
            exec(code, vars(main))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": ""}, "out: '' is no folder's name"),
        ({"out": "FILE"}, "is a file; name a folder"),
        ({"out": "FILE/run"}, "is a file; name a folder"),
        ({"out": "a\0b"}, "is no folder's name"),
        ({"out": "n" * 300}, "cannot be a folder"),
        ({"out": "x", "jobs": -1}, "jobs=-1"),
        ({"out": "x", "jobs": 10**9}, "jobs=1000000000: .* 1 to 1,000"),
        ({"out": "x", "jobs": True}, "jobs=True"),
        ({"out": "x", "jobs": "2"}, "jobs='2'"),
        ({"out": "x", "jobs": 1.5}, r"jobs=1\.5"),
        ({"out": "x", "device": "gpu"}, "device='gpu'"),
        ({"out": "x", "grid": ["digits"]}, r"grid: \['digits'\] is neither"),
        ({"out": "x", "grid": 7}, "grid: 7 is neither"),
    ],
)
def test_odd_arguments_are_refused_in_one_line_with_nothing_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").touch()
    with pytest.raises(BadGrid, match=message) as caught:
        run(**{"grid": GRID, **changes})
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "timeout=.inf"), "timeout: inf"),
        (("--set", "doses=[0,100000000000000000000]"), "doses: 1000"),
        (("--time-budget", "inf"), "--time-budget 'inf'"),
        (("--time-budget", "99999999999h"), "--time-budget"),
        (("--time-budget", "0s"), "--time-budget"),
        (("--shard", "0/0"), "--shard '0/0'"),
        (("--shard", "3/2"), "--shard '3/2'"),
        (("--only", ""), "--only '': fits no cell"),
        (("--only", "digits", "--skip", "digits"), "no cell is left"),
        (("--out", ""), "--out: '' is no folder's name"),
        (("--set", "digits.epochs=010"), "010 may be a number or a text"),
        (("--gpu-share", "inf", "--executor", "ray"), "--gpu-share inf"),
        (("--jobs", "100000000"), "jobs=100000000"),
        (("--plugin", "my-plugin.py"), "not a Python file"),
    ],
)
def test_odd_words_of_the_command_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((BadGrid, BadPlugin)) as caught:
        invoke("run", "quickstart", *words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_home_is_meant_in_the_folder_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("g.yaml").write_text(json.dumps({**GRID, "doses": [0]}))
    assert "1 to run" in invoke("run", "~/g.yaml", "--out", "~/there", "--dry-run").output
    assert run({**GRID, "doses": [0]}, out="$HOME/here").status.tolist() == ["done"]
    assert (tmp_path / "here" / "records").is_dir()
    assert "1 done" in invoke("status", "~/here").output


def test_a_reason_never_raises() -> None:
    assert reason_of(MemoryError()) == "out of memory"
    assert all(reason_of(error) for error, _ in ODD.values())
