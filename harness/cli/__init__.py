"""The command line. Nothing heavy is imported before a command needs it: `--help` and `list` must answer at once."""

from harness.cli.app import main

__all__ = ["main"]
