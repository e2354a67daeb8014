"""Carrying a grid out: `from harness.run import run` is the way in from Python."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.run.api import run as run


def __getattr__(name: str) -> Any:
    if name == "run":  # imported late, for the start-up time of commands that run nothing
        from harness.run.api import run  # imported late: for commands that run nothing

        return run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
