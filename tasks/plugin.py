"""The base of tasks, attacks and defenses: a named class whose fields are its options; and its two errors."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, cast, dataclass_transform, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

T = TypeVar("T")
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Above0 = Annotated[float, Field(gt=0)]
AtLeast0 = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class NamesFiles:
    """Says in an option's type that its value names a file or a folder, whose content then counts in every key.

    besides: values that are something else, though a file may happen to have that name. A name of the Hub counts where
    there is a folder of that name, since that is what would be read.
    """

    besides: tuple[str, ...] = ()


FileName = Annotated[str, NamesFiles(), Field(json_schema_extra={"format": "path"})]

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
    """Make a class's fields its validated, immutable, keyword-only options.

    Nothing is converted, but for whole numbers where any number will do: true is not 1, nor "5" or 5.0 the integer 5.
    Numbers are finite. Raises TypeError for a new default of a base's option without its type: it would have no effect.
    """
    inherited = {field.name: field for base in cls.__mro__[:0:-1] if is_dataclass(base) for field in fields(base)}
    for name in sorted((inherited.keys() & vars(cls).keys()) - inspect.get_annotations(cls).keys()):
        value, kind = vars(cls)[name], inherited[name].type
        if not callable(value) and not hasattr(value, "__get__"):
            kind = kind if isinstance(kind, str) else getattr(kind, "__name__", type(value).__name__)
            raise TypeError(
                f"{cls.__name__}: {name} = {value!r} has no type, so the option would keep its old default; "
                f"write `{name}: {kind} = {value!r}`"
            )
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    return pydantic_dataclass(frozen=True, kw_only=True, config=config)(cls)  # type: ignore[return-value]


def require_words(cls: type, name: str, valid: Iterable[str] = ()) -> None:
    """Raises TypeError unless a class variable is a tuple of texts, and of the valid ones where these are given."""
    words, valid = getattr(cls, name), tuple(valid)
    if not isinstance(words, tuple | list) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"{cls.__name__}: {name} = {words!r} is no tuple of texts; write `{name} = ({str(words)!r},)`")
    if wrong := next((word for word in words if valid and word not in valid), None):
        raise TypeError(f"{cls.__name__}: {name} = {words!r} holds {wrong!r}; valid are {', '.join(valid)}")


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
        require_words(cls, "modalities")

    def options(self) -> dict[str, Any]:
        """Every option with its value, defaults included."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def files(self) -> list[str]:
        """The files and folders that options name and that are there: their content counts in keys like an option.

        Options say so by their type (`FileName`); what else a plug-in reads it adds here. Raises BadInput for a path
        with an unknown variable.
        """
        found, cls = [], cast(Any, type(self))
        for option, marker in _file_options(cls).items():
            for name in _texts_in(getattr(self, option)):
                try:
                    path = expand_path(name)
                except BadInput as error:
                    raise BadInput(f"{self.name}.{option}={name!r}: {error}") from None
                if name and name not in marker.besides and os.path.exists(path):
                    found.append(str(path))
        return found


def find_model(name: str) -> str:
    """What transformers is to load: the folder that this name means here, or else the name, which is one of the Hub."""
    folder = expand_path(name)
    return str(folder) if folder.is_dir() else name


@cache
def _file_options(cls: Any) -> dict[str, NamesFiles]:
    """The options of a class that name files; also those whose values are tuples of names, or may be missing."""
    known = getattr(cls, "__pydantic_fields__", {})
    found = {name: [*field.metadata, *_metadata_in(field.annotation)] for name, field in known.items()}
    marked = {name: [m for m in parts if isinstance(m, NamesFiles)] for name, parts in found.items()}
    return {name: markers[0] for name, markers in marked.items() if markers}


def _metadata_in(annotation: Any) -> Iterator[Any]:
    yield from getattr(annotation, "__metadata__", ())
    for part in get_args(annotation):
        yield from _metadata_in(part)


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts_in(part)
