"""The base of tasks, attacks and defenses: a named class whose fields are its options; and its two errors."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Annotated, Any, ClassVar, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

T = TypeVar("T")
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Above0 = Annotated[float, Field(gt=0)]
AtLeast0 = Annotated[float, Field(ge=0)]


class BadInput(ValueError):
    """The user asked for something impossible: one line with the field, the value and what is valid."""


class NotApplicable(Exception):
    """A plug-in cannot sensibly be used here; its cell is recorded as not applicable, with this reason."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def options(cls: type[T]) -> type[T]:
    """Make a class's fields its validated, immutable, keyword-only options.

    Nothing is converted, but for whole numbers where any number will do: true is not 1, nor "5" or 5.0 the integer 5.
    Numbers are finite.
    """
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return pydantic_dataclass(frozen=True, kw_only=True, config=config)(cls)  # type: ignore[return-value]


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
