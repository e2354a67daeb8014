"""What a run logs to wandb, read back from the file that an offline run leaves."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from harness.cli.app import app
from harness.store import ledger

BLOCK = 32768


def run(folder: Path, mode: str = "offline", out: str = "run", **changes: Any) -> str:
    tree = {
        "tasks": [{"name": "digits", "train_size": 150, "epochs": 1, "test_size": 60}],
        "attacks": ["badnets"], "doses": [0, 4], "defenses": ["none"], "seeds": [0], **changes,
    }  # fmt: skip
    (folder / "mine.yaml").write_text(yaml.safe_dump(tree))
    words = ["run", str(folder / "mine.yaml"), "--out", str(folder / out), "--jobs", "0", "--wandb", mode]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return done.output


def finished(file: Path) -> list[Any]:
    """All messages, once wandb's own process has written the last."""
    for _ in range(200):
        found = list(logged(file))
        if any(message.WhichOneof("record_type") == "exit" for message in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{file} has no end")


def logged(file: Path) -> Iterator[Any]:
    """The messages of a .wandb file, which is a LevelDB log: blocks of pieces, each with checksum, length and type."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at < len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK  # the rest of a block that has no room for a header
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if at > len(data):
            return  # not all written yet
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(whole)
            whole = b""


def history(messages: list[Any]) -> list[dict[str, Any]]:
    rows = [m.history.item for m in messages if m.WhichOneof("record_type") == "history"]
    return [{i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in row} for row in rows]


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb"))


def test_what_is_logged_offline_is_there_and_a_folder_is_one_run(tmp_path: Path) -> None:
    run(tmp_path)
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    messages = finished(file)
    kinds = {m.WhichOneof("record_type") for m in messages}
    assert {"run", "history", "metric", "artifact"} <= kinds

    (begun,) = [m.run for m in messages if m.WhichOneof("record_type") == "run"][:1]
    config = {u.key: json.loads(u.value_json) for u in begun.config.update}
    assert config["doses"] == [0, 4]
    assert config["attacks"][0]["name"] == "badnets"
    assert begun.run_id == ledger.identity(tmp_path / "run")[:16]
    assert begun.display_name == "mine"

    metrics = [m.metric for m in messages if m.WhichOneof("record_type") == "metric"]
    label = "digits(epochs=1, test_size=60, train_size=150)/badnets/none"
    drawn = [(metric.glob_name, metric.step_metric) for metric in metrics if metric.glob_name]
    assert drawn == [(f"{label}/*", "dose")], "the dose is the horizontal axis of what a cell measured"
    rows = history(messages)
    by_dose = {row["dose"]: row for row in rows if "dose" in row}
    records = [json.loads(p.read_text()) for p in (tmp_path / "run" / "records").glob("*.json")]
    assert set(by_dose) == {0, 4}
    for record in records:
        for name, metric in record["metrics"].items():
            assert by_dose[record["dose"]][f"{label}/{name}"] == pytest.approx(metric["value"])

    media = {key.rpartition("/")[0]: file.parent / "files" / row[key] for row in rows for key in row if "/path" in key}
    cells = json.loads(media["cells"].read_text())
    assert cells["columns"][0] == "task"
    assert len(cells["data"]) == 2
    assert len(json.loads(media["summary"].read_text())["data"]) == 2
    pictures = [path for path in media.values() if path.suffix == ".png"]
    assert pictures
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in pictures)
    kept = [m.artifact for m in messages if m.WhichOneof("record_type") == "artifact"]
    report = next(a for a in kept if a.type == "report")
    assert report.name == f"report-{begun.run_id}"
    files = {entry.path for entry in report.manifest.contents}
    assert {"cells.csv", "summary.csv"} < files
    assert any(name.endswith("-dose.png") or name.endswith("-map.png") for name in files)

    before = {file.parent.name}
    (tmp_path / "run").rename(tmp_path / "moved")
    run(tmp_path, out="moved", doses=[0, 4, 8])
    both = list((tmp_path / "moved" / "wandb").glob("offline-run-*/*.wandb"))
    assert [path.stem for path in both] == [f"run-{begun.run_id}"] * 2, "one run, gone on with"
    rows = history(finished(next(path for path in both if path.parent.name not in before)))
    assert [row["dose"] for row in rows if "dose" in row] == [8], "what was done before is not logged twice"


def test_without_a_login_a_run_goes_on_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.warns(UserWarning, match="not logged in"):
        run(tmp_path, "online", doses=[0])
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
