"""The base of tasks, attacks and defenses: a named class whose fields are its options; and its two errors."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

T = TypeVar("T")
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Above0 = Annotated[float, Field(gt=0)]
AtLeast0 = Annotated[float, Field(ge=0)]


LITTER = frozenset({
    "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",  # Windows
    "__macosx", "icon\r",  # macOS, which hides the rest
    "@eadir", "lost+found",
})  # fmt: skip


class BadInput(ValueError):
    """The user asked for something impossible: one line with the field, the value and what is valid."""


class NotApplicable(Exception):
    """A plug-in cannot sensibly be used here; its cell is recorded as not applicable, with this reason."""


def is_litter(path: str | Path) -> bool:
    """Whether a file or folder is hidden, or one that operating systems leave about; only its own name is looked at.

    Such entries of a user's folder are never read, and count in no key.
    """
    name = Path(path).name
    return name.startswith(".") or name.lower() in LITTER


def expand_path(text: str) -> Path:
    """A path as the user wrote it, with ~ and $VARIABLES filled in.

    A path that exists as written is taken as written. Raises BadInput, which names a variable that is not set.
    """
    if os.path.exists(text):
        return Path(text)
    for braced, plain in re.findall(r"\$(?:\{([^}]*)\}|(\w+))", text, re.ASCII):
        if (variable := braced or plain) not in os.environ:
            raise BadInput(f"the environment variable ${variable} is not set")
    return Path(os.path.expanduser(os.path.expandvars(text)))


def one_line(text: str) -> str:
    """The text on one line that can be printed anywhere: what cannot be shown is escaped, as in a Python string."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass_transform(frozen_default=True, kw_only_default=True)
def options(cls: type[T]) -> type[T]:
    """Make a class's fields its validated, immutable, keyword-only options."""
    return pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(cls)  # type: ignore[return-value]


class Plugin:
    """Anything that the registry finds by its file name. Options are the fields of a frozen dataclass.

    `modalities` lists what the plug-in is for ("any" is everything), `why_not` says why it is not for the rest, `needs`
    names optional packages or assumptions, and `paper` is the source. The registry reads these without running the
    file, so they must be literals.
    """

    name: ClassVar[str] = ""
    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio")
    why_not: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    paper: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = cls.__module__.rpartition(".")[2]

    def options(self) -> dict[str, Any]:
        """Every option with its value, defaults included."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def files(self) -> list[str]:
        """The files and folders that options name: their content counts in keys like an option."""
        return [v for v in self.options().values() if isinstance(v, str) and os.path.exists(v)]
