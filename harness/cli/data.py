"""The command about datasets: which there are, and how to get one."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.console import err, new_table, out


def data(
    get: Annotated[list[str] | None, typer.Argument(metavar="get NAME", help="Fetch a dataset from the Hub.")] = None,
) -> None:
    """List the datasets that tasks read: where from, licence, what is here; or fetch one.

    A dataset is read from $TINYDROP_DATA/<name>/<split>-*.parquet where that is there, otherwise from the Hugging Face
    Hub, whose library keeps it. A machine without network needs either; quickstart needs neither.

    Example:  tinydrop data
    Example:  tinydrop data get sst2
    """
    from harness.errors import UnknownName
    from harness.plugins.datasets import HUB, list_datasets
    from harness.plugins.registry import create, suggest
    from tasks.base import Task
    from tasks.plugin import BadInput

    known = {row.dataset: row for row in list_datasets()}
    if not get:
        table = new_table("datasets", ["name", "on the Hub"], ["MB here"], ["here", "licence", "tasks"])
        for row in known.values():
            size = f"{row.size / 1e6:,.0f}" if row.size else ""
            table.add_row(row.dataset, row.hub, size, row.place or "-", row.licence, ", ".join(row.tasks))
        out.print(table)
        return
    if get[0] != "get" or len(get) != 2:
        raise BadInput(f"data {' '.join(get)}: write `tinydrop data`, or `tinydrop data get NAME`")
    if get[1] not in known:
        raise UnknownName(suggest("dataset", get[1], known))
    row = known[get[1]]
    where = f"{HUB}/{row.hub}" if "/" in row.hub else "not on the Hub"
    err.print(f"{row.dataset}: {where}, licence {row.licence}", highlight=False, soft_wrap=True)
    task = create("tasks", row.tasks[0])
    assert isinstance(task, Task)
    splits = task.load()
    sizes = {"training": splits.train, "test": splits.test, "reserve": splits.reserve}
    said = ", ".join(f"{len(rows):,} {name}" for name, rows in sizes.items())
    out.print(f"{row.dataset}: there; {task.name} reads {said} rows of it", highlight=False, soft_wrap=True)
