"""One wandb run per grid: a step per cell, the cells as a table, the figures. It never stops a run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from harness.grid import Grid
from harness.records import Record
from harness.report import cells_frame
from harness.store import Store

Mode = Literal["offline", "online", "disabled"]


class Logger:
    """Does nothing; what `--wandb disabled` gets."""

    def cell(self, record: Record) -> None:
        """A cell has ended."""

    def finish(self, figures: list[Path]) -> None:
        """All cells have ended."""


class WandbLogger(Logger):
    """A real wandb run. The first error turns it off with a warning."""

    def __init__(self, mode: Mode, name: str, grid: Grid, store: Store) -> None:
        import wandb

        self.store, self.records, self.wandb, self.run = store, [], wandb, None  # type: ignore[var-annotated]
        # The user's shell may have logged in, or not: an unanswered prompt would stop the run.
        settings = wandb.Settings(silent=True, login_timeout=10, init_timeout=30)
        try:
            self.run = wandb.init(
                mode=mode, project="tinydrop", name=Path(name).stem, dir=str(store.root), config=asdict(grid),
                settings=settings,
            )  # fmt: skip
        except Exception as error:
            self.off(error)

    def cell(self, record: Record) -> None:
        self.records.append(record)
        values: dict[str, Any] = {"dose": record.dose, "seed": record.seed, "seconds": record.seconds.get("total", 0.0)}
        place = f"{record.task.label}/{record.attack.label}/{record.defense.label}"
        values |= {f"{place}/{k}": m.value for k, m in record.metrics.items()}
        self.attempt(lambda run: run.log(values))

    def finish(self, figures: list[Path]) -> None:
        frame = cells_frame(self.records)
        if not frame.empty:
            cells = frame.astype(object).where(frame.notna(), None)  # a column may miss a number, not hold a text
            self.attempt(lambda run: run.log({"cells": self.wandb.Table(dataframe=cells)}))
        for path in figures:
            if path.suffix == ".png":
                self.attempt(lambda run, path=path: run.log({path.stem: self.wandb.Image(str(path))}))
        self.attempt(lambda run: run.finish())

    def attempt(self, act: Any) -> None:
        if self.run is not None:
            try:
                act(self.run)
            except Exception as error:
                self.off(error)

    def off(self, error: Exception) -> None:
        self.run = None
        warnings.warn(f"wandb is off for the rest of this run: {str(error).splitlines()[0][:200]}", stacklevel=2)


@contextmanager
def logger(mode: Mode, name: str, grid: Grid, store: Store) -> Iterator[Logger]:
    """The logger of a mode: disabled, offline or online."""
    if mode == "disabled":
        yield Logger()
        return
    store.root.mkdir(parents=True, exist_ok=True)
    if mode == "online" and not (os.environ.get("WANDB_API_KEY") or (Path.home() / ".netrc").is_file()):
        warnings.warn(
            "wandb: not logged in (`wandb login`, or set WANDB_API_KEY); logging offline instead", stacklevel=2
        )
        mode = "offline"
    yield WandbLogger(mode, name, grid, store)
