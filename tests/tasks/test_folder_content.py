"""What folders hold: what counts in keys, what is the same twice, what is blank, and files that are damaged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from harness.errors import BadGrid
from harness.grid.grid import expand
from harness.grid.mapping import grid_from_mapping
from harness.plugins.registry import create
from harness.run.opening import refuse_output_among_data
from tasks.data import dataset_dict
from tasks.files import fingerprint, group_parts, name_parts
from tasks.plugin import BadInput

NOISE = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 3), np.uint8)


def fill(root: Path, *folders: str, n: int = 10) -> Path:
    """Folders of n pictures each, no two of which are the same."""
    for k, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(NOISE[k * n + i]).save(root / folder / f"{i}.png")
    return root


def task_of(path: Path | str, kind: str = "image_folder", **options: Any) -> Any:
    return create("tasks", kind, {"path": str(path), "reserve_size": 2, **options})


def notes_of(path: Path) -> tuple[str, ...]:
    task = task_of(path)
    return task.describe_choices(task.read()[0])  # type: ignore[no-any-return]


def key_of(path: Path) -> str:
    return fingerprint(task_of(path).files())


SPLIT = ("train/a", "train/b", "test/a", "test/b")


@pytest.mark.parametrize("folders", [("a", "b"), SPLIT])
def test_only_class_folders_count(folders: tuple[str, ...], tmp_path: Path) -> None:
    fill(tmp_path, *folders)
    before = key_of(tmp_path)
    (tmp_path / "README.md").write_text("about")
    if "/" in folders[0]:
        (tmp_path / "train" / "labels.csv").write_text("x")
        fill(tmp_path, "val/a", "runs/b")
    assert key_of(tmp_path) == before
    (tmp_path / folders[0] / "0.png").rename(tmp_path / folders[0] / "x.png")
    assert key_of(tmp_path) != before
    (tmp_path / folders[0] / "x.png").rename(tmp_path / folders[0] / "0.png")
    assert key_of(tmp_path) == before
    shutil.move(tmp_path / folders[1], tmp_path / f"{folders[1]}c")
    assert key_of(tmp_path) != before, "the name of a class counts"


def test_a_path_that_is_no_folder_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert task_of(tmp_path / "file").files() == [str(tmp_path / "file")]
    assert task_of(tmp_path / "nowhere").files() == []
    assert task_of("x" * 5000).files() == []


def test_parts_are_grouped_by_the_folder_that_they_are_in() -> None:
    paths = [*name_parts("/data", ["a", "train/b"]), "/model"]
    assert paths == ["/data/./a", "/data/./train/b", "/model"]
    assert group_parts(paths) == {"/data": ["a", "train/b"], "/model": [""]}


@pytest.mark.parametrize(
    ("folders", "out", "refused"),
    [
        (("a", "b"), "runs/x", True), (("a", "b"), "a/x", True), (("a", "b"), ".", True), (("a", "b"), "../x", False),
        (SPLIT, "runs/x", False), (SPLIT, "train/x", True), (SPLIT, "test/a/x", True),
    ],
)  # fmt: skip
def test_a_run_does_not_write_among_what_is_read(
    folders: tuple[str, ...], out: str, refused: bool, tmp_path: Path
) -> None:
    root = fill(tmp_path / "pics", *folders)
    task = {"name": "image_folder", "path": str(root), "reserve_size": 2}
    axes = {"attacks": ["badnets"], "defenses": ["none"], "doses": [1], "seeds": [0]}
    cells = expand(grid_from_mapping({"tasks": [task], **axes}))
    if not refused:
        return refuse_output_among_data(cells, root / out)
    with pytest.raises(BadGrid, match=r"the run folder .* lies inside .*, which image_folder.* reads; choose"):
        refuse_output_among_data(cells, root / out)
    return None


def test_pictures_of_one_colour_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    for i in range(3):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / "a" / f"blank{i}.png")
    assert notes_of(tmp_path) == ("of one colour throughout: 3 pictures",)


def test_white_icons_on_white_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for i in range(3):
            icon = np.full((8, 8, 4), 255, np.uint8)
            icon[:i, :, 3] = 0
            Image.fromarray(icon).save(tmp_path / name / f"{i}.png")
    said = "every picture is the same, of one colour throughout; transparent parts are laid on white: save the pictures"
    with pytest.raises(BadInput, match=said):
        task_of(tmp_path).read()


@pytest.mark.parametrize("suffix", [".jfif", ".jpe"])
def test_other_suffixes_of_jpeg(suffix: str, tmp_path: Path) -> None:
    fill(tmp_path, "a", "b")
    Image.fromarray(NOISE[99]).save(tmp_path / "a" / f"x{suffix}", "JPEG")
    assert len(task_of(tmp_path).load().train) == 15  # of 21 rows; 4 are the test set, 2 the reserve


def test_pictures_in_both_sets_and_in_two_classes_are_counted(tmp_path: Path) -> None:
    fill(tmp_path, *SPLIT)
    for i in range(4):
        shutil.copy(tmp_path / "train" / "a" / f"{i}.png", tmp_path / "test" / "a" / f"copy{i}.png")
    shutil.copy(tmp_path / "train" / "a" / "9.png", tmp_path / "train" / "b" / "copy.png")
    assert notes_of(tmp_path) == (
        "of the test set and also in the training set: 4 pictures", "in two classes or more: 1 picture",
    )  # fmt: skip


@pytest.mark.parametrize("link", [True, False])
def test_one_folder_as_both_sets_is_refused(link: bool, tmp_path: Path) -> None:
    fill(tmp_path, "train/a", "train/b")
    if link:
        os.symlink(tmp_path / "train", tmp_path / "test")
    else:
        shutil.copytree(tmp_path / "train", tmp_path / "test")
    with pytest.raises(BadInput, match="every file of test/ is also in train/; give it others"):
        task_of(tmp_path).read()


def test_recordings_in_both_sets_are_counted(tmp_path: Path) -> None:
    for k, folder in enumerate(SPLIT):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(3):
            soundfile.write(tmp_path / folder / f"{i}.wav", NOISE[4 * k + i].flatten() / 255 - 0.5, 100)
    shutil.copy(tmp_path / "train" / "a" / "0.wav", tmp_path / "test" / "b" / "copy.wav")
    task = task_of(tmp_path, "audio_folder", rate=100)
    notes = task.describe_choices(task.read()[0])
    assert "of the test set and also in the training set: 1 recording" in notes
    assert "in two classes or more: 1 recording" in notes


@pytest.mark.parametrize("names", [("seg_test", "seg_train"), ("test_images", "train_images")])
def test_sets_by_other_names_are_no_classes(names: tuple[str, str], tmp_path: Path) -> None:
    fill(tmp_path, *(f"{name}/{below}" for name in names for below in ("a", "b")), n=1)
    found = f"found {names[0]}/ and {names[1]}/ with folders in them: a set that is split has train/ and test/"
    with pytest.raises(BadInput, match=found):
        task_of(tmp_path).read()


def test_a_long_path_is_shown_in_part() -> None:
    with pytest.raises(BadInput, match=r"^image_folder\.path='xx.*File name too long") as caught:
        task_of("x" * 5000).read()
    assert len(str(caught.value)) < 1000


# Published data


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder sms_spam of a TINYDROP_DATA, and a cache of `datasets` of its own."""
    import datasets

    monkeypatch.setenv("TINYDROP_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data" / "sms_spam"
    folder.mkdir(parents=True)
    rows = {"sms": [f"hello {i}" for i in range(400)], "label": [i % 2 for i in range(400)]}
    datasets.Dataset.from_dict(rows).to_parquet(str(folder / "train-00000-of-00001.parquet"))
    return folder


def test_only_what_is_read_of_published_data_counts(published: Path) -> None:
    task: Any = create("tasks", "sms_spam")
    before = fingerprint(task.files())
    for beside in ("notes.txt", "run/plan.json"):
        (published / beside).parent.mkdir(exist_ok=True)
        (published / beside).write_text("x")
    assert fingerprint(task.files()) == before
    (published / "train-00000-of-00001.parquet").rename(published / "test-00000-of-00001.parquet")
    assert fingerprint(task.files()) != before


def test_a_copy_of_published_data_is_refused(published: Path) -> None:
    file = published / "train-00000-of-00001.parquet"
    shutil.copy(file, published / "train-00000-of-00001 (1).parquet")
    with pytest.raises(BadInput, match=r"'train-00000-of-00001 \(1\)\.parquet' and 'train-00000-of-00001\.parquet' in"):
        dataset_dict("nobody/nothing", "sms_spam")


@pytest.mark.parametrize(("kept", "cause"), [(0, "0 bytes"), (3000, "magic bytes not found"), (-1, "")])
def test_a_damaged_file_of_published_data_is_named(
    kept: int, cause: str, published: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = published / "train-00000-of-00001.parquet"
    data = file.read_bytes()
    file.write_bytes(data[:kept] if kept >= 0 else data[:100] + b"\xff" * 400 + data[500:])
    with pytest.raises(BadInput) as caught:
        dataset_dict("nobody/nothing", "sms_spam")
    message = str(caught.value)
    assert message.startswith(f"dataset 'sms_spam': {file} cannot be read (")
    assert cause in message
    assert "DatasetGenerationError" not in message
    assert "replace that file" in message
    assert "online" not in message
    assert capfd.readouterr() == ("", "")
