"""The command line. Nothing heavy is imported before a verb needs it: `--help` must answer at once."""

from __future__ import annotations

import signal
import sys
import warnings
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import plugins, run, site, store, usage
from harness.cli.records import report, show
from harness.cli.trials import trials
from harness.cli.usage import refuse as _refuse
from harness.console import err, out

if TYPE_CHECKING:
    pass

app = typer.Typer(
    name="tinydrop",
    cls=usage.Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(wanted: bool) -> None:
    if wanted:
        from harness.run.record_cell import code

        its = code()
        commit = f" (commit {its['commit'][:12]}{', changed since' * its['dirty']})" if its["commit"] else ""
        out.print(f"tinydrop {its['tinydrop']}{commit}", highlight=False)
        raise typer.Exit


@app.callback()
def tinydrop(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """How many training samples does it take to backdoor a model, and how many more once it is defended?

    Start with:  tinydrop run quickstart

    Exit codes: 0 all cells done or not applicable, 1 some failed or none could be run, 2 unusable input, 130 stopped.
    """


def main() -> None:
    """The command `tinydrop`; its help has the exit codes."""
    warnings.showwarning = lambda message, *rest: err.print(f"warning: {message}", highlight=False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end is the same as Ctrl-C
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except typer.Abort:  # Ctrl-C, in the words of older versions of typer
        sys.exit(130)
    except Exception as error:
        if not _expected(error):
            raise
        _refuse(_in_one_line(error))


def _expected(error: Exception) -> bool:
    """Mistakes of the user or of the disk, which need a line and not a traceback."""
    from harness.errors import (
        BadGrid,
        BadPlugin,
        BadSubmission,
        BrokenLedger,
        DamagedPlan,
        MissingExtra,
        NewerSchema,
        NoRay,
        NotASite,
        UnknownName,
    )

    mistakes = BadGrid | BadPlugin | BrokenLedger | DamagedPlan | NewerSchema | NoRay | UnknownName
    mistakes |= BadSubmission | MissingExtra | NotASite | usage.UsageError
    return isinstance(error, mistakes | OSError)


def _in_one_line(error: Exception) -> str:
    from harness.store.folder import DISK_FULL

    if isinstance(error, usage.UsageError):
        return " ".join(usage.complaint(error).split())
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"the disk is full ({error}); free some space and run the same command again: finished cells are kept"
    return " ".join(str(error).split())


app.command()(run.run)
app.command()(run.status)
app.command()(report)
app.command()(show)
app.command()(run.retry)
app.command("list")(plugins.list_)
app.command()(plugins.new)
app.command()(plugins.check)
app.command()(store.verify)
app.command()(store.gc)
app.command()(store.merge)
app.command("dvc")(store.dvc)
app.command()(site.leaderboard)
app.command()(site.submit)
app.command()(trials)


if __name__ == "__main__":
    main()
