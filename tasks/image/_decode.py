"""The decoder of pictures, for folders and Parquet alike: what a person would see of a file, or a refusal."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tasks.image._whole import check_png, pad_scans
from tasks.plugin import BadInput, one_line

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # 8 bits or fewer per channel
BACKGROUND = "white"  # the page that icons, logos and drawings with transparent parts are made for
MOST_TEXT = 2**28  # bytes of texts in a PNG, unpacked: some programs keep their project there
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright


def decode(
    image: bytes | str, channels: int, where: str, size: int | None = None, seen: Counter[str] | None = None
) -> np.ndarray[Any, Any]:
    """uint8 (H, W) or (H, W, 3) of an encoded picture or of the file of that name, resized to size x size where given.

    Transparent parts are laid on white and the EXIF orientation is applied; `seen` counts where that changed anything.
    Colour profiles are not applied. Raises BadInput, which begins with `where`, for what cannot be read, is damaged or
    cut short, moves, or has more than 8 bits per channel. A JPEG and a BMP have no checksums: damage that leaves their
    data as long as before is not found.
    """
    from PIL import Image, PngImagePlugin, UnidentifiedImageError

    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MOST_TEXT
    seen = Counter() if seen is None else seen
    try:
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check(picture, data)
            upright = _turn(picture, seen)
            flat = _lay_on_background(upright, seen) if upright.has_transparency_data else upright
            flat = flat.convert("L" if channels == 1 else "RGB")
            if size and flat.width != flat.height:
                seen["stretched to a square"] += 1
            return np.asarray(flat.resize((size, size), Image.Resampling.BILINEAR) if size else flat)
    except Exception as error:  # Pillow raises a dozen types for damaged files
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else one_line(str(error))[:100]
        raise BadInput(f"{where} cannot be read ({reason or type(error).__name__})") from error


def _check(picture: Picture, data: bytes) -> None:
    """Loads the picture. Raises ValueError unless it is whole, alone in its file and of a depth that 8 bits hold."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit and picture.width * picture.height > limit:
        raise ValueError(f"{picture.width}x{picture.height} pixels: more than {limit}; make it smaller")
    if picture.format == "PNG":
        check_png(data)
    if picture.mode not in MODES:
        raise ValueError(f"mode {picture.mode}: convert it to 8 bits per channel, RGB or grey")
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # which is a JPEG of a phone, with its preview or depths behind it
        raise ValueError(f"an animation of {frames} frames: keep one of them")
    picture.load()
    if picture.format in ("JPEG", "MPO"):
        with Image.open(io.BytesIO(pad_scans(data)), formats=("JPEG",)) as again:
            if again.tobytes() != picture.tobytes():
                raise ValueError("the file is cut short, or damaged")


def _turn(picture: Picture, seen: Counter[str]) -> Picture:
    from PIL import ImageOps

    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception as error:  # whatever a parser of damaged EXIF raises
        raise ValueError("its EXIF data is damaged; remove it") from error
    if orientation not in range(2, 9):
        return picture
    seen["turned as its EXIF data says"] += 1
    return ImageOps.exif_transpose(picture)


def _lay_on_background(picture: Picture, seen: Counter[str]) -> Picture:
    from PIL import Image

    top = picture.convert("RGBA")
    lowest, highest = top.getchannel("A").getextrema()
    if picture.format == "BMP" and highest == 0:  # written by a program that leaves the fourth byte of a pixel empty
        return picture.convert("RGB")
    if lowest < 255:  # type: ignore[operator]
        seen[f"transparent parts laid on {BACKGROUND}"] += 1
    return Image.alpha_composite(Image.new("RGBA", top.size, BACKGROUND), top).convert("RGB")


def size_of(shape: tuple[int, ...]) -> str:
    """A shape (H, W, ...) in words."""
    return f"{shape[1]}x{shape[0]} pixels"


def stack(pixels: list[np.ndarray[Any, Any]]) -> Tensor:
    """uint8 (N, C, H, W) of N arrays (H, W) or (H, W, C)."""
    images = torch.from_numpy(np.stack(pixels))
    return images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
