"""Where commands write."""

from __future__ import annotations

import os
import sys

from rich.console import Console

_width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140  # a file or a log has no width of its own
out = Console(width=_width, markup=False)  # names, paths and reasons may hold what rich would take for markup
err = Console(stderr=True, width=_width, markup=False)
