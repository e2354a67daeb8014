"""The site: what is joined, ranked and shown; that everything is escaped, links lead somewhere, and bytes repeat."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers import ROOT, frame
from typer.testing import CliRunner

from attacks.image.badnets import Badnets
from harness.cell.gallery import Made, encode_outputs
from harness.cli.app import app
from harness.errors import BadGrid, BadSubmission, BrokenLedger, NotASite
from harness.grid.mapping import grid_from_mapping
from harness.report.cells import CACHE
from harness.run.event import Ended
from harness.run.execute import execute
from harness.run.plan import make_plan
from harness.run.settings import Settings
from harness.site.build import Options, build
from harness.site.headline import count_by_status
from harness.site.single_page import build_single_page
from harness.site.sources import join_sources, open_sources
from harness.store import ledger, records
from harness.store.folder import Store
from harness.store.records import Record

RESULTS = ROOT / "results"
DIGITS = {"name": "digits", "train_size": 150, "epochs": 1, "test_size": 60}
STORIES = {"name": "synthetic_stories", "train_size": 40, "base_size": 40, "test_size": 10, "epochs": 1, "width": 32,
           "depth": 1, "reserve_size": 10}  # fmt: skip
GRID = {
    "tasks": [DIGITS], "attacks": ["badnets"], "doses": [0, 4, 8], "defenses": ["none", "spectral_signatures"],
    "seeds": [0],
    "also": [{"tasks": [STORIES], "attacks": ["steering"], "doses": [4], "defenses": ["none"]},
             {"seeds": [1], "doses": [8]}],
}  # fmt: skip
HOSTILE = "<script>alert(1)</script>'\"&"
ELSEWHERE = (
    "https://arxiv.org/",
    "https://doi.org/",
    "https://huggingface.co/datasets/",
)  # to follow; nothing is loaded
QUICK = Options(formats=("svg",))


def plug(name: str) -> dict[str, Any]:
    return {"name": name, "label": name, "options": {}}


def planned(letter: str) -> dict[str, object]:
    names = {name: letter for kind in ("task", "attack", "defense") for name in (kind, f"{kind}_name")}
    return {"key": letter * 32, "label": letter, **names, "dose": 3, "seed": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run of classifiers and a language model that was stopped before its last cell, and cells that failed badly."""
    store = Store(tmp_path_factory.mktemp("leaderboard") / "run")
    events = execute(make_plan(grid_from_mapping(GRID), store), Settings(store=str(store.root), threads=1), jobs=0)
    for _ in range(8):
        next(event for event in events if isinstance(event, Ended))
    events.close()
    sound = torch.sin(torch.arange(2000) / 3)[None]
    key, parts = "a" * 32, {"task": plug("odd"), "attack": plug("odder"), "defense": plug("none")}
    made = {name: store.add_file(store.findings_folder(key) / name, data)
            for name, data in encode_outputs("triggered", Made(["0"], sound, [False]), 8000).items()}  # fmt: skip
    for key, label in (("a" * 32, "odd/odder/3/none/0"), ("b" * 32, HOSTILE)):
        failed = {"key": key, "label": label, **parts, "modality": "audio", "dose": 3, "seed": 0, "stage": "control",
                  "status": "failed", "reason": HOSTILE, "traceback": HOSTILE, "findings": made,
                  "notes": [HOSTILE]}  # fmt: skip
        if label == HOSTILE:
            failed |= {kind: plug(HOSTILE) for kind in parts}
        records.save(store, Record.model_validate(failed))
    tree = [*records.read_plan(store), *(planned(c) for c in "ab")]
    records.write_plan(store, records.read_planned_grid(store), tree)
    return store


@pytest.fixture(scope="module")
def site(run: Store) -> Path:
    to = run.root.parent / "site"
    with open_sources([run.root, RESULTS / "crafted" / "tabular"]) as found:
        assert build(join_sources(found), to, QUICK) == len([p for p in to.rglob("*") if p.is_file()])
    return to


@pytest.fixture(scope="module")
def page(run: Store) -> Path:
    to = run.root.parent / "single" / "index.html"
    with open_sources([run.root, *(RESULTS / "crafted" / name for name in ("tabular", "audio"))]) as sources:
        size = build_single_page(join_sources(sources), to, HOSTILE)
    assert size == to.stat().st_size
    return to


class Links(HTMLParser):
    """Every address of a page, its ids, and tags that nobody closed."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "srcset")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in ("meta", "link", "img", "input", "br", "wbr", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag, self.getpos()


def test_every_link_leads_to_a_file_and_nothing_to_a_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        read = Links(page)
        assert not read.open, f"{page}: {read.open} left open"
        for link in read.links:
            if link.startswith((*ELSEWHERE, "#", "data:")):
                continue
            assert (page.parent / link.partition("#")[0]).is_file(), f"{page.relative_to(site)}: {link}"


def test_everything_is_escaped(site: Path) -> None:
    for page in [*site.rglob("*.html"), site / "cells.js"]:
        assert "<script>alert" not in page.read_text(), page
        assert '"&<' not in page.read_text()
    assert "&lt;script&gt;alert(1)" in (site / "cells" / f"{'b' * 32}.html").read_text()
    of_task, of_cell = (site / "tasks" / "odd.html", site / "cells" / f"{'a' * 32}.html")
    assert all('<p class="note">' in page.read_text() for page in (of_task, of_cell)), "notes on the data"


def test_a_single_page_needs_nothing_beside_it(page: Path) -> None:
    read = Links(page)
    assert not read.open
    assert len(read.ids) == len(set(read.ids))
    assert {link[1:] for link in read.links if link.startswith("#")} <= {*read.ids}
    assert all(link.startswith(("#", "data:", *ELSEWHERE)) for link in read.links)
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]
    text = page.read_text()
    assert "default-src 'none'" in text, "a browser fetches nothing for it"
    assert "data:image/svg+xml" in text
    assert text.count('<table class="map">') > 2
    assert 'id="headline"' in text


def test_a_single_page_is_escaped_and_runs_one_script(page: Path) -> None:
    text = page.read_text()
    assert text.count("<script") == 1
    assert "&lt;script&gt;alert(1)" in text
    assert '"&<' not in text


def test_a_single_page_replaces_an_older_one_and_nothing_else(page: Path, run: Store, tmp_path: Path) -> None:
    def write(*options: str, to: str = "index.html") -> Any:
        command = ["leaderboard", str(run.root), "-o", str(tmp_path / to), *options]
        return CliRunner().invoke(app, command)

    shutil.copy(page, tmp_path / "index.html")
    done = write("--single-file")
    assert done.exit_code == 0, done.output
    assert re.search(r"kB written; open .*index.html", done.output)
    (tmp_path / "notes.html").write_text("mine")
    refused = {
        "needs a folder": (BadGrid, write("--single-file", "--cell-pages")),
        "is the name of a page; add --single-file": (BadGrid, write()),
        "name a file that ends in .html": (NotASite, write("--single-file", to="site")),
        "exists and is not a leaderboard; name a new file": (NotASite, write("--single-file", to="notes.html")),
        "exists and is not a leaderboard; name a new folder": (NotASite, write(to="")),
    }
    for words, (error, answer) in refused.items():
        assert isinstance(answer.exception, error), words
        assert words in str(answer.exception)
        assert "\n" not in str(answer.exception)
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "notes.html"}


def test_states_are_shown_as_what_they_are(run: Store, site: Path) -> None:
    with open_sources([run.root]) as found:
        both = join_sources(found)
    counts = count_by_status(both.cells, both.missing, ["attack", "defense"])
    digits = both.cells[both.cells.modality == "image"]
    assert counts.loc[("badnets", "none")].missing + counts.loc[("badnets", "spectral_signatures")].missing == 1
    assert counts.loc[("odder", "none")].failed == 1
    assert len(digits) == 7
    page = (site / "index.html").read_text()
    assert re.search(r"2 failed, 1 missing", page)


def test_a_cell_page_has_the_record_and_a_command_that_repeats_it(
    run: Store, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_sources([run.root]) as found:
        cells = join_sources(found).cells
    key = cells[(cells.attack == "badnets") & (cells.dose == 4) & (cells.defense == "none")].key.iloc[0]
    (command,) = re.findall(r"<code>(echo .*?)</code>", (site / "cells" / f"{key}.html").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    echo, tinydrop = unescape(command).split(" && ")
    subprocess.run(echo, shell=True, check=True)
    program, *words = shlex.split(tinydrop)
    assert program == "tinydrop"
    done = CliRunner().invoke(app, [*words, "--jobs", "0"])
    assert done.exit_code == 0, done.output
    again, first = records.load_all(Store(tmp_path / "runs" / "cell")), records.load_all(run)
    assert list(again) == [key], "the same cell: same options, same code"
    assert again[key].metrics == first[key].metrics


def test_samples_are_shown_with_the_trigger_marked_and_sounds_can_be_played(site: Path) -> None:
    page = (site / "samples.html").read_text()
    assert "<mark>At breakfast</mark>" in page
    assert "without the trigger" in page
    assert page.index("without the trigger") < page.index("with the trigger<"), "clean beside poisoned"
    (sound,) = re.findall(r'<audio [^>]*src="([^"]+\.wav)"', (site / "cells" / f"{'a' * 32}.html").read_text())
    assert (site / "cells" / sound).read_bytes()[:4] == b"RIFF"


def test_the_same_input_gives_the_same_bytes(run: Store, site: Path, tmp_path: Path) -> None:
    with open_sources([run.root, RESULTS / "crafted" / "tabular"]) as found:
        build(join_sources(found), tmp_path / "again", QUICK)
    ours = {p.relative_to(site): p.read_bytes() for p in site.rglob("*") if p.is_file()}
    theirs = {p.relative_to(tmp_path / "again"): p.read_bytes() for p in (tmp_path / "again").rglob("*") if p.is_file()}
    assert ours.keys() == theirs.keys()
    assert [path for path in ours if ours[path] != theirs[path]] == []


def test_an_older_site_is_replaced_whole_and_nothing_else_is(tmp_path: Path) -> None:
    with open_sources([RESULTS / "crafted" / "tabular"]) as found:
        cells = join_sources(found)
    to = tmp_path / "site"
    build(cells, to, QUICK)
    (to / "stale.html").write_text("x")
    build(cells, to, QUICK)
    assert not (to / "stale.html").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["site"], "no half-built folder is left"
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    with pytest.raises(NotASite, match="is not a leaderboard"):
        build(cells, mine, QUICK)
    assert (mine / "thesis.tex").exists()


def test_figures_and_tables_come_in_every_format(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["leaderboard", str(RESULTS / "crafted" / "tabular"), "-o", str(tmp_path / "site")])
    assert done.exit_code == 0, done.output
    starts = {".svg": b"<?xml", ".png": b"\x89PNG", ".pdf": b"%PDF"}
    for ending, start in starts.items():
        found = sorted((tmp_path / "site" / "figures").glob(f"*{ending}"))
        assert found
        assert all(path.read_bytes().startswith(start) for path in found)
    for ending in (".csv", ".tex", ".md"):
        assert (tmp_path / "site" / "tables" / f"headline{ending}").is_file()


def test_a_run_of_failures_is_shown_as_one(tmp_path: Path) -> None:
    grid = {"tasks": ["digits"], "attacks": ["badnets"], "doses": [10**6], "defenses": ["none"], "seeds": [0, 1]}
    store = Store(tmp_path / "run")
    list(execute(make_plan(grid_from_mapping(grid), store), Settings(str(store.root), threads=1), jobs=0))
    with open_sources([store.root]) as found:
        build(join_sources(found), tmp_path / "site", QUICK)
    assert "2 failed" in (tmp_path / "site" / "index.html").read_text()


def test_a_folder_with_nothing_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["leaderboard", str(tmp_path), "-o", str(tmp_path / "site")])
    assert isinstance(done.exception, FileNotFoundError)
    assert str(tmp_path) in str(done.exception)
    assert "neither records nor a cells.csv" in str(done.exception)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda text: text.replace(",status,", ",state,"), "has no column 'status'"),
        (lambda text: text.replace(",0.25,", ",-3,"), "line 3: asr '-3.0' must be finite and 0 or more"),
        (lambda text: text.replace(",0.25,", ",1.01,"), r"line 3: asr '1.01' is a share"),
        (lambda text: text.replace(",0.25,", ",high,"), "line 3: asr 'high' is no number"),
        (lambda text: text.replace(",done,", ",fine,", 1), "line 2: status 'fine' is none of done, failed"),
        (lambda text: text.replace(",5,0,", ",5.5,0,"), "line 2: dose '5.5' is no whole number"),
        (
            lambda text: text.replace(",none,none,{},", ",none,oracle,{},"),
            "line 2: defense_name 'oracle' is not",
        ),
        (
            lambda text: text.replace(",none,none,{},", ",none,none,[],"),
            "line 2: defense_options '[]' is no",
        ),
        (lambda text: "", "is no table"),
    ],
)
def test_a_table_that_cannot_be_is_refused_in_one_line(edit: Any, words: str, tmp_path: Path) -> None:
    frame({"none": [0.5, 0.25]}).to_csv(tmp_path / "cells.csv", index=False)
    with open_sources([tmp_path]) as found:
        assert len(join_sources(found).cells) == 2
    (tmp_path / "cells.csv").write_text(edit((tmp_path / "cells.csv").read_text()))
    done = CliRunner().invoke(app, ["leaderboard", str(tmp_path), "-o", str(tmp_path / "site")])
    assert isinstance(done.exception, BadSubmission)
    assert str(done.exception).startswith(f"{tmp_path / 'cells.csv'}: {words}")
    assert not (tmp_path / "site").exists()


def test_a_run_that_was_edited_is_refused_and_one_without_a_ledger_is_not(run: Store, tmp_path: Path) -> None:
    copy = Store(shutil.copytree(run.root, tmp_path / "copy"))
    with open_sources([copy.root]) as found:
        true = join_sources(found).cells
    kept = pd.read_parquet(copy.root / CACHE)
    kept.assign(asr=0.0, utility=1.0).to_parquet(copy.root / CACHE)
    with open_sources([copy.root]) as found:
        pd.testing.assert_frame_equal(join_sources(found).cells, true, obj="what the copy says is not believed")
    path = next(p for p in (copy.root / "records").iterdir() if '"asr"' in p.read_text())
    good = path.read_text()
    path.write_text(good.replace('"asr": {', '"asr":  {'))
    with pytest.raises(BrokenLedger, match=r"is not what was written; `tinydrop verify .*copy` names") as caught:
        open_sources([copy.root]).__enter__()
    assert "\n" not in str(caught.value)
    path.write_text(good)
    (copy.root / ledger.LEDGER_FILE).unlink()
    with open_sources([copy.root]) as found:
        assert len(join_sources(found).cells), "a run from before there were ledgers"


def test_a_cell_of_two_sources_counts_once_and_their_difference_is_told(tmp_path: Path) -> None:
    for name, value, commit in (("first", 0.9, "x"), ("second", 0.7, "y")):
        cells = frame({"none": [value, value]}, key=commit).drop(columns="source")
        cells["key"] = [f"{commit}{i}" for i in range(2)]
        (tmp_path / name).mkdir()
        cells.to_csv(tmp_path / name / "cells.csv", index=False)
    with open_sources([tmp_path / "first", tmp_path / "second"]) as found:
        both = join_sources(found)
    assert list(both.cells.asr) == [0.9, 0.9]
    assert list(both.repeated.asr_again) == [0.7, 0.7]


def test_pages_tell_options_and_where_the_data_is_from(site: Path) -> None:
    for page in ("tasks/digits_epochs_1__test_size_60__train_size_150.html", "attacks/badnets.html"):
        assert "Positive" not in (site / page).read_text()
    badnets = " ".join(unescape((site / "attacks/badnets.html").read_text()).split())
    assert " ".join((Badnets.__doc__ or "").split("\n\n")[1].split()) in badnets, "source and deviations"
    task = (site / "tasks/digits_epochs_1__test_size_60__train_size_150.html").read_text()
    for word in ("CC BY 4.0", "load_digits", "Alpaydin", "subset_seed"):
        assert unescape(task).count(word), word
