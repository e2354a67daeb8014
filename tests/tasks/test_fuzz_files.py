"""What people hand over, drawn: bytes of pictures and sounds, tables, columns of labels. Each is read or refused."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from draws import LEAVES, many
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from harness.plugins.registry import create
from tasks import audio, image
from tasks.data import as_targets
from tasks.plugin import BadInput

SHADES = Image.fromarray(np.arange(20 * 14 * 3, dtype=np.uint8).reshape(20, 14, 3))
WAVE = 0.3 * np.sin(np.arange(900) / 5)
CHANGES = st.lists(  # of a file: where, how many bytes go, and what comes in
    st.tuples(st.integers(0, 2000), st.integers(0, 40) | st.just(10**6), st.binary(max_size=6)), max_size=3
)
FIELDS = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "Z", "Cc")) | st.sampled_from(',"\n\r;\t'), max_size=9
)


def picture_files() -> list[bytes]:
    files = []
    for form, options in (
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("WEBP", {}),
        ("BMP", {}),
        ("GIF", {}),
    ):
        out = io.BytesIO()
        exif = {} if form in ("BMP", "GIF") else {"exif": Image.Exif()}
        for value in exif.values():
            value[0x0112] = 6
        SHADES.convert("RGBA" if form == "PNG" else "RGB").save(out, form, **options, **exif)
        files.append(out.getvalue())
    return files


def sound_files() -> list[bytes]:
    files = []
    for form, subtype in (
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAV", "PCM_24"),
        ("FLAC", "PCM_16"),
        ("RF64", "PCM_16"),
    ):
        out = io.BytesIO()
        soundfile.write(out, np.stack([WAVE, WAVE], 1), 8000, format=form, subtype=subtype)
        files.append(out.getvalue())
    return files


def changed(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, gone, new in changes:
        at %= len(data) + 1
        data = data[:at] + new + data[at + gone :]
    return data


def read_or_refuse(read: Callable[[], Any]) -> Any:
    """What is read, or what is said instead, which must fit one line."""
    try:
        return read()
    except BadInput as error:
        said = str(error)
    assert said.isprintable()
    assert said.startswith(("this file", "csv_text."))
    return said


@many
@given(st.sampled_from(picture_files()) | st.binary(), CHANGES)
@pytest.mark.filterwarnings("ignore")
def test_a_picture(data: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    pixels = read_or_refuse(lambda: image.decode(changed(data, changes), 3, "this file"))
    if not isinstance(pixels, str):
        assert pixels.dtype == np.uint8
        assert (pixels.ndim, pixels.shape[2]) == (3, 3)
        assert changes or pixels.shape in ((14, 20, 3), (20, 14, 3))


@many
@given(st.sampled_from(sound_files()) | st.binary(), CHANGES)
def test_a_sound(data: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    clip = read_or_refuse(lambda: audio.decode(changed(data, changes), 8000, 1000, "this file"))
    if not isinstance(clip, str):
        assert clip.shape == (1000,)
        assert clip.abs().max() <= 1  # which no NaN is


def write_table(folders: pytest.TempPathFactory, data: bytes) -> Path:
    path = folders.getbasetemp() / "table.csv"
    path.write_bytes(data)
    return path


def texts_in(path: Path) -> Any:
    test = path.with_name("test.csv")
    test.write_text("text,label\nanother,a\n")
    options = {"path": str(path), "labels": ("a", "b"), "test_path": str(test)}
    task: Any = create("tasks", "csv_text", options)
    return read_or_refuse(lambda: task.read()[0].inputs)


@many
@given(
    st.lists(st.tuples(FIELDS, st.sampled_from(["a", "b", " a"])), min_size=1, max_size=6),
    st.sampled_from(
        [(csv.QUOTE_ALL, "\n"), (csv.QUOTE_MINIMAL, "\r\n")]
    ),  # with "\n", minimal quotes spare a lone "\r"
    st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_a_table_that_a_program_wrote(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], style: tuple[Any, str], encoding: str
) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=style[0], lineterminator=style[1]).writerows([("text", "label"), *rows])
    texts = texts_in(write_table(tmp_path_factory, out.getvalue().encode(encoding)))
    if isinstance(texts, str):
        assert "NUL" in texts or not all(text.strip() for text, _ in rows)
    else:
        assert texts == [text for text, _ in rows]


@many
@given(st.binary() | st.lists(st.lists(FIELDS, max_size=3).map(",".join)).map("\n".join).map(str.encode), st.booleans())
@example(b"a,a\n,b", True)
@example(b'"a\n",b\nc,a', True)
def test_a_table(tmp_path_factory: pytest.TempPathFactory, body: bytes, headed: bool) -> None:
    data = b"text,label\n" * headed + body
    texts = texts_in(write_table(tmp_path_factory, data))
    if not isinstance(texts, str):
        records = [r for r in csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")) if r]
        assert texts == [record[records[0].index("text")] for record in records[1:]]


@many
@given(st.lists(st.integers(0, 2) | LEAVES, max_size=4))
def test_a_column_of_labels(labels: list[Any]) -> None:
    targets = read_or_refuse(lambda: as_targets(labels, 3, "this file"))
    assert isinstance(targets, str) or targets.tolist() == labels
