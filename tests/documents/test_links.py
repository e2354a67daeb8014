"""What the documents name exists: links, files, modules, folders, commands, extras, counts. And they stay short."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from test_documents import BLOCK, COMMAND_LINE, COMMANDS, PAGES
from test_structure import RANKS

from harness.plugins.registry import KINDS, ROOT, entries

FOLDERS = "tasks|attacks|defenses|harness|tests|results|notebooks"
LINK = re.compile(r"\]\((?!https?:)([^)\s]*)\)")
FILE = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./-]+\.(?:py|md|yaml|ipynb|json|csv|png)\b")
MODULE = re.compile(r"`((?:tasks|attacks|defenses|harness)(?:\.\w+)+)`")
IMPORT = re.compile(r"^from (\S+) import ([\w, ]+)", re.MULTILINE)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, link


@each_page
def test_every_file_and_module_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for file in FILE.findall(text):
        assert (ROOT / file).exists(), file
    for name in MODULE.findall(text):
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute) or import_module(name), name
    for module, names in IMPORT.findall(text):
        for name in names.split(", "):
            assert hasattr(import_module(module), name.strip()), f"from {module} import {name}"


def test_documents_are_short() -> None:
    for name, lines in {"README.md": 142, "ARCHITECTURE.md": 150}.items():
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= lines, name


def test_the_tree_has_every_folder() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## The tree")[2]
    listed: set[str] = set()
    top = ""
    for line in BLOCK.findall(text)[0][1].splitlines():
        for indent, name in re.findall(r"(^|\s)(\w+)/", line):
            if indent == "" or name in ("tests", "results", "notebooks"):
                top = name
                listed.add(name)
            else:
                listed.add(f"{top}/{name}")
    for top in FOLDERS.split("|"):
        assert top in listed
        if top in ("results", "notebooks"):
            continue
        folders = {
            f"{top}/{path.name}" for path in (ROOT / top).iterdir() if path.is_dir() and path.name != "__pycache__"
        }
        assert folders == {path for path in listed if path.startswith(f"{top}/")}


def test_the_ranks_are_those_of_the_import_rule() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| parts \| (.*) \|$", text, re.MULTILINE)
    ranks = {part: rank for rank, cell in enumerate(row.split(" | ")) for part in cell.split(", ")}
    assert ranks == RANKS


def test_every_command_and_extra_is_in_its_table() -> None:
    usage, _, extras = COMMAND_LINE.read_text(encoding="utf-8").partition("## Extras")
    assert set(re.findall(r"^\| `(\w+)` \|", usage, re.MULTILINE)) == set(COMMANDS)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(re.findall(r"^\| `(\w+)` \|", extras, re.MULTILINE)) == set(project["optional-dependencies"])


def test_the_readme_counts_the_plug_ins() -> None:
    tasks, attacks, defenses = (sum(not entry.source for entry in entries(kind).values()) for kind in KINDS)
    assert f"{tasks} tasks, {attacks} attacks and {defenses} defenses" in (ROOT / "README.md").read_text(
        encoding="utf-8"
    )
