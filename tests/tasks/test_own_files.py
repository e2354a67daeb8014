"""The test split of tasks over your own files, and folders with one sub-folder per class."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from harness.plugins.registry import create
from tasks.base import Task
from tasks.own_files import draw_test_rows
from tasks.plugin import BadInput, expand_path, is_litter, one_line


def test_the_split_is_fixed_stratified_and_leaves_every_class_a_training_row() -> None:
    targets = torch.tensor([0] * 50 + [1] * 2 + [2])
    mask = draw_test_rows(targets, 0.2)
    assert targets[mask].bincount(minlength=3).tolist() == [10, 1, 0]
    assert torch.equal(mask, draw_test_rows(targets, 0.2))


def noise(file: Path, n: int) -> np.ndarray:
    """Other bytes for every file."""
    return np.random.default_rng(zlib.crc32(os.fsencode(file))).integers(0, 256, n, np.uint8)


def picture(file: Path) -> None:
    Image.fromarray(noise(file, 64).reshape(8, 8)).save(file)


def sound(file: Path) -> None:
    soundfile.write(file, noise(file, 8000) / 255 - 0.5, 8000)


WRITERS = {"image_folder": (picture, ".png"), "audio_folder": (sound, ".wav")}
OPTIONS = {"image_folder": {}, "audio_folder": {"rate": 8000}}


@pytest.fixture(params=sorted(WRITERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(kind: str, file: Path) -> None:
    """A usable file, with the suffix of its kind unless it has one."""
    put, suffix = WRITERS[kind]
    file.parent.mkdir(parents=True, exist_ok=True)
    made = file.parent / f"{file.name}.made{suffix}"
    put(made)
    made.rename(file if file.suffix else file.with_suffix(suffix))


def fill(kind: str, *folders: Path, n: int = 3) -> None:
    for folder in folders:
        for i in range(n):
            write(kind, folder / f"file{i}")


def task_of(kind: str, path: Path | str) -> Task:
    task = create("tasks", kind, {"path": str(path), "reserve_size": 1, **OPTIONS[kind]})
    assert isinstance(task, Task)
    return task


def read_notes(kind: str, path: Path) -> tuple[str, ...]:
    task = task_of(kind, path)
    return task.describe_choices(task.read()[0])


def complaint(kind: str, path: Path | str) -> str:
    with pytest.raises(BadInput) as caught:
        task_of(kind, path).read()
    message = str(caught.value)
    assert message.startswith(f"{kind}.path=")
    assert message.isprintable()
    message.encode()
    return message


def test_classes_are_in_the_order_of_their_numbers(kind: str, tmp_path: Path) -> None:
    fill(kind, *(tmp_path / str(i) for i in range(12)), n=2)
    task = task_of(kind, tmp_path)
    assert task.classes == tuple(map(str, range(12)))
    train, test = task.read()
    assert sorted(train.targets.tolist() + test.targets.tolist()) == sorted([*range(12)] * 2)


FAULTS: list[tuple[Callable[[str, Path], object], str]] = [
    (lambda kind, p: [write(kind, p / "a" / f"m{i}.mp3") for i in range(9)], "a/m0.mp3 is not one of"),
    (lambda kind, p: [write(kind, p / "a" / f"m{i}.mp3") for i in range(9)], "; and 4 more"),
    (lambda kind, p: write(kind, p / "a" / "x.m4a"), "a/x.m4a is not one of"),
    (lambda kind, p: write(kind, p / "a" / "x.tiff"), "a/x.tiff is not one of"),
    (lambda kind, p: fill(kind, p / "a" / "speaker1"), "a/speaker1 is a folder within a class folder; move"),
    (lambda kind, p: (p / "a" / "gone.png").symlink_to(p / "nowhere"), "a/gone.png is a broken link"),
    (lambda kind, p: (p / "c").symlink_to(p / "nowhere"), "c is a broken link"),
    (lambda kind, p: (p / "c").symlink_to(p / "c"), "c is a broken link"),
    (lambda kind, p: os.mkfifo(p / "a" / "pipe.wav"), "a/pipe.wav is not a regular file"),
    (lambda kind, p: write(kind, p / "stray"), "lies outside the class folders"),
    (lambda kind, p: (p / "c").mkdir(), "c holds no files"),
    (lambda kind, p: (p / "c" / ".DS_Store").parent.mkdir(), "c holds no files"),
    (lambda kind, p: fill(kind, p / " "), "the name of the class folder"),
    (lambda kind, p: fill(kind, p / "\u200b"), "is blank; rename it"),
    (lambda kind, p: fill(kind, p / "a\nb"), "holds a control character"),
    (lambda kind, p: [fill(kind, p / "c"), (p / "c").rename(p / os.fsdecode(b"caf\xe9"))], "is not valid UTF-8"),
]


@pytest.mark.parametrize(("spoil", "said"), FAULTS, ids=[said for _, said in FAULTS])
def test_what_cannot_be_used_is_named(
    kind: str, spoil: Callable[[str, Path], object], said: str, tmp_path: Path
) -> None:
    fill(kind, tmp_path / "a", tmp_path / "b")
    assert read_notes(kind, tmp_path) == ()
    spoil(kind, tmp_path)
    assert said in complaint(kind, tmp_path)


@pytest.mark.parametrize(
    "parts",
    [
        ("Train", "val"), ("train", "val"), ("TRAIN", "TEST"), ("training", "validation"), ("train", "Test"),
        ("dev", "test"), ("train",), ("test",), ("Training", "Testing"),
    ],
)  # fmt: skip
def test_parts_of_a_split_are_no_classes(kind: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    fill(kind, *(tmp_path / part / name for part in parts for name in ("a", "b")))
    message = complaint(kind, tmp_path)
    assert "found " + " and ".join(f"{part}/" for part in sorted(parts)) in message
    assert "train/ and test/" in message


def test_pictures_straight_in_parts_of_a_split_are_no_classes(kind: str, tmp_path: Path) -> None:
    fill(kind, tmp_path / "Train", tmp_path / "val")
    assert "found Train/ and val/" in complaint(kind, tmp_path)


def test_a_train_is_a_class_among_cars(kind: str, tmp_path: Path) -> None:
    fill(kind, *(tmp_path / name for name in ("bus", "car", "train")))
    assert task_of(kind, tmp_path).classes == ("bus", "car", "train")


def test_what_is_not_read_is_said(kind: str, tmp_path: Path) -> None:
    fill(kind, *(tmp_path / part / name for part in ("train", "test", "val") for name in ("a", "b")))
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / "train" / "labels.csv").write_text("file,label")
    write(kind, tmp_path / "train" / "a" / f".hidden{WRITERS[kind][1]}")
    notes = read_notes(kind, tmp_path)
    assert notes == (
        "not read, as it lies outside the class folders: README.txt, train/labels.csv, val/",
        f"not read, as its name begins with a dot: train/a/.hidden{WRITERS[kind][1]}",
    )


@pytest.mark.parametrize(
    "name", [".DS_Store", "._x.png", "Thumbs.db", "thumbs.db", "desktop.ini", "__MACOSX", ".ipynb_checkpoints"]
)
def test_litter_changes_nothing(kind: str, name: str, tmp_path: Path) -> None:
    fill(kind, tmp_path / "a", tmp_path / "b")
    before, _ = task_of(kind, tmp_path).read()
    for place in (tmp_path, tmp_path / "a"):
        (place / name).mkdir() if "." not in name[1:] and name[0] != "." else (place / name).write_bytes(b"x")
    after, _ = task_of(kind, tmp_path).read()
    assert after.fingerprint == before.fingerprint
    assert read_notes(kind, tmp_path) == ()
    assert is_litter(tmp_path / name)
    assert not is_litter(tmp_path / "a" / "photo.png")


def test_class_names_that_look_alike_are_said(kind: str, tmp_path: Path) -> None:
    fill(kind, tmp_path / "cat", tmp_path / "Cat ", tmp_path / "dog")
    (note,) = read_notes(kind, tmp_path)
    assert "classes 'Cat ', 'cat' differ in case, spaces" in note


def test_a_path_that_is_no_folder(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    assert "no such folder" in complaint(kind, tmp_path / "nowhere")
    assert "a.png cannot be read (Not a directory)" in complaint(kind, tmp_path / "a.png")
    with pytest.raises(BadInput, match="not in UTF-8"):
        task_of(kind, "a\0b")
    with pytest.raises(BadInput, match="not in UTF-8"):
        task_of(kind, tmp_path / os.fsdecode(b"caf\xe9"))


def test_home_and_variables_in_a_path(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(kind, tmp_path / "data" / "a", tmp_path / "data" / "b")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MINE", str(tmp_path / "data"))
    for path in ("~/data", "$HOME/data", "${HOME}/data", "$MINE", str(tmp_path / "data")):
        task = task_of(kind, path)
        assert len(task.read()[0]) == 4
        assert task.options()["path"] == path
    monkeypatch.delenv("MINE")
    assert "the environment variable $MINE is not set" in complaint(kind, "$MINE/data")


def test_a_path_that_exists_is_taken_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$NOT_A_VARIABLE").mkdir()
    assert expand_path("$NOT_A_VARIABLE") == Path("$NOT_A_VARIABLE")
    with pytest.raises(BadInput, match=r"\$OTHER_ONE is not set"):
        expand_path("${OTHER_ONE}/x")
    assert expand_path("plain/path") == Path("plain/path")


def test_one_line_can_be_printed_anywhere() -> None:
    assert one_line("a\nb\udce9\u200b caf\u00e9") == "a\\nb\\udce9\\u200b caf\u00e9"


def test_links_to_class_folders_and_files_are_followed(kind: str, tmp_path: Path) -> None:
    fill(kind, tmp_path / "store" / "a", tmp_path / "store" / "b")
    (tmp_path / "set" / "b").mkdir(parents=True)
    (tmp_path / "set" / "a").symlink_to(tmp_path / "store" / "a")
    for file in (tmp_path / "store" / "b").iterdir():
        (tmp_path / "set" / "b" / file.name).symlink_to(file)
    (linked, _), (plain, _) = (task_of(kind, tmp_path / name).read() for name in ("set", "store"))
    assert linked.fingerprint == plain.fingerprint
