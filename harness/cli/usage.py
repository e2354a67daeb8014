"""What is wrong with the words of a command, in the one line that every other mistake gets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperGroup

from harness.console import err
from harness.errors import UnknownName
from harness.plugins.registry import suggest

if TYPE_CHECKING:
    pass

UsageError: Any = typer.BadParameter.__mro__[1]  # typer takes it from click or, by its version, brings its own


class Commands(TyperGroup):
    """The commands by name; an unknown one is refused like any other unknown name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands:
            raise UnknownName(suggest("COMMAND", args[0], self.commands))
        return super().resolve_command(ctx, args)


def complaint(error: Any) -> str:
    """Of a UsageError: the option or argument, its value, and what is valid or where that stands."""
    command = f"tinydrop {error.ctx.info_name}" if error.ctx and error.ctx.parent else "tinydrop"
    if hasattr(error, "possibilities"):
        names = [name for param in error.ctx.command.params for name in (*param.opts, *param.secondary_opts)]
        return suggest(command, error.option_name, [name for name in names if name.startswith("-")])
    said = error.format_message().rstrip(".")
    invalid, _, where = said.partition("Invalid value for ")
    if where and not invalid:
        name, _, why = where.partition(": ")
        return _unusable(name.replace("'", ""), why.removeprefix("Value error, "), error.__cause__)
    return f"{said[0].lower()}{said[1:]}; see `{command} --help`"


def _unusable(name: str, why: str, cause: Any) -> str:
    """A value that an option or argument cannot have, and why."""
    value = str(cause.errors()[0]["input"]) if hasattr(cause, "errors") else ""
    return f"{name}: {why}" if value in why else f"{name} {value}: {why[0].lower()}{why[1:]}"


def refuse(message: str) -> NoReturn:
    err.print(f"error: {message}", highlight=False, soft_wrap=True)
    sys.exit(2)
