"""Whether the bytes of a picture are all there, where Pillow fills what is missing or passes over damage."""

from __future__ import annotations

import re
import zlib

MARKER = re.compile(
    rb"\xff+[^\x00\xff]"
)  # in the scan of a JPEG: FFs may fill up before it, and one of the data has 00 behind it
PNG = b"\x89PNG\r\n\x1a\n"
FILLER = b"\xb7\x31\x9d" * 30  # found by trial: it reads as other picture than the zeros that libjpeg goes on with


def check_png(data: bytes) -> None:
    """Raises ValueError unless every chunk up to the last one is there and has its checksum, or for 16 bits."""
    at = len(PNG)
    while data[at + 4 : at + 8] != b"IEND":
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if end > len(data):
            raise ValueError("the file is cut short")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise ValueError(f"damaged: the checksum of its chunk {data[at + 4 : at + 8]!r} is wrong")
        at = end
    if data[24] == 16:  # Pillow keeps the upper 8 of them, so that a picture of values up to 255 is black
        raise ValueError("16 bits per channel: convert it to 8 bits per channel")


def pad_scans(data: bytes) -> bytes:
    """A JPEG with bytes inserted at the end of all its data.

    A decoder passes over them where the data is complete, and reads them as picture where it ends early, which it
    would otherwise fill in silence. Raises ValueError if the file has no end, or not all scans of a progressive one.
    """
    at, padded, components, exact = 2, [data[:2]], b"", set()
    while True:
        marker, size = data[at : at + 2], int.from_bytes(data[at + 2 : at + 4])
        if marker == b"\xff\xff":  # padding between segments
            at += 1
            continue
        if marker == b"\xff\xd9":
            break
        if len(marker) < 2 or marker[0] != 0xFF or at + 2 + size > len(data):
            raise ValueError("the file is cut short, or damaged")
        segment = data[at + 4 : at + 2 + size]
        padded.append(data[at : at + 2 + size])
        at += 2 + size
        if 0xC0 <= marker[1] <= 0xCF and marker[1] not in (0xC4, 0xC8, 0xCC):
            components = segment[6::3]  # of the frame
        if marker[1] != 0xDA:
            continue
        ids, (first, last, bits) = segment[1 : 2 * segment[0] + 1 : 2], segment[2 * segment[0] + 1 :][:3]
        if not bits & 15:  # these coefficients are now exact
            exact |= {(c, k) for c in ids for k in range(first, last + 1)}
        for stop in MARKER.finditer(data, at):
            padded += [data[at : stop.start()], FILLER]
            at = stop.end() - 2
            if not 0xD0 <= data[at + 1] <= 0xD7:  # not a restart, after which the scan goes on
                break
        else:
            raise ValueError("the file is cut short")
    if {(c, k) for c in components for k in range(64)} - exact:
        raise ValueError("the file is cut short: some of its scans are missing")
    return b"".join([*padded, data[at:]])
