"""The clean data of an audit: a folder of the user's, or a task of the suite."""

from __future__ import annotations

from typing import Any

from harness.console import expand_home, quote
from harness.plugins.registry import create, entries
from tasks.image import ImageTask
from tasks.plugin import BadInput

FOLDER = "image_folder"


def open_data(source: str, size: int | None, grey: bool) -> ImageTask:
    """The task that reads a folder of pictures, or the suite's image task of this name. Raises BadInput."""
    if expand_home(source).exists():
        options: dict[str, Any] = {"path": source, "size": size, "colour": "grey" if grey else "rgb"}
        task = create("tasks", FOLDER, options)
    elif source in entries("tasks"):
        if size is not None or grey:
            raise BadInput(f"--data {source}: is a task, whose pictures are as they are; leave --size and --grey out")
        task = create("tasks", source, {})
    else:
        raise BadInput(f"--data {quote(source)}: no such folder, and no task of the suite; see `tinydrop list tasks`")
    if not isinstance(task, ImageTask):
        raise BadInput(f"--data {source}: is no task of pictures, and an audit reads nothing else yet")
    return task
