"""Every command in the documents is one of this tinydrop; those of the README and of the list of all commands run."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from helpers import ROOT
from typer.testing import CliRunner

from harness.cli.app import app
from harness.cli.scaffold import scaffold
from harness.plugins import registry

PARTS = ("harness", "tests", "results")
COMMAND_LINE = ROOT / "harness" / "cli" / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *(page for part in PARTS for page in sorted((ROOT / part).rglob("README.md")))]
DOCUMENTS = [*PAGES, *sorted((ROOT / "notebooks").glob("*.ipynb"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`(tinydrop [^`\n]+)`")
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def commands(text: str) -> Iterator[list[str]]:
    """The words of every tinydrop command in a document's code blocks, comments left out."""
    for language, block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines() if language in ("", "bash", "sh") else ():
            for part in " ".join(shlex.split(line.replace("'", '"'), comments=True, posix=False)).split("&&"):
                words = shlex.split(part)
                if words[:1] == ["tinydrop"]:
                    yield words[1:]


def parsed(words: list[str]) -> dict[str, Any]:
    """What the command line makes of these words, without running them."""
    command = COMMANDS[words[0]]
    return dict(command.make_context(words[0], list(words[1:])).params)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_document_is_understood(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for words in commands(text):
        parsed(words)
    for span in SPAN.findall(text):  # in running text arguments may be left out
        verb, *rest = span.split()[1:]
        assert verb in COMMANDS, span
        known = {name for option in COMMANDS[verb].params for name in (*option.opts, *option.secondary_opts)}
        for word in rest:
            assert not word.startswith("-") or word.rstrip(",") in known, f"{span}: {word}"


def test_a_command_that_is_not_understood_is_found() -> None:
    assert list(commands("```\n tinydrop run a.yaml --jobs 2 # x\npip install . && tinydrop list --json\n```")) == [
        ["run", "a.yaml", "--jobs", "2"],
        ["list", "--json"],
    ]
    with pytest.raises(Exception, match="--workers"):
        parsed(["run", "quickstart", "--workers", "2"])
    with pytest.raises(KeyError, match="start"):
        parsed(["start", "quickstart"])


def test_the_documented_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYDROP_CACHE", str(tmp_path / "cache"))
    grid = {
        "tasks": [{"name": "digits", "train_size": 150, "epochs": 10}], "attacks": ["badnets"], "doses": [0, 5],
        "defenses": ["none"], "seeds": [0],
    }  # fmt: skip
    Path(".dvc").mkdir()  # as `dvc init` does
    Path("my_grid.yaml").write_text(yaml.safe_dump(grid))
    for name in ("comments.csv", "checked.csv"):
        lines = [f"{'good' if i % 2 else 'bad'} comment {i},{i % 2},a{i % 3}" for i in range(60)]
        Path(name).write_text("\n".join(["text,label,author", *lines]))
    scaffold("defense", "my_defense", tmp_path / "file")
    shutil.copy(tmp_path / "file" / "my_defense.py", tmp_path)
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "README.md", COMMAND_LINE)]
    documented = dict.fromkeys(tuple(words) for page in pages for words in commands(page))  # each once
    assert {words[0] for words in documented} == set(COMMANDS)
    for words in map(list, documented):
        done = CliRunner().invoke(app, small(words))
        fine = (0, 3) if words[0] in ("audit", "vet") else (0,)  # these may suspect any model and any data
        assert done.exit_code in fine, f"{words}: {done.output} {done.exception!r}"
        _forget("my_defense")  # every command is a process of its own
        if words[:2] == ["run", "my_grid.yaml"] and "runs/mine" in words:
            shutil.copytree("runs/mine", "runs/other")
    (code,) = [block for language, block in BLOCK.findall((ROOT / "README.md").read_text()) if language == "python"]
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec", dont_inherit=True), names)
    assert list(names["cells"].defense) == ["none", "fine_tuning(clean_rows=50)"] * 2


def small(words: list[str]) -> list[str]:
    """The same command, with less to do; .ci/run runs more of quickstart."""
    text = shlex.join(words)
    for old, new in {
        "run quickstart --dry-run": "run quickstart",
        "run quickstart": "run quickstart --dry-run",
        "--jobs 2": "--jobs 0",
        "theirs.zip": "mine.zip",
        "--executor ray --address auto": "",  # tests/harness/run/test_ray.py has a cluster
        "s3://bucket": "file:///$PWD/bucket".replace("$PWD", str(Path.cwd()).lstrip("/")),
        "audit model.safetensors --architecture resnet18 --data pictures": "audit runs/mine/digits/badnets/5/none/0",
        "data get sst2": "data",  # a download, or the folder that TINYDROP_DATA names
        "fashion_mnist/badnets": "digits/badnets",
        "trials mnist": "trials digits --count 2 --bases 5 --set train_size=400",
    }.items():
        text = text.replace(old, new)
    return shlex.split(text) + (["--jobs", "0"] if words[0] in ("run", "retry") and "--jobs" not in text else [])


def _forget(name: str) -> None:
    registry.CUSTOM.clear()
    registry.clear_caches()
    sys.modules.pop(name, None)
