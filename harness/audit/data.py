"""The clean data of an audit: files of the user's, or a task of the suite."""

from __future__ import annotations

from typing import Any

from harness.audit.media import require_medium
from harness.console import expand_home, quote
from harness.plugins.registry import create, entries
from tasks.base import Task
from tasks.plugin import BadInput

SOUNDS = (".wav", ".flac")


def open_data(source: str, size: int | None, grey: bool) -> Task:
    """The task that reads a folder of pictures or recordings, a CSV of texts, or the suite's task of this name.

    Raises BadInput for anything else, and for `size` and `grey` where there are no pictures to change.
    """
    path = expand_home(source)
    options: dict[str, Any] = {}
    if not path.exists():
        if source not in entries("tasks"):
            raise BadInput(f"--data {quote(source)}: no such file, and no task of the suite; see `tinydrop list tasks`")
        name = source
    elif path.is_file():
        name, options = "csv_text", {"path": source}
    elif any(file.suffix.lower() in SOUNDS for file in path.rglob("*")):
        name, options = "audio_folder", {"path": source}
    else:
        name, options = "image_folder", {"path": source, "size": size, "colour": "grey" if grey else "rgb"}
    if name != "image_folder" and (size is not None or grey):
        raise BadInput(f"--data {quote(source)}: --size and --grey are for a folder of pictures; leave them out")
    task = create("tasks", name, options)
    assert isinstance(task, Task)
    return require_medium(task)
