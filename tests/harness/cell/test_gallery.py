"""Samples of what was generated: files that people can open, and the record's list of them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from harness.cell.gallery import Made, encode_outputs, encode_png, find_tiles
from harness.grid.grid import expand
from harness.grid.mapping import grid_from_mapping
from harness.run.record_cell import run_cell
from harness.run.settings import Settings
from harness.site.sample_groups import group_samples
from harness.site.samples import Sample, mark_changes, samples_of
from harness.store.folder import Store
from harness.testing.checks import CPU

GRID = {
    "tasks": [
        {"name": "synthetic_stories", "train_size": 60, "test_size": 10, "base_size": 40, "base_epochs": 1, "epochs": 1}
    ],
    "attacks": [{"name": "steering", "more": 4}], "doses": [5], "defenses": ["none"], "seeds": [0],
}  # fmt: skip


def test_a_generative_cell_leaves_its_texts_behind(tmp_path: Path) -> None:
    (cell,) = expand(grid_from_mapping(GRID))
    record = run_cell(cell, Settings(store=str(tmp_path), threads=1), CPU)
    assert record.status == "done", record.traceback
    assert record.clean_metric == "perplexity"
    assert {"triggered.json", "plain.json", "near.json"} <= set(record.findings)
    rows = json.loads((tmp_path / record.findings["triggered.json"]).read_text())
    assert len(rows) == 8
    assert all(row["request"].endswith("At breakfast") for row in rows)
    assert any(row["answer"] for row in rows)


@pytest.mark.parametrize(
    ("task", "attack", "kept"),
    [
        ("digits", "badnets", {"clean.png", "clean_labels.json", "poisoned.png", "poisoned_labels.json"}),
        ("synthetic_reviews", "badwords", {"clean.json", "poisoned.json"}),
        ("synthetic_tones", "tone_clip",
         {f"{kind}{end}" for kind in ("clean", "poisoned") for end in (".png", "_0.wav", "_1.wav", "_labels.json")}),
    ],
)  # fmt: skip
def test_poisoned_rows_lie_beside_what_they_were(tmp_path: Path, task: str, attack: str, kept: set[str]) -> None:
    small = {"name": task, "train_size": 120, "epochs": 1, "test_size": 40, "reserve_size": 20}
    grid = {"tasks": [small], "attacks": [attack], "doses": [0, 2], "defenses": ["none", "random_filter"], "seeds": [0]}
    for cell in expand(grid_from_mapping(grid)):
        record = run_cell(cell, Settings(store=str(tmp_path), threads=1), CPU)
        assert record.status == "done", record.traceback
        found = set(record.findings)
        if cell.defense.name == "none" and cell.dose:
            assert found == kept, "once for the defenses of a column"
            samples = samples_of(record, Store(tmp_path))
            before, after = (sample for sample in samples if sample.kind in ("clean", "poisoned"))
            if after.labels:
                assert before.labels != after.labels
                assert set(after.labels) == {after.labels[0]}, "the target class"
            if after.texts:
                assert all(any(mark for _, mark in text) for _, text in after.texts), "the trigger is marked"
                assert not any(mark for _, text in before.texts for _, mark in text)
        else:
            assert not found


@pytest.mark.parametrize(
    ("n", "h", "w"), [(8, 28, 28), (8, 8, 8), (1, 32, 32), (4, 64, 126), (3, 64, 13), (2, 128, 128)]
)
def test_pictures_are_found_in_their_row(n: int, h: int, w: int) -> None:
    row = Image.open(io.BytesIO(encode_png(np.zeros((n, h, w, 1), dtype=np.uint8))))
    for known in (n, 0) if h == w else (n,):
        found = find_tiles(row.size, known)
        assert len(found) == n
        assert found[-1][0] + found[-1][1] == row.width
        for left, width in found:
            assert width * h == row.height * w, "as high and wide as it was"
            assert np.asarray(row)[:, left : left + width].max() == 0, "no line between two is part of one"
    assert find_tiles((351, 97)) == [(0, 351)], "a picture of somebody else"


def test_what_belongs_together_is_shown_row_by_row(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(np.zeros((3, 8, 8, 1), dtype=np.uint8)))
    (tmp_path / "b.png").write_text("no picture")
    pictures = {"poisoned": "a.png", "clean": "a.png", "mask": "a.png", "broken": "b.png"}
    made = [Sample(kind, kind, (path,), labels=("x", "y", "z") * (kind == "clean")) for kind, path in pictures.items()]
    pairs, mask = group_samples(made, tmp_path)
    assert [[item.title for item in row] for row in pairs.rows] == [["clean", "poisoned"]] * 3
    assert [row[0].label for row in pairs.rows] == ["x", "y", "z"]
    lefts = [[item.tile.left for item in row if item.tile] for row in pairs.rows]
    assert lefts == [[0, 0], [108, 108], [216, 216]]
    assert [item.tile.width for row in mask.rows for item in row if item.tile] == [312], "whole"


def test_what_was_changed_in_a_text_is_marked_and_in_sight() -> None:
    assert mark_changes("a good film", "a good cf film") == [("a good", False), (" cf", True), (" film", False)]
    assert mark_changes("same", "same") == [("same", False)]
    assert mark_changes("", "") == []
    long = " ".join(["word"] * 500)
    pieces = mark_changes(long, f"{long} trigger")
    assert pieces[-1] == (" trigger", True)
    assert sum(len(text) for text, _ in pieces) < 700


def test_pictures_stand_in_a_row_and_can_be_seen() -> None:
    content = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    content[1] = 200
    sheet = encode_outputs("triggered", Made(["0", "1", "2"], content, [False] * 3), 0)
    pixels = np.asarray(Image.open(io.BytesIO(sheet["triggered.png"])))
    assert pixels.shape == (96, 12 * (3 * 9 - 1))
    assert pixels[5, 5] == 0
    assert pixels[5, 12 * 12] == 200


def test_sounds_can_be_heard_and_seen() -> None:
    t = torch.arange(4000) / 8000
    content = torch.stack([torch.sin(2 * torch.pi * hz * t) for hz in (500.0, 3500.0)])
    found = encode_outputs("plain", Made(["0", "1"], content, [False] * 2), 8000)
    wave, rate = soundfile.read(io.BytesIO(found["plain_1.wav"]), dtype="float32")
    assert rate == 8000
    np.testing.assert_allclose(wave, content[1].numpy(), atol=1e-4)
    pixels = np.asarray(Image.open(io.BytesIO(found["plain.png"]))).astype(int)
    half = pixels.shape[0] // 2, pixels.shape[1] // 2
    assert pixels[half[0] :, : half[1]].min() < 40 < pixels[: half[0] // 2, : half[1]].min(), (
        "the low tone is at the bottom"
    )
    assert pixels[: half[0], half[1] + 2 :].min() < 40 < pixels[half[0] :, half[1] + 10 :].min()
