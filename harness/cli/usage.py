"""Mistakes in the words of a command, told in one line like every other mistake."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from harness.console import err
from harness.errors import UnknownName
from harness.plugins.registry import suggest

UsageError: Any = typer.BadParameter.__mro__[1]  # click's, or typer's own, depending on its version


class Commands(TyperGroup):
    """The commands by name; an unknown one is refused like any other unknown name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands:
            raise UnknownName(suggest("COMMAND", args[0], self.commands))
        return super().resolve_command(ctx, args)


def complaint(error: Any) -> str:
    """A UsageError in words: the option or argument, its value, and what is valid or where to read it."""
    command = f"tinydrop {error.ctx.info_name}" if error.ctx and error.ctx.parent else "tinydrop"
    if hasattr(error, "possibilities"):
        names = [name for param in error.ctx.command.params for name in (*param.opts, *param.secondary_opts)]
        return suggest(command, error.option_name, [name for name in names if name.startswith("-")])
    text = error.format_message().rstrip(".")
    invalid, _, where = text.partition("Invalid value for ")
    if where and not invalid:
        name, _, why = where.partition(": ")
        return _describe_value(name.replace("'", ""), why.removeprefix("Value error, "), error.__cause__)
    return f"{text[0].lower()}{text[1:]}; see `{command} --help`"


def _describe_value(name: str, why: str, cause: Any) -> str:
    """Why an option or argument cannot have its value."""
    value = str(cause.errors()[0]["input"]) if hasattr(cause, "errors") else ""
    return f"{name}: {why}" if value in why else f"{name} {value}: {why[0].lower()}{why[1:]}"


def refuse(message: str) -> NoReturn:
    """Print the error and exit with 2."""
    err.print(f"error: {message}", highlight=False, soft_wrap=True)
    sys.exit(2)
