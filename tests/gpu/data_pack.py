"""The data of a pack: subsets of published datasets that are small enough to travel, as the tasks read them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# KiB of every split at the usual limit; at another one all shrink or grow alike. A dataset that is smaller leaves the
# rest to the last entry, which takes what is left. Only the splits that tasks read are here.
KIB: dict[str, dict[str, int]] = {
    "sms_spam": {"train": 170},
    "vehicle_claim_fraud": {"train": 110, "test": 52},
    "tiny_shakespeare": {"train": 330, "test": 24},
    "wikitext2_eval": {"validation": 300, "test": 150},
    "tinystories": {"train": 330, "validation": 62},
    "alpaca": {"train": 440},
    "bbc_news": {"train": 250, "test": 100},
    "ag_news": {"train": 480, "test": 180},
    "imdb": {"train": 420, "test": 120},  # 1,000 reviews
    "sst2": {"train": 340, "test": 78},  # 20,000 phrases
    "mnist": {"train": 300, "test": 100},
    "fashion_mnist": {"train": 1720, "test": 420},  # 4,000 and a reserve; 1,000
    "speech_commands": {"train": 1440, "validation": 100, "test": 350},  # the reserve of 60 is at most 3/5 of it
    "fsdd": {"train": 3840, "test": 1144},  # 600 and a reserve of 200; half of it for fsdd_synthesiser
    "classic_books": {"train": 5700, "test": 285},
    "cifar10": {"test": 3500, "train": 6460},  # 2,000; all that is left
}
IN_ORDER = {"wikitext2_eval"}  # one row is one line of a text, so the first rows are taken
SEED = 0
FULL = 0.985  # of its room that a split fills before the search for its number of rows ends
TRIES = 8
WEBP = ({"method": 2, "quality": 75}, {"method": 4, "quality": 0})  # the smaller one is kept: 3 % less than method 6


class CannotPack(Exception):
    """What is in the way of a pack, in one line."""


@dataclass(frozen=True)
class Split:
    """A split in the pack: its file below `data`, its rows of how many, its bytes and the files it was made from."""

    file: str
    rows: int
    of: int
    size: int
    source: tuple[Path, ...]


def pack_data(source: Path, target: Path, room: int) -> list[Split]:
    """Writes subsets of the datasets in `source` to `target`, in `room` bytes; the same data give the same bytes.

    Raises CannotPack where none is there, and where the room does not hold one row of every class of every split.
    """
    parts = [
        (name, split, kib, files) for name, splits in KIB.items() for split, kib in splits.items()
        if (files := sorted((source / name).glob(f"{split}-*.parquet")))
    ]  # fmt: skip
    if not parts:
        raise CannotPack(f"{source} has none of the datasets that tasks read; --data names the folder that has them")
    scale = room / sum(1024 * kib for kibs in KIB.values() for kib in kibs.values())
    done: list[Split] = []
    for name, split, kib, files in parts:
        last = (name, split) == parts[-1][:2]
        budget = room - sum(part.size for part in done) if last else int(1024 * kib * scale)
        table = pa.concat_tables([pq.read_table(file) for file in files])
        rows, data = fill(table, budget, rank_rows(table, name in IN_ORDER), sum(f.stat().st_size for f in files))
        file = target / name / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        done.append(Split(f"{name}/{file.name}", rows, len(table), len(data), tuple(files)))
    if (size := sum(part.size for part in done)) > room:
        raise CannotPack(
            f"--limit-mib leaves {room / 2**20:.1f} MiB to the data, and one row of every class of every split takes "
            f"{size / 2**20:.1f}; raise it"
        )
    return done


def rank_rows(table: pa.Table, in_order: bool = False) -> tuple[np.ndarray, int]:
    """(N,) the rows in the order in which they are taken, and how many are the least that are.

    Class by class in turn, so that the first rows are balanced, and drawn with SEED within a class.
    """
    if in_order:
        return np.arange(len(table)), 1
    drawn = np.random.default_rng(SEED).permutation(len(table))
    column = class_column(table)
    if column is None:
        return drawn, 1
    labels = table[column].to_numpy()[drawn]
    turn = np.empty(len(labels), dtype=np.int64)  # the how-manieth of its class a row is
    for label in np.unique(labels):
        mine = labels == label
        turn[mine] = np.arange(mine.sum())
    return drawn[np.lexsort((labels, turn))], len(np.unique(labels))


def features(table: pa.Table) -> dict[str, object]:
    """What each column holds, as `datasets` wrote it into the file."""
    from datasets import Features

    return dict(Features.from_arrow_schema(table.schema))


def class_column(table: pa.Table) -> str | None:
    """The column of class labels, if there is one."""
    return next((name for name, feature in features(table).items() if type(feature).__name__ == "ClassLabel"), None)


def fill(table: pa.Table, budget: int, ranked: tuple[np.ndarray, int], stored: int) -> tuple[int, bytes]:
    """As many rows as `budget` bytes hold, but the least at least: their number, and the Parquet file.

    ranked: what rank_rows gives. stored: the bytes of all rows before.
    """
    order, least = ranked

    def write(rows: int) -> bytes:
        return serialise(shrink_pictures(table.take(np.sort(order[:rows]))))

    low, best, high = 0, b"", len(table) + 1  # `low` rows fit, `high` do not
    rows = min(len(table), max(least, budget * len(table) // stored))
    for _ in range(TRIES):
        data = write(rows)
        if len(data) <= budget:
            low, best = rows, data
        else:
            high = rows
        if low == len(table) or high - low <= 1 or len(best) > FULL * budget or high <= least:
            break
        guess = int(rows * budget / len(data) * (1 + FULL) / 2)
        rows = max(least, min(max(guess, low + 1), high - 1))
    return (low, best) if low >= least else (least, write(least))


def serialise(table: pa.Table) -> bytes:
    """A Parquet file, as small as zstd makes it, with the schema and the metadata of the table."""
    few = [
        field.name for field in table.schema
        if not pa.types.is_struct(field.type) and len(table[field.name].unique()) < len(table) / 2
    ]  # fmt: skip
    out = io.BytesIO()
    pq.write_table(
        table, out, compression="zstd", compression_level=19, use_dictionary=few, write_statistics=False,
        row_group_size=len(table), data_page_size=2**27,
    )  # fmt: skip
    return out.getvalue()


def shrink_pictures(table: pa.Table) -> pa.Table:
    """The table with every colour picture stored in fewer bytes, the same in every pixel."""
    for name, feature in features(table).items():
        if type(feature).__name__ == "Image":
            cells = [_change(cell, shrink_picture) for cell in table[name].to_pylist()]
            at = table.schema.get_field_index(name)
            table = table.set_column(at, table.schema.field(at), pa.array(cells, table.schema.field(at).type))
    return table


def _change(cell: dict[str, object], change: Callable[[bytes], bytes]) -> dict[str, object]:
    return {**cell, "bytes": change(cell["bytes"])} if isinstance(cell["bytes"], bytes) else cell


@cache
def shrink_picture(data: bytes) -> bytes:
    """The smallest of a colour picture as it is and as lossless WebP; grey ones stay, as WebP knows no grey.

    So do those that say more than their pixels: which way is up, or a colour that is transparent.
    """
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        if picture.mode != "RGB" or picture.getexif() or picture.has_transparency_data:
            return data
        found = [data]
        for how in WEBP:
            out = io.BytesIO()
            picture.save(out, "WEBP", lossless=True, **how)
            found.append(out.getvalue())
    return min(found, key=len)
