"""Datasets from the Hub through `datasets`, or from the folder that TINYDROP_DATA names."""

from __future__ import annotations

from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tasks.base import Task, refuse_while_sealed
from tasks.caches import cached
from tasks.files import data_folder, data_root, files_hash, find_copies, list_parquet, read_from
from tasks.plugin import BadInput, one_line
from tasks.samples import Samples

if TYPE_CHECKING:
    from datasets import Dataset


LFS = b"version https://git-lfs"  # how a Git LFS pointer begins


def local_folder(name: str) -> Path | None:
    """TINYDROP_DATA/name if it exists.

    Raises BadInput if it holds nothing but a pointer of DVC or Git LFS, or if TINYDROP_DATA itself is no folder: other
    data than those meant would be taken from the Hub.
    """
    folder, root = data_folder(name), data_root()
    if root and not root.is_dir():
        raise BadInput(f"dataset {name!r}: TINYDROP_DATA={root} is no folder; mend it, or unset it to use the Hub")
    if folder is None:
        if root and (pointer := root / f"{name}.dvc").is_file():
            raise BadInput(f"dataset {name!r}: only its DVC pointer is there; `dvc pull {pointer}`")
        return None
    for file in folder.glob("*.parquet"):
        with file.open("rb") as data:
            if data.read(len(LFS)) == LFS:
                raise BadInput(f"dataset {name!r}: {file} is a Git LFS pointer; `git lfs pull` in its repository")
    read_from.add(folder.resolve())
    return folder


@refuse_while_sealed
def dataset_dict(
    hub_id: str, folder: str, revision: str | None = None, data_dir: str | None = None
) -> dict[str, Dataset]:
    """Every split of a dataset: from TINYDROP_DATA/folder if that exists, otherwise from the Hub.

    revision: the Hub's commit or branch. data_dir: a folder inside the Hub's repository, where it holds several sets.
    Raises BadInput, which names both ways to get it, if neither works.
    """
    import datasets

    datasets.disable_progress_bars()
    local = local_folder(folder)
    if local is not None:
        return _read_local(local, folder)
    try:
        return dict(datasets.load_dataset(hub_id, revision=revision, data_dir=data_dir))
    except Exception as error:  # the library raises a dozen types for "not there"; all mean the same to the user
        raise BadInput(
            f"dataset {folder!r} cannot be read on the Hub ({_name_cause(error)}); "
            f"either go online once so that `datasets` can fetch {hub_id!r}, or set TINYDROP_DATA to a folder "
            f"that holds {folder}/<split>-*.parquet with the Hub's columns"
        ) from error


def _read_local(local: Path, folder: str) -> dict[str, Dataset]:
    """The splits in a folder of TINYDROP_DATA. Raises BadInput, which names a file that is damaged or there twice."""
    import datasets

    if copies := find_copies(local):
        raise BadInput(
            f"dataset {folder!r}: {copies[0]!r} and {copies[1]!r} in {local} have the same content; remove one of them"
        )
    # Each content has a cache of its own: that of `datasets` tells files apart by their times alone.
    place = Path(datasets.config.HF_DATASETS_CACHE) / "tinydrop" / files_hash(str(local))
    loudness = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what fails is said below, in one line
    try:
        return dict(datasets.load_dataset(str(local), cache_dir=str(place)))
    except Exception as error:
        damaged = next((file for file in list_parquet(local) if not _is_sound(file)), None)
        where, what = (f": {damaged}", "that file") if damaged else (f" in {local}", "the files")
        raise BadInput(
            f"dataset {folder!r}{where} cannot be read ({_name_cause(error)}); replace {what}; needed are "
            f"{folder}/<split>-*.parquet with the Hub's columns"
        ) from error
    finally:
        datasets.logging.set_verbosity(loudness)


def _is_sound(parquet: str) -> bool:
    """Whether all of a Parquet file can be read."""
    from pyarrow import ArrowException  # type: ignore[import-untyped]
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    try:
        with ParquetFile(parquet) as file:
            for _ in file.iter_batches():
                pass
    except (ArrowException, OSError):
        return False
    return True


def _name_cause(error: BaseException) -> str:
    """What an error first came of: `datasets` wraps it in one that says nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = (str(error).splitlines() or [""])[0]
    return one_line(f"{type(error).__name__}: {first[:120]}")


def columns(split: Dataset, folder: str, *names: str) -> list[Any]:
    """The columns of these names. Raises BadInput, which names a missing one and those that exist."""
    missing = [n for n in names if n not in split.column_names]
    if missing:
        raise BadInput(f"dataset {folder!r}: column {missing[0]!r} is missing, it has {', '.join(split.column_names)}")
    return [split[n] for n in names]


def texts_of(split: Dataset, folder: str, name: str) -> list[str]:
    """A column of texts. Raises BadInput, which names a missing column, or the first row that is not a text."""
    texts = list(columns(split, folder, name)[0])
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadInput(one_line(f"dataset {folder!r}: {name} of row {row} is {repr(text)[:60]}, not a text"))
    return texts


def read_texts(hub_id: str, folder: str, split: str) -> list[str]:
    """The column `text` of a split."""
    return texts_of(dataset_dict(hub_id, folder)[split], folder, "text")


@refuse_while_sealed
@cached(maxsize=1)
def read_once(task: Task) -> tuple[Samples, Samples]:
    """The splits of a published task, for tasks made of its parts; cached, as decoding images takes seconds."""
    return task.read()


def as_targets(labels: Any, k: int, where: str) -> Tensor:
    """(N,) int64 class labels in 0 to k-1. Raises BadInput, which names the first row with another one.

    Floating-point numbers count where they are whole: a column that once lacked a value is often stored as such.
    """
    values = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    for row, label in enumerate(values):
        whole = isinstance(label, Integral) or (isinstance(label, Real) and float(label).is_integer())
        if not whole or not 0 <= label < k:
            shown = repr(label)[:60]
            raise BadInput(one_line(f"{where}: row {row} has label {shown}, valid are 0 to {k - 1}"))
    return torch.tensor([int(label) for label in values], dtype=torch.int64)


def make_samples(
    inputs: Tensor | list[str], targets: Tensor, first_id: int = 0, sources: Tensor | None = None
) -> Samples:
    """Samples with ids first_id, first_id + 1, ..."""
    return Samples(inputs, targets, torch.arange(first_id, first_id + len(targets)), sources)
