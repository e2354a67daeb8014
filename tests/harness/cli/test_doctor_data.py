"""What `tinydrop doctor` and `tinydrop data` say of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import invoke, needs_data

from harness.errors import UnknownName
from harness.plugins.datasets import list_datasets
from tasks.plugin import BadInput


def test_the_doctor_trains_and_names_no_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "somebody"
    (home / "data").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TINYDROP_DATA", str(home / "data"))
    result = invoke("doctor")
    assert result.exit_code == 0
    said = dict(line.split(maxsplit=1) for line in result.output.splitlines() if line.strip())
    assert said["TINYDROP_DATA"] == "~/data"
    assert "CPU cores" in said["devices"]
    accuracy = float(said["training"].partition("accuracy ")[2].split()[0])
    assert accuracy > 0.9
    assert "somebody" not in result.output


def test_a_folder_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TINYDROP_DATA", str(tmp_path / "gone"))
    assert "(no such folder)" in invoke("doctor").output


def test_every_dataset_is_listed_once_with_its_licence() -> None:
    rows = list_datasets()
    assert len({row.dataset for row in rows}) == len(rows) > 10
    assert all(row.licence and row.hub and row.tasks for row in rows)
    listed = {task for row in rows for task in row.tasks}
    assert {"sst2", "fsdd", "cifar10_generator"} <= listed
    assert not {"digits", "synthetic_tones"} & listed, "embedded data needs no fetching"


def test_data_in_the_named_folder_is_found_and_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sst2").mkdir()
    (tmp_path / "sst2" / "train-0.parquet").write_bytes(b"x" * 1000)
    monkeypatch.setenv("TINYDROP_DATA", str(tmp_path))
    (row,) = [row for row in list_datasets() if row.dataset == "sst2"]
    assert (row.place, row.size) == ("TINYDROP_DATA", 1000)


@needs_data
def test_getting_reads_the_data() -> None:
    result = invoke("data", "get", "fsdd")
    assert result.exit_code == 0
    assert "fsdd reads 2,500 training, 300 test, 200 reserve rows of it" in result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [(("get", "sst"), "did you mean 'sst2'"), (("sst2",), "write `tinydrop data`"), (("get",), "get NAME")],
)
def test_a_mistake_is_refused_in_one_line(words: tuple[str, ...], said: str) -> None:
    with pytest.raises((BadInput, UnknownName)) as error:
        invoke("data", *words)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
