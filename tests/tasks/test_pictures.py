"""What is read of a picture is what a person sees of it, or the file is refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
import torch
from helpers import needs_data
from PIL import Image
from torch import Tensor

from harness.plugins.registry import create
from tasks.image import decode
from tasks.image._base import cutout, random_crop
from tasks.plugin import BadInput

RNG = np.random.default_rng(0)
SHADES = np.linspace(0, 255, 64 * 48).reshape(48, 64)[..., None] + RNG.integers(-30, 30, (48, 64, 3))
PHOTO = Image.fromarray(np.clip(SHADES, 0, 255).astype(np.uint8))
TOP = Image.fromarray(np.repeat(np.uint8([255] * 8 + [0] * 8), 8).reshape(16, 8))  # the upper half is white
ENCODERS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width: int, height: int, depth: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def see_through(mode: str) -> Image.Image:
    """Red, of which one corner shows and the rest is transparent."""
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 0], pixels[0, 0, 3] = 255, 255
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("form", ["PNG", "WEBP"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_is_white(mode: str, form: str, channels: int) -> None:
    seen: Counter[str] = Counter()
    data = encoded(see_through(mode), form, **({"lossless": True} if form == "WEBP" else {}))
    pixels = decode(data, channels, "x", seen=seen)
    assert (pixels[1:] == 255).all()
    assert seen == {"transparent parts laid on white": 1}
    red = np.asarray(see_through(mode).convert("RGB").convert("L" if channels == 1 else "RGB"))[0, 0]
    assert (pixels[0, 0] == red).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_colour_that_stands_for_transparent_is_white(mode: str) -> None:
    picture = Image.new("RGB", (4, 4), (0, 0, 0)).convert(mode)
    colour = picture.getpixel((0, 0))
    assert (decode(encoded(picture, transparency=colour), 3, "x") == 255).all()
    assert (decode(encoded(picture), 3, "x") == 0).all()
    if mode == "P":
        assert (decode(encoded(picture, "GIF", transparency=colour), 3, "x") == 255).all()


def test_an_icon_drawn_in_alpha_alone_is_dark_on_white() -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[4:12, 4:12, 3] = 255
    read = decode(encoded(Image.fromarray(pixels)), 1, "x")
    assert (read[4:12, 4:12] == 0).all()
    assert int((read == 255).sum()) == 16 * 16 - 64


def test_half_transparent_is_half_way_to_white_and_opaque_stays() -> None:
    half = np.full((2, 2, 4), 128, np.uint8)
    half[..., :3] = 0
    assert abs(int(decode(encoded(Image.fromarray(half)), 1, "x")[0, 0]) - 127) <= 1
    seen: Counter[str] = Counter()
    assert np.array_equal(decode(encoded(PHOTO.convert("RGBA")), 3, "x", seen=seen), np.asarray(PHOTO))
    assert not seen


@pytest.mark.parametrize(
    ("orientation", "white"), [(1, np.s_[:8]), (3, np.s_[8:]), (4, np.s_[8:]), (6, np.s_[:, 8:]), (8, np.s_[:, :8])]
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_turns_a_picture(orientation: int, white: tuple[slice, ...], form: str) -> None:
    exif, seen = Image.Exif(), Counter[str]()
    exif[0x0112] = orientation
    pixels = decode(encoded(TOP.convert("RGB"), form, exif=exif), 1, "x", seen=seen)
    assert pixels[white].mean() > 250
    assert pixels.mean() < 132
    assert seen.total() == (orientation != 1)


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode(encoded(TOP, "JPEG", exif=exif), 1, "x").shape == (16, 8)


JPEGS = [{}, {"progressive": True}, {"optimize": True}, {"quality": 95, "subsampling": 0}, {"restart_marker_rows": 1}]


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_cut_short_is_refused_even_with_an_end(mode: str, options: dict[str, object]) -> None:
    picture = PHOTO.convert(mode)
    whole = encoded(picture, "JPEG", **options)
    assert np.array_equal(decode(whole + b"a note behind the end", 3, "x"), decode(whole, 3, "x"))
    for cut in (3, 7, 40, 100, len(whole) // 3, len(whole) // 2):
        for end in (b"", b"\xff\xd9"):
            with pytest.raises(BadInput, match="x cannot be read"):
                decode(whole[:-cut] + end, 3, "x")


@pytest.mark.parametrize("form", ENCODERS)
def test_half_a_file_is_refused(form: str) -> None:
    whole = encoded(PHOTO, form)
    assert decode(whole, 3, "x").shape == (48, 64, 3)
    for tail in (b"", whole[-12:], whole[-2:]):
        with pytest.raises(BadInput, match="x cannot be read"):
            decode(whole[: len(whole) // 2] + tail, 3, "x")


def test_every_flipped_bit_of_a_png_is_noticed() -> None:
    whole = encoded(PHOTO.resize((6, 5)))
    for at in range(8, len(whole) - 12):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(BadInput):
            decode(bytes(damaged), 3, "x")


def test_a_png_without_its_end_is_refused() -> None:
    with pytest.raises(BadInput, match="cut short"):
        decode(encoded(PHOTO)[:-12], 3, "x")


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_per_channel_are_refused(colour: int, channels: int) -> None:
    rows = (b"\0" + struct.pack(">H", 1000) * 4 * channels) * 4
    with pytest.raises(BadInput, match="16 bits per channel: convert it to 8"):
        decode(raw_png(4, 4, 16, colour, rows), 3, "x")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (encoded(PHOTO.convert("CMYK"), "JPEG"), "mode CMYK: convert it to 8 bits per channel, RGB or grey"),
        *((encoded(PHOTO, f, save_all=True, append_images=[TOP.resize(PHOTO.size)]), "an animation of 2 frames")
          for f in ("GIF", "PNG", "WEBP")),
        (encoded(PHOTO, "TIFF"), "not an image"),
        (raw_png(0, 4), "not an image"),
        (raw_png(12000, 9000), "12000x9000 pixels: more than"),
        (raw_png(60000, 60000), "exceeds limit"),
        (b"", "not an image"),
        (b"<svg></svg>", "not an image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_not_one_picture_of_8_bits_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint) as caught:
        decode(data, 3, "this file")
    assert str(caught.value).startswith("this file cannot be read")
    assert "\n" not in str(caught.value)


def test_a_jpeg_with_a_preview_behind_it_is_the_picture() -> None:
    both = encoded(PHOTO, "MPO", save_all=True, append_images=[TOP.convert("RGB")])
    assert np.abs(decode(both, 3, "x").astype(int) - np.asarray(PHOTO)).mean() < 20


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_a_jpeg_may_be_filled_up_before_its_markers(options: dict[str, object]) -> None:
    data = encoded(PHOTO, "JPEG", **options)
    filled = data[:-2] + b"\xff" * 5 + data[-2:]
    assert np.array_equal(decode(filled, 3, "x"), decode(data, 3, "x"))
    with pytest.raises(BadInput, match="cut short"):
        decode(data[:-300] + b"\xff" * 5 + data[-2:], 3, "x")


def test_a_bitmap_with_an_empty_fourth_byte_is_opaque() -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 0] = 200
    mask = struct.pack("<4I", 0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 4, 4, 1, 32, 3, 64, 0, 0, 0, 0) + mask + bytes(52)
    data = b"BM" + struct.pack("<IHHI", 14 + 108 + 64, 0, 0, 14 + 108) + header + pixels.tobytes()
    assert Image.open(io.BytesIO(data)).mode == "RGBA"
    seen: Counter[str] = Counter()
    assert (decode(data, 3, "x", seen=seen) == [200, 0, 0]).all()
    assert not seen


def test_a_png_may_hold_long_texts() -> None:
    text = chunk(b"zTXt", b"project\0\0" + zlib.compress(b"a" * 2**21))
    data = encoded(PHOTO)
    assert np.array_equal(decode(data[:33] + text + data[33:], 3, "x"), np.asarray(PHOTO))


def test_a_picture_that_is_not_square_is_stretched_and_counted() -> None:
    seen: Counter[str] = Counter()
    assert decode(encoded(PHOTO), 3, "x", 8, seen).shape == (8, 8, 3)
    assert decode(encoded(PHOTO.resize((9, 9))), 3, "x", 8, seen).shape == (8, 8, 3)
    assert seen == {"stretched to a square": 1}


@needs_data
def test_published_pixels_are_those_that_pillow_reads() -> None:
    from datasets import Image as Column

    from tasks.data import dataset_dict
    from tasks.image import read_images

    split = dataset_dict("ylecun/mnist", "mnist")["test"].select(range(200))
    pictures = split.cast_column("image", Column(decode=False))["image"]
    plain = [np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in pictures]
    assert np.array_equal(read_images(split, "image", "mnist", 1)[:, 0].numpy(), np.stack(plain))


# Augmentation of small pictures


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.mark.parametrize("pad", [0, 1, 4, 8])
@pytest.mark.parametrize(("h", "w"), [(1, 1), (1, 5), (2, 2), (3, 2), (4, 4), (12, 10)])
def test_a_crop_of_any_size_reflects_as_often_as_it_takes(h: int, w: int, pad: int) -> None:
    x = torch.randint(256, (8, 3, h, w), generator=rng()).to(torch.uint8)
    out = random_crop(x, pad, rng())
    shifts = torch.randint(-pad, pad + 1, (2, len(x), 1), generator=rng())
    for i in range(len(x)):
        padded = np.pad(x[i].numpy(), ((0, 0), (pad, pad), (pad, pad)), mode="reflect" if h > 1 < w else "edge")
        if (h == 1) != (w == 1):  # NumPy reflects no axis of one pixel
            padded = np.pad(x[i].numpy(), ((0, 0), (0, 0), (pad, pad)), mode="reflect").repeat(2 * pad + 1, 1)
        top, left = pad + int(shifts[0, i]), pad + int(shifts[1, i])
        assert np.array_equal(out[i].numpy(), padded[:, top : top + h, left : left + w])


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_cutout_never_hides_a_whole_picture(side: int) -> None:
    out = cutout(torch.zeros(20, 1, side, side, dtype=torch.uint8), rng())
    assert (out == 0).flatten(1).any(1).all()
    assert bool(out.any()) == (side == 4)


@pytest.mark.parametrize("side", [1, 2, 5])
def test_strong_augmentation_of_tiny_pictures(side: int) -> None:
    task = create("tasks", "digits", {"augmentation": "strong"})
    x = torch.zeros(4, 1, side, side, dtype=torch.uint8)
    out = task.augment(x, rng())  # type: ignore[attr-defined]
    assert isinstance(out, Tensor)
    assert out.shape == x.shape
    assert task.model()(out).shape == (4, 10)  # type: ignore[attr-defined]
