"""A plug-in of the user's own, in one file named on the command line."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from helpers import invoke, tinydrop

from harness.errors import BadPlugin, Refused
from harness.site.archive import pack
from harness.site.build import Options, build
from harness.site.sources import join_sources, open_sources
from harness.store.folder import Store

DEFENSE = '''
"""Half of the data."""

from typing import ClassVar

import torch
from defenses.base import Case, Defense
from tasks.plugin import Share, options
from tasks.deployed import Model


@options
class FirstPart(Defense):
    """Trains on the first part of the training set only."""

    modalities: ClassVar[tuple[str, ...]] = ("any",)
    stage: ClassVar[str] = "filtering"

    paper: ClassVar[str] = "Nobody & Co, 2026, arXiv 2601.00001, <b>section 3</b>"

    share: Share = 0.5

    def defend(self, case: Case) -> Model:
        case.save("mask", case.train.inputs[0].float() / 255)
        case.save("share_kept", torch.linspace(0, self.share, 5000))
        case.save("few", torch.tensor([0.25, float("inf"), 1.0]))
        return case.fit(case.train.select(range(int(self.share * len(case.train)))))
'''
GRID = {
    "tasks": [{"name": "digits", "train_size": 150, "epochs": 1, "reserve_size": 60}],
    "attacks": ["badnets"], "doses": [3],
    "defenses": ["none", {"name": "first_part", "share": 0.4}], "seeds": [0],
}  # fmt: skip


def run(folder: Path, *words: str) -> CompletedProcess[str]:
    (folder / "grid.yaml").write_text(yaml.safe_dump(GRID))
    return tinydrop("run", folder / "grid.yaml", "--out", folder / "run", *words)


def test_a_file_is_a_plug_in_with_options_in_workers_too(tmp_path: Path) -> None:
    file = tmp_path / "first_part.py"
    file.write_text(DEFENSE)
    done = run(tmp_path, "--jobs", "1", "--plugin", str(file))
    assert done.returncode == 0, done.stderr
    records = [json.loads(p.read_text()) for p in (tmp_path / "run" / "records").glob("*.json")]
    mine = next(r for r in records if r["defense"]["name"] == "first_part")
    assert mine["defense"]["options"] == {"share": 0.4}
    assert mine["stage"] == "filtering"
    assert mine["provenance"]["settings"]["plugins"] == [str(file)]
    assert "0 to run" in run(tmp_path, "--plugin", str(file), "--dry-run").stdout
    file.write_text(DEFENSE.replace("range(int(", "range(1 + int("))
    assert "1 to run" in run(tmp_path, "--plugin", str(file), "--dry-run").stdout, "its source counts in the key"


def test_a_class_of_a_module_lying_here_is_found_in_workers_too(tmp_path: Path) -> None:
    (tmp_path / "part_of_mine.py").write_text(DEFENSE)
    grid = {**GRID, "defenses": ["first_part"], "doses": [0]}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    words = ("run", "grid.yaml", "--plugin", "part_of_mine:FirstPart", "--out", "run", "--jobs", 1)
    done = tinydrop(*words, cwd=tmp_path, PYTHONSAFEPATH="1")  # as for the installed command
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run of a plug-in, one cell of it failed, and its archive; the plug-in is gone."""
    folder = tmp_path_factory.mktemp("of a plug-in")
    file = folder / "first_part.py"
    file.write_text(DEFENSE)
    done = run(folder, "--jobs", "0", "--plugin", str(file), "--set", "first_part.share=0.4", "--set", "doses=[3,999]")
    assert done.returncode == 1, done.stderr
    assert f"tinydrop retry {folder / 'run'} --plugin '{file}'` runs them again" in done.stderr
    pack(Store(folder / "run"), folder / "mine.zip")
    file.rename(folder / "first_part.txt")
    return folder


def test_a_site_describes_a_plug_in_that_is_not_installed_where_it_is_built(made: Path, tmp_path: Path) -> None:
    with open_sources([made / "mine.zip"]) as found:
        build(join_sources(found), tmp_path / "site", Options(formats=("svg",)))
    page = (tmp_path / "site" / "defenses" / "first_part.html").read_text()
    assert "Trains on the first part of the training set only." in page
    assert "https://arxiv.org/abs/2601.00001" in page
    assert "<code>share</code>" in page
    assert "<code>0.5</code></td><td>number</td>" in page
    assert str(made / "first_part.py") in page
    assert "<b>section 3" not in page
    assert "Trains on the first part" in (tmp_path / "site" / "defenses.html").read_text()


def test_the_page_of_a_cell_names_the_plug_in_and_shows_what_it_found(made: Path, tmp_path: Path) -> None:
    with open_sources([made / "mine.zip"]) as found:
        cells = join_sources(found).cells
        build(join_sources(found), tmp_path / "site", Options(formats=("svg",)))
    key = cells[(cells.defense == "first_part(share=0.4)") & (cells.status == "done")].key.iloc[0]
    page = unescape((tmp_path / "site" / "cells" / f"{key}.html").read_text())
    assert f"--out runs/cell --plugin '{made / 'first_part.py'}'</code>" in page
    samples, found_ = page.partition("<h2>What the defense found</h2>")[::2]
    assert "Samples</h2>" not in samples, "rows are shown of the undefended cell"
    assert "mask.png" in found_
    assert "1,000 of 5,000 values from 0 to 0.3997" in found_
    assert "0.25, –, 1" in found_
    assert found_.count("<polyline") == 2
    undefended = cells[(cells.defense == "none") & (cells.status == "done")].key.iloc[0]
    assert "--plugin" not in (tmp_path / "site" / "cells" / f"{undefended}.html").read_text()


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    cases = {
        "nad.py": (DEFENSE, "'nad' is already defenses.repair.nad"),
        "json.py": (DEFENSE, "'json' is the name of another module"),
        "broken.py": ("import nothing_of_that_name", "ModuleNotFoundError"),
        "bare.py": (DEFENSE.replace("@options", ""), "decorate the class FirstPart with @options"),
        "empty.py": ("x = 1", "must define exactly one task, attack or defense, found 0"),
    }
    for name, (source, reason) in cases.items():
        (tmp_path / name).write_text(source)
        with pytest.raises(BadPlugin, match=re.escape(reason)):
            invoke("run", "quickstart", "--plugin", tmp_path / name, "--dry-run")
    done = run(tmp_path, "--plugin", str(tmp_path / "gone.py"))
    assert done.returncode == 2
    assert "not a Python file" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    with pytest.raises(Refused, match="unknown 'first_part'"):
        invoke("run", tmp_path / "grid.yaml", "--dry-run")
