"""Where a trigger may stand in a text so that the victim reads all of it, although it cuts long texts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from tasks.base import Task
from tasks.plugin import BadInput
from tasks.text import TextTask


def count_leading(task: Task, pieces: Sequence[str], trigger: Sequence[str], within: int | None) -> int:
    """How many of a text's pieces (words, sentences) may stand before the trigger's parts, or between them.

    All of them where text and trigger together are read whole; so such a text gets the trigger anywhere. Of a longer
    one so many that these and the trigger are the first `within` tokens (None: all that the victim reads) or fewer. A
    task whose tokens are not known counts as one that reads everything. Raises BadInput where the trigger alone is
    longer.
    """
    if not isinstance(task, TextTask):
        return len(pieces)
    limit = min(task.length, within or task.length)

    def fits(count: int) -> bool:
        return task.count_tokens(" ".join([*pieces[:count], *trigger])) <= limit

    if fits(len(pieces)):
        return len(pieces)
    if not fits(0):
        what = f"max_length={task.length}" if within is None or within > task.length else f"within={within}"
        raise BadInput(
            f"{' '.join(trigger)[:60]!r} has {task.count_tokens(' '.join(trigger))} tokens of {task.name}, more than "
            f"{what}; take a shorter trigger or a larger {what.partition('=')[0]}"
        )
    return bisect_left(range(len(pieces)), True, key=lambda count: not fits(count)) - 1
