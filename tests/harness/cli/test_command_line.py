"""The words of a command: what is refused, in one line, and what `--version` and `--help` say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from helpers import tinydrop
from typer.testing import CliRunner

import harness
from harness.cli import app
from harness.cli.usage import UsageError, complaint
from harness.errors import BadGrid, UnknownName
from harness.grid.grid import expand
from harness.grid.read import read_grid
from harness.run import provenance
from harness.run.record_cell import blank_record
from harness.store.folder import Store
from harness.store.records import find_records, write_plan

COMMANDS: dict[str, Any] = typer.main.get_command(app.app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run quickstart --jobs -1", "--jobs -1: input should be greater than or equal to 0"),
        ("run quickstart --jobs few", "--jobs few: input should be a valid integer"),
        ("run quickstart --device gpu", "--device: 'gpu' is not one of 'auto', 'cpu', 'cuda'"),
        ("new defence mine", "kind: 'defence' is not one of 'defense', 'attack', 'task'"),
        ("new", "missing argument 'kind'. Choose from: defense, attack, task; see `tinydrop new --help`"),
        ("run quickstart --dryrun", "tinydrop run: unknown '--dryrun'; did you mean '--dry-run'? valid: --adaptive, "),
        ("run quickstart --device", "option '--device' requires an argument; see `tinydrop"),
        ("run", "missing argument 'GRID'; see `tinydrop run --help`"),
        ("run quickstart more", "got unexpected extra argument(s) (more); see `tinydrop run --help`"),
        ("--verson", "tinydrop: unknown '--verson'; did you mean '--version'?"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(words: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        app.app(words.split(), standalone_mode=False)
    assert " ".join(complaint(caught.value).split()).startswith(said)


def test_an_unknown_command_is_refused_like_any_unknown_name() -> None:
    with pytest.raises(
        UnknownName,
        match=r"COMMAND: unknown 'rum'; did you mean 'run'\? valid: audit, certify, check, data, ",
    ):
        app.app(["rum"], standalone_mode=False)


def test_the_command_itself_prints_the_line_and_ends_with_2() -> None:
    for words, field in (["run", "quickstart", "--jobs", "-1"], "--jobs -1"), (["new"], "missing argument"):
        done = tinydrop(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: {field}")
        assert len(done.stderr.strip().splitlines()) == 1


def test_the_version_and_the_help() -> None:
    assert tinydrop("--version").stdout.startswith(f"tinydrop {harness.__version__}")
    done = tinydrop()
    assert done.returncode == 0
    assert "Start with:  tinydrop run quickstart" in done.stdout
    assert tinydrop("--help").stdout == done.stdout


def test_the_commit_is_of_no_repository_around_an_installed_tinydrop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (["init", "-q"], [*name, "commit", "-q", "--allow-empty", "-m", "somebody else's"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    (tmp_path / "site" / "harness").mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "site" / "harness" / "run" / "provenance.py"))
    assert provenance.code_version.__wrapped__()["commit"] == ""


@pytest.mark.parametrize("verb", sorted(COMMANDS))
def test_every_command_helps_with_an_example_that_is_understood(verb: str) -> None:
    shown = CliRunner().invoke(app.app, [verb, "--help"])
    assert shown.exit_code == 0
    example = re.search(r"Example:  tinydrop (.*)", COMMANDS[verb].help)
    assert example
    name, *words = example[1].split()
    assert name == verb
    COMMANDS[verb].make_context(verb, words)


def test_the_example_of_show_is_a_cell_of_quickstart() -> None:
    records = [blank_record(cell) for cell in expand(read_grid("quickstart"))]
    cell = re.search(r"tinydrop show runs/quickstart (\S+)", COMMANDS["show"].help)
    assert cell
    assert len(find_records(cell[1], records)) == 1


def test_a_folder_without_a_run_is_named_with_the_runs_that_are_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for verb in ("show", "status", "retry", "report", "verify", "gc", "dvc"):
        words = [verb, "runs/mime", *["digits"][: verb == "show"]]
        with pytest.raises(FileNotFoundError, match="DIR: 'runs/mime' holds no run; start one with `tinydrop run`"):
            app.app(words, standalone_mode=False)
    write_plan(Store(tmp_path / "runs" / "mine"), {}, [])
    with pytest.raises(FileNotFoundError, match="DIR: 'runs/mime' holds no run; runs here: runs/mine"):
        app.app(["show", "runs/mime", "digits"], standalone_mode=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verify", ".", "--head", ""], "--head '': is empty; give the first digits of a head"),
        (["run", "quickstart", "--time-budget", ""], "--time-budget '': write hours, minutes, seconds"),
        (["run", "quickstart", "--shard", ""], "--shard '': write which part of how many"),
    ],
)
def test_an_option_with_nothing_in_it_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(BadGrid, match=re.escape(said)):
        app.app(words, standalone_mode=False)
