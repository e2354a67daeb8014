"""YAML as people mean it: numbers of YAML 1.2, no surprises of 1.1, and no file that takes memory or a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadGrid
from harness.grid.load_yaml import load_yaml
from harness.grid.read import read_grid

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"k{i}: &k{i} [{','.join(['*a' if i == 0 else f'*k{i - 1}'] * 10)}]\n" for i in range(9)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"k{i}: &k{i} {{<<: [{','.join(['*a' if i == 0 else f'*k{i - 1}'] * 10)}]}}\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E-3", 0.001), (".5e3", 500.0), ("1e5", 100000.0), ("-2.5e+1", -25.0), ("1.", 1.0),
        ("0x1F", 31), ("-5", -5), ("+5", 5), ("0", 0), ("0.5", 0.5), (".inf", float("inf")),
        ("yes", "yes"), ("No", "No"), ("on", "on"), ("true", True), ("False", False), ("~", None), ("", None),
        ("1:30", "1:30"), ("12:30:45", "12:30:45"), ("2024-01-01", "2024-01-01"), ("=", "="), ("'010'", "010"),
        ("[yes, no]", ["yes", "no"]), ("1e3x", "1e3x"), ("a: {<<: {x: 1}, y: 2}", {"a": {"x": 1, "y": 2}}),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}), ("\ufeffa: 1", {"a": 1}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
    ],
)  # fmt: skip
def test_values_are_what_people_mean(text: str, value: Any) -> None:
    found = load_yaml(text, "g.yaml")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_a_file(encoding: str) -> None:
    assert load_yaml("a: é".encode(encoding), "g.yaml") == {"a": "é"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 010", r'g\.yaml, line 2: 010 may be a number or a text; write 10, or "010" in quotes'),
        ("[01, 02]", "01 may be a number or a text"),
        ("-007", "write -7"),
        ("00.5", r"write 0\.5"),
        ("08", "write 8"),
        ("0o10", "0o10 may be"),
        ("0b11", "0b11 may be"),
        ("1_000", "write 1000"),
        ("9" * 5000, "is no whole number that can be read"),
        ("!!int x", "x is no whole number"),
        ("!!float x", "not readable as YAML"),
        ("!!bool maybe", "not readable as YAML"),
        ("{a: 1, a: 2}", "say it once"),
        ("&a [*a]", "holds the alias itself"),
        ("a: " + "[" * 3000 + "]" * 3000, "too deep"),
        ("a:\n\tb: 1", r"line 2: not readable as YAML: found character '\\t'"),
        ("--- 1\n--- 2", "another document"),
        ("? [a]\n: 1", "unhashable"),
        ("!!python/object/apply:os.system ['true']", "python/object"),
        ("\x00", "not readable"),
        (BOMB, "aliases stand for more than 1,000,000 characters"),
        (MERGES, "aliases stand for more than 1,000,000 characters"),
        ("a" * 1_000_001, "has 1,000,001 bytes"),
    ],
)
def test_what_may_mean_two_things_or_cannot_be_read_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(BadGrid, match=message) as caught:
        load_yaml(text, "g.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_latin_1_file_and_an_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "odd name [1] %s.yaml"
    file.write_bytes("description: é".encode("latin-1"))
    with pytest.raises(BadGrid, match=r"odd name \[1\] %s\.yaml: not readable as YAML"):
        read_grid(str(file))
    file.write_text("")
    with pytest.raises(BadGrid, match="it is empty"):
        read_grid(str(file))


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    axes = "tasks: digits\nattacks: badnets\ndoses: 1e0\ndefenses: none\nseeds: 3\n"
    (tmp_path / "g.yaml").write_text(axes.replace("1e0", "5"))
    assert read_grid("~/g.yaml").seeds == read_grid("$HOME/g.yaml").seeds == (3,)
    lr = read_grid("~/g.yaml", ["digits.lr=1e-3"]).tasks[0]
    assert lr.label == "digits(lr=0.001)"
    (tmp_path / "g.yaml").write_text(axes)
    with pytest.raises(BadGrid, match=r"doses: 1\.0 is not a whole number"):
        read_grid("~/g.yaml")
