"""The catalogue page: everything is on it, and nothing in a docstring can break it."""

from __future__ import annotations

from dataclasses import replace

from typer.testing import CliRunner

from harness.cli.app import app
from harness.plugins.catalogue import catalogue
from harness.plugins.registry import KINDS, entries


def test_every_plug_in_and_option_is_on_the_page() -> None:
    page = CliRunner().invoke(app, ["list", "--markdown"]).stdout
    for kind in KINDS:
        assert f"# {kind}\n" in page
        for entry in entries(kind).values():
            assert page.count(f"### `{entry.name}`\n") >= 1
    assert page.count("| option |") == sum(bool(e.options) for kind in KINDS for e in entries(kind).values())
    only = CliRunner().invoke(app, ["list", "defenses", "--markdown"]).stdout
    assert "# defenses" in only
    assert "# attacks" not in only


def test_docstrings_and_defaults_cannot_break_the_page() -> None:
    odd = replace(entries("defenses")["none"], summary="a | b <script> `x`", options={"k": 'str = "a|b"'})
    page = catalogue([odd])
    assert "<script>" not in page.replace("\\<script\\>", "")
    (row,) = [line for line in page.splitlines() if line.startswith("| `k`")]
    assert row.replace("\\|", "").count("|") == 3
