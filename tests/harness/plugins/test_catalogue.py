"""The catalogue page: everything is on it, and nothing in a docstring can break it."""

from __future__ import annotations

from dataclasses import replace

from typer.testing import CliRunner

from harness.cli.app import app
from harness.plugins.catalogue import catalogue
from harness.plugins.registry import KINDS, ROOT, entries


def test_every_plug_in_and_option_is_on_the_page() -> None:
    page = CliRunner().invoke(app, ["list", "--markdown"]).stdout
    for kind in KINDS:
        assert f"## {kind.capitalize()}\n" in page
        assert f"[{kind.capitalize()}](#{kind}): {len(entries(kind))} (" in page
        for entry in entries(kind).values():
            assert page.count(f"### {kind[:-1].capitalize()} `{entry.name}`\n") == 1
            assert f"](#{kind[:-1]}-{entry.name}) |" in page
    assert page.count("| option |") == sum(bool(e.options) for kind in KINDS for e in entries(kind).values())
    only = CliRunner().invoke(app, ["list", "defenses", "--markdown"]).stdout
    assert "## Defenses\n" in only
    assert "## Attacks\n" not in only


def test_the_committed_page_is_that_of_these_plug_ins() -> None:
    page = catalogue(e for kind in KINDS for e in entries(kind).values() if not e.source)
    assert page == (ROOT / "CATALOGUE.md").read_text(encoding="utf-8"), (
        "CATALOGUE.md is out of date; write it again: tinydrop list --markdown > CATALOGUE.md"
    )


def test_docstrings_and_defaults_cannot_break_the_page() -> None:
    odd = replace(entries("defenses")["none"], summary="a | b <script> `x`", options={"k": 'str = "a|b"'})
    page = catalogue([odd])
    assert "<script>" not in page.replace("\\<script\\>", "")
    (row,) = [line for line in page.splitlines() if line.startswith("| `k`")]
    assert row.replace("\\|", "").count("|") == 4
