"""The application: its commands, and how an error ends it."""

from __future__ import annotations

import io
import signal
import sys
import warnings
from typing import Annotated

import typer

from harness.cli import plugins, run, site, store, usage
from harness.cli.audit import audit
from harness.cli.certify import certify
from harness.cli.data import data
from harness.cli.doctor import doctor
from harness.cli.records import report, show
from harness.cli.status import status
from harness.cli.trials import trials
from harness.cli.vet import vet
from harness.console import err, one_line, out

app = typer.Typer(
    name="tinydrop",
    cls=usage.Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(asked: bool) -> None:
    if asked:
        from harness.run.provenance import code_version

        code = code_version()
        commit = f" (commit {code['commit'][:12]}{', changed since' * code['dirty']})" if code["commit"] else ""
        out.print(f"tinydrop {code['tinydrop']}{commit}", highlight=False)
        raise typer.Exit


@app.callback()
def tinydrop(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """How many training samples does it take to backdoor a model, and how many more once it is defended?

    Start with:  tinydrop run quickstart

    Exit codes: 0 all cells done or not applicable, 1 some failed or none could be run, 2 unusable input, 130 stopped.
    """


def main() -> None:
    """The command `tinydrop`; its help has the exit codes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that is not UTF-8, or not of this terminal
    warnings.showwarning = lambda message, *rest: err.print(f"warning: {one_line(message, None)}", highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends a run as Ctrl-C does
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except typer.Abort:  # Ctrl-C in older versions of typer
        sys.exit(130)
    except Exception as error:
        message = _message(error)
        if message is None:
            raise
        usage.refuse(message)


def _message(error: Exception) -> str | None:
    """The line for a mistake of the user or of the disk, which needs no traceback; None for any other error."""
    from harness.errors import Refused
    from harness.store.folder import DISK_FULL
    from tasks.plugin import BadInput

    if isinstance(error, usage.UsageError):
        return one_line(usage.complaint(error), None)
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"the disk is full ({error}); free some space and run the same command again: finished cells are kept"
    return one_line(error, None) if isinstance(error, Refused | BadInput | OSError) else None


app.command()(run.run)
app.command()(status)
app.command()(report)
app.command()(show)
app.command()(run.retry)
app.command("list")(plugins.list_)
app.command()(plugins.new)
app.command()(plugins.check)
app.command()(audit)
app.command()(certify)
app.command()(data)
app.command()(doctor)
app.command()(store.verify)
app.command()(store.gc)
app.command()(store.merge)
app.command("dvc")(store.dvc)
app.command()(site.leaderboard)
app.command()(site.submit)
app.command()(trials)
app.command()(vet)


if __name__ == "__main__":
    main()
