"""Cells that were run on different data never share a line of a table, though their task has one label."""

from __future__ import annotations

import re

import pandas as pd

MARK = re.compile(r" \[data [0-9a-f]*\]$")  # at the end of a task's label, where there are several


def keep_apart(cells: pd.DataFrame) -> pd.DataFrame:
    """The same cells. Where those of one task's label were trained on different data, the label says on which.

    `digits` becomes `digits [data 8a1f03c2]`, by the beginning of the training set's fingerprint (column `data`). Cells
    without one, which never came as far as the data, keep the label.
    """
    if cells.empty or "data" not in cells:
        return cells
    data = cells.data.fillna("").astype(str).str.replace(r"[^0-9a-f]", "", regex=True).str[:8]
    known = data != ""
    several = data[known].groupby(cells.task[known]).nunique() > 1
    apart = known & cells.task.isin(several.index[several])
    return cells.assign(task=cells.task.where(~apart, cells.task + " [data " + data + "]"))


def join_labels(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells with the labels that they had before `keep_apart`."""
    return cells if cells.empty else cells.assign(task=cells.task.str.replace(MARK, "", regex=True))


def explain_apart(cells: pd.DataFrame) -> list[str]:
    """One line for every task that `keep_apart` has found on different data."""
    labels = [label for label in dict.fromkeys(cells.task) if MARK.search(label)] if len(cells) else []
    by_task: dict[str, list[str]] = {}
    for label in labels:
        by_task.setdefault(MARK.sub("", label), []).append(label)
    return [f"{task}: its data changed between runs; kept apart are {', '.join(s)}" for task, s in by_task.items()]
