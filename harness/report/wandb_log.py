"""Logs a run folder as one wandb run: a step per cell over its dose, the tables, the figures. It never stops a run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from harness.grid.grid import Grid
from harness.report.tables import Tables
from harness.store import ledger
from harness.store.folder import Store
from harness.store.records import Record

Mode = Literal["offline", "online", "disabled"]


class Logger:
    """Logs nothing; for `--wandb disabled`."""

    def log_cell(self, record: Record) -> None:
        """A cell has ended."""

    def finish(self, tables: Tables, figures: list[Path]) -> None:
        """All cells have ended; the tables hold those of earlier runs of the folder too."""


class WandbLogger(Logger):
    """One run folder is one wandb run, also when it is resumed. The first error turns logging off with a warning."""

    def __init__(self, mode: Mode, name: str, grid: Grid, store: Store) -> None:
        import wandb  # imported late: takes seconds, and not every run logs

        self.mode, self.name, self.grid, self.store, self.wandb = mode, Path(name).stem, grid, store, wandb
        self.run: Any = None
        self.usable = True
        self.with_axis: set[str] = set()  # task/attack/defense whose metrics have the dose as their axis

    def start(self) -> Any:
        """Only once the ledger has begun: its first entry identifies the folder, wherever it is moved."""
        # The user may not be logged in, and a prompt that nobody answers would stop the run.
        settings = self.wandb.Settings(silent=True, login_timeout=10, init_timeout=30)
        run = self.wandb.init(
            mode=self.mode, project="tinydrop", name=self.name, dir=str(self.store.root), config=asdict(self.grid),
            id=ledger.identity(self.store.root)[:16], resume="allow", settings=settings,
        )  # fmt: skip
        run.define_metric("dose")
        return run

    def log_cell(self, record: Record) -> None:
        values: dict[str, Any] = {"dose": record.dose, "seed": record.seed, "seconds": record.seconds.get("total", 0.0)}
        prefix = f"{record.task.label}/{record.attack.label}/{record.defense.label}"
        values |= {f"{prefix}/{name}": metric.value for name, metric in record.metrics.items()}
        if prefix not in self.with_axis:  # not "*": pictures and tables would get a dose too
            self.with_axis.add(prefix)
            self.attempt(lambda run: run.define_metric(f"{prefix}/*", step_metric="dose"))
        self.attempt(lambda run: run.log(values))

    def finish(self, tables: Tables, figures: list[Path]) -> None:
        """Log every table and every figure, and keep them as files of the artifact `report-<run id>`."""
        for name, frame in vars(tables).items():
            if not frame.empty:
                self.attempt(partial(self.log_table, name=name, frame=frame))
        for path in figures:
            if path.suffix == ".png":
                self.attempt(partial(self.log_picture, path=path))
        self.attempt(lambda run: self.save_files(run, figures))
        self.attempt(lambda run: run.finish())

    def log_table(self, run: Any, name: str, frame: pd.DataFrame) -> None:
        optional = frame.astype(object).where(frame.notna(), None)  # a column has one type, and nan is a number
        run.log({name: self.wandb.Table(dataframe=optional)})

    def log_picture(self, run: Any, path: Path) -> None:
        run.log({path.stem: self.wandb.Image(str(path))})

    def save_files(self, run: Any, figures: list[Path]) -> None:
        artifact = self.wandb.Artifact(f"report-{run.id}", type="report")
        for path in (*figures, *sorted((self.store.root / "report").glob("*.csv"))):
            artifact.add_file(str(path), name=path.name)
        run.log_artifact(artifact)

    def attempt(self, act: Callable[[Any], object]) -> None:
        if not self.usable:
            return
        try:
            self.run = self.run or self.start()
            act(self.run)
        except Exception as error:
            self.usable = False
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            warnings.warn(f"wandb is off for the rest of this run: {reason}", stacklevel=2)


@contextmanager
def logger(mode: Mode, name: str, grid: Grid, store: Store) -> Iterator[Logger]:
    """The logger for a mode: disabled, offline or online."""
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
