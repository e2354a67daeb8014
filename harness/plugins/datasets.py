"""Which datasets the tasks read, from where, and what of them is on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.plugins.registry import entries, load_class

HUB = "https://huggingface.co/datasets"


@dataclass
class Dataset:
    """One dataset. hub: its id there, or its name where it is not on the Hub. place: where it lies, "" for nowhere."""

    dataset: str
    hub: str
    licence: str
    place: str = ""
    size: int = 0  # bytes here
    tasks: list[str] = field(default_factory=list)


def list_datasets() -> list[Dataset]:
    """Every dataset that the suite's own tasks read, by name; one that several tasks read is there once."""
    found: dict[str, Dataset] = {}
    for name, entry in entries("tasks").items():
        cls = load_class("tasks", name)
        hub, folder = getattr(cls, "dataset", ""), getattr(cls, "folder", "")
        if entry.source or not folder or hub in ("", "embedded"):
            continue
        row = found.setdefault(folder, Dataset(folder, hub, getattr(cls, "licence", "")))
        row.tasks.append(name)
    for row in found.values():
        row.place, row.size = _locate(row)
    return sorted(found.values(), key=lambda row: row.dataset)


def _locate(row: Dataset) -> tuple[str, int]:
    """Where the data lies, and how many bytes: TINYDROP_DATA first, as tasks look there first."""
    from tasks.files import data_folder  # imported late: torch, which a list need not load

    if folder := data_folder(row.dataset):
        return "TINYDROP_DATA", _bytes_in(folder)
    from datasets import config  # imported late: as above

    cache = Path(config.HF_DATASETS_CACHE) / row.hub.replace("/", "___").lower()
    return ("Hub's cache", _bytes_in(cache)) if cache.is_dir() else ("", 0)


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
