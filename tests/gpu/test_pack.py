"""A pack for a machine without network: what is in it is what the tasks read, and what cannot be packed is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import needs_data, task_names
from packaging.requirements import Requirement

from gpu.data_pack import KIB, CannotPack, class_column, fill, pack_data, rank_rows, shrink_picture
from gpu.pack import SETUP, make_pack, sha256
from gpu.wheel_pack import download, find_missing, project_needs, read_have
from harness.plugins.registry import create, load_class
from tasks.base import Task
from tasks.plugin import BadInput

TINY = 3  # MiB
FEW = ("speech_commands_synthesiser", "vehicle_claim_fraud")  # half of a few clips; names of 33 columns, few rows
FROM_DATA = [
    name for name in task_names() if cast("type[Task]", load_class("tasks", name)).dataset not in ("", "embedded")
]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pack") / "gpu_pack"
    make_pack(Path(os.environ["TINYDROP_DATA"]), out, TINY, "3.12", None)
    return out


def test_every_dataset_that_a_task_reads_has_its_share() -> None:
    assert set(KIB) == {cast("type[Task]", load_class("tasks", name)).folder for name in FROM_DATA}


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("name", FROM_DATA)
def test_every_task_reads_a_pack_or_says_what_is_too_few(
    name: str, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINYDROP_DATA", str(packed / "data"))
    for options in ({"reserve_size": 2, "train_size": None, "test_size": None}, {}):  # and at its published size
        task = cast(Task, create("tasks", name, options))
        try:
            splits = task.load()
        except BadInput as error:
            told = str(error)
        else:
            told = ""
            assert len(splits.train) >= len(task.classes)
            assert len(splits.test) >= len(task.classes)
        assert re.search("rows, of which|^$" if options else r"^$|has \d+ rows|rows, of which", told), told
        assert not told or not options or name in FEW


@needs_data
@pytest.mark.slow
def test_a_pack_keeps_to_its_limit_and_says_what_it_has(packed: Path) -> None:
    files = {str(file.relative_to(packed)): file for file in packed.rglob("*") if file.is_file()}
    assert 0.9 * TINY * 2**20 < sum(file.stat().st_size for file in files.values()) <= TINY * 2**20
    manifest = json.loads((packed / "MANIFEST.json").read_text())
    for name, said in manifest["files"].items():
        assert said == {"bytes": files[name].stat().st_size, "sha256": sha256(files[name])}
    assert set(manifest["files"]) == set(files) - {"MANIFEST.json"}
    for name, said in manifest["data"].items():
        assert pq.read_metadata(packed / "data" / name).num_rows == said["rows"] <= said["of"]


@needs_data
@pytest.mark.slow
def test_packed_rows_are_rows_of_the_data_balanced_and_alike_in_every_pixel(packed: Path) -> None:
    from datasets import Image

    file = packed / "data" / "cifar10" / "test-00000-of-00001.parquet"
    (source,) = (Path(os.environ["TINYDROP_DATA"]) / "cifar10").glob("test-*.parquet")
    mine, whole = pq.read_table(file), pq.read_table(source)
    assert mine.schema.equals(whole.schema, check_metadata=True)
    counts = np.bincount(mine["label"].to_numpy())
    assert counts.max() - counts.min() <= 1
    show = Image().decode_example
    pixels = {np.asarray(show(cell)).tobytes() for cell in whole["img"].to_pylist()}
    assert all(np.asarray(show(cell)).tobytes() in pixels for cell in mine["img"].to_pylist())


def labelled(rows: int = 90) -> pa.Table:
    """Three classes in the shares 1 : 3 : 5, and texts that compress badly."""
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b", "c"])})
    labels = [0, *[1] * 3, *[2] * 5] * (rows // 9)
    texts = [hashlib.sha512(str(row).encode()).hexdigest() for row in range(rows)]
    data = Dataset.from_dict({"text": texts, "label": labels}, features=features).data.table
    return data.replace_schema_metadata(features.arrow_schema.metadata)


def data_folder(folder: Path) -> Path:
    """Three datasets under the names of published ones."""
    for name in ("cifar10", "mnist", "sms_spam"):
        (folder / name).mkdir(parents=True)
        for split in KIB[name]:
            pq.write_table(labelled(), folder / name / f"{split}-00000-of-00001.parquet")
    return folder


def test_rows_are_drawn_class_by_class_and_a_smaller_draw_is_the_start_of_a_larger_one() -> None:
    table = labelled()
    assert class_column(table) == "label"
    order, least = rank_rows(table)
    assert least == 3
    assert sorted(order) == list(range(90))
    for rows, counts in {3: [1, 1, 1], 30: [10, 10, 10], 60: [10, 25, 25]}.items():
        assert np.bincount(table["label"].to_numpy()[order[:rows]]).tolist() == counts
    assert rank_rows(table, in_order=True)[0].tolist() == list(range(90))


@pytest.mark.parametrize("budget", [1, 2500, 4000, 6000, 10**6])
def test_a_budget_is_filled_and_never_exceeded_but_for_the_least_rows(budget: int) -> None:
    table = labelled()
    ranked = rank_rows(table)
    rows, data = fill(table, budget, ranked, stored=9000)
    assert pq.read_metadata(io.BytesIO(data)).num_rows == rows
    assert rows == {1: 3, 10**6: 90}.get(budget, rows)
    assert len(data) <= budget or rows == 3
    if 3 < rows < 90:
        assert len(data) > 0.9 * budget


def test_the_same_data_give_the_same_bytes_and_a_pack_replaces_only_a_pack(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data")
    first, second = (tmp_path / name for name in ("first", "second"))
    for out in (first, second, second):
        make_pack(data, out, 1, "3.12", None)
    assert (first / "MANIFEST.json").read_bytes() == (second / "MANIFEST.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "first", "second"], "nothing is left behind"
    with pytest.raises(CannotPack, match="is there and is no pack"):
        make_pack(data, data, 1, "3.12", None)
    assert (data / "mnist").is_dir()


def test_what_cannot_be_packed_is_refused_in_one_line(tmp_path: Path) -> None:
    data = data_folder(tmp_path / "data")
    for folder, limit, have, message in (
        (tmp_path / "none", 1, None, "no such folder"),
        (None, 1, None, "no such folder; name the one with the datasets, or set TINYDROP_DATA"),
        (tmp_path, 1, None, "has none of the datasets"),
        (data, 0.063, None, r"leaves .* MiB to the data, and one row of every class .*; raise it"),
        (data, 1, tmp_path / "list", "make it on the other machine with `pip freeze`"),
    ):
        with pytest.raises(CannotPack, match=message) as caught:
            make_pack(folder, tmp_path / "out", limit, "3.12", have)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_colour_picture_is_stored_smaller_and_alike_and_others_stay() -> None:
    from PIL import Image

    ramp = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8)
    for mode in ("RGB", "L"):
        picture = Image.fromarray(np.stack([ramp, ramp * 2, ramp * 3], 2) if mode == "RGB" else ramp)
        png = io.BytesIO()
        picture.save(png, "PNG", compress_level=0)
        small = shrink_picture(png.getvalue())
        with Image.open(io.BytesIO(small)) as again:
            assert np.array_equal(np.asarray(again), np.asarray(picture))
            assert again.format == {"RGB": "WEBP", "L": "PNG"}[mode]
    png = io.BytesIO()
    Image.new("RGB", (4, 4)).save(png, "PNG", transparency=(0, 0, 0))
    assert shrink_picture(png.getvalue()) == png.getvalue()


def test_a_list_of_packages_is_read_in_every_layout(tmp_path: Path) -> None:
    file = tmp_path / "there.txt"
    file.write_text("numpy==2.1 torch\nHuggingface_Hub==1.0  # new\n\nmine @ file:///x\n")
    assert read_have(file) == {"numpy": "2.1", "torch": "", "huggingface-hub": "1.0", "mine": ""}
    file.write_text("numpy\n<html>\n")
    with pytest.raises(CannotPack, match="line 2: '<html>' is no package"):
        read_have(file)


def test_missing_packages_are_found_down_to_the_last() -> None:
    have = dict.fromkeys(("cffi", "numpy", "typing-extensions"), "")
    assert set(find_missing([Requirement("soundfile")], have, "3.12")) == {"soundfile"}
    assert set(find_missing([Requirement("soundfile")], {"numpy": "", "typing-extensions": ""}, "3.12")) == {
        "soundfile", "cffi", "pycparser"
    }  # fmt: skip
    assert find_missing([Requirement('soundfile; python_version < "3.12"')], {}, "3.12") == {}
    assert "aiohttp" not in find_missing([Requirement("fsspec")], {}, "3.12")
    assert "aiohttp" in find_missing([Requirement("fsspec[http]")], {"fsspec": ""}, "3.12"), "an extra counts there too"
    assert "wandb" not in {need.name for need in project_needs()}


def test_versions_that_do_not_agree_are_refused() -> None:
    with pytest.raises(CannotPack, match=r"^the project needs numpy>=2, and 1\.26 is there; install"):
        find_missing([Requirement("numpy>=2")], {"numpy": "1.26"}, "3.12")
    with pytest.raises(CannotPack, match="needs no-such-thing, which is neither there nor installed here"):
        find_missing([Requirement("no-such-thing")], {}, "3.12")


def test_wheels_are_fetched_and_set_up_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    info = "drop_probe-1.0.dist-info"
    with zipfile.ZipFile(shelf / "drop_probe-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("drop_probe.py", "answer = 42\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: drop-probe\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"drop_probe.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    pack = tmp_path / "my pack"
    assert [file.name for file in download({"drop-probe": "1.0"}, "3.12", pack / "wheels")] == [
        "drop_probe-1.0-py3-none-any.whl"
    ]
    with pytest.raises(CannotPack, match=r"pip cannot fetch the wheels: .*drop-probe==2"):
        download({"drop-probe": "2.0"}, "3.12", tmp_path / "other")
    (pack / "setup.sh").write_text(SETUP)
    ask = "import os, drop_probe; print(drop_probe.answer, os.environ['TINYDROP_DATA'], os.environ['HF_HUB_OFFLINE'])"
    script = f'eval "$(bash "$1" "$2")" && {sys.executable} -c "{ask}"'
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script, "-", str(pack / "setup.sh"), str(tmp_path / "a folder")],
        capture_output=True, text=True, check=True, env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert done.stdout.split("\n")[0] == f"42 {pack / 'data'} 1"


def test_a_pack_without_data_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotPack, match="none of the datasets"):
        pack_data(tmp_path, tmp_path / "out", 10**6)
