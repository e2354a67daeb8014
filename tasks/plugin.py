"""What every task, attack and defense is: a named class whose fields are its options; and its two errors."""

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
    """The user asked for something that cannot be: one line with the field, the value and what is valid."""


class NotApplicable(Exception):
    """A plug-in's idea makes no sense here (its cell is recorded as not applicable, with this reason)."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def options(cls: type[T]) -> type[T]:
    """Make a class's fields its validated, immutable, keyword-only options."""
    return pydantic_dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(cls)  # type: ignore[return-value]


class Plugin:
    """Anything the registry finds by its file name. Options are the fields of a frozen dataclass.

    `modalities` says where the idea makes sense ("any": everywhere), `why_not` why it makes none elsewhere, `needs`
    names optional packages or assumptions, `paper` is the source. The registry reads them without running the file:
    keep them literal.
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
        """Files and folders whose content counts like an option: those that options name."""
        return [v for v in self.options().values() if isinstance(v, str) and os.path.exists(v)]
