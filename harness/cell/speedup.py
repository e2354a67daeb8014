"""The ways to compute a victim faster; without torch, since the command line names them in its help."""

from __future__ import annotations

from typing import Literal

# compile: torch.compile. graphs: CUDA graphs of classifiers (harness.cell.graphs).
Speedup = Literal["none", "compile", "graphs"]
