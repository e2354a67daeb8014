"""Arguments and options that several commands share, and what they stand for."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cell import speedup
from harness.console import expand_home
from harness.plugins.registry import PRESETS
from harness.run import settings

if TYPE_CHECKING:
    from harness.run.ray_tasks import Cluster
    from harness.store.folder import Store

MOST = 10  # runs that an error names
SUSPICIOUS = 3  # exit code of a model or of data that may be poisoned


def local_folder(text: str) -> Path:
    """The folder of a run; for a URL its working copy, brought up to date."""
    from harness.store.open import is_url, open_store

    if not is_url(text):
        return expand_home(text)
    store = open_store(text)
    store.pull()
    return store.root


def open_run(folder: Path) -> Store:
    """The store of a run. Raises FileNotFoundError for a folder that holds no run, and names the runs that are here."""
    from harness.store.folder import PLAN, TRACKED
    from harness.store.open import open_store

    store = open_store(folder)
    if not any((folder / name).exists() for name in (*TRACKED, PLAN)):
        here = [str(path.parent) for path in sorted(Path("runs").glob(f"*/{PLAN}"))]
        way_out = f"runs here: {', '.join(here[:MOST])}" if here else "start one with `tinydrop run`"
        raise FileNotFoundError(f"DIR: {store.address!r} holds no run; {way_out}")
    return store


def add_plugins(plugins: list[str] | None) -> None:
    """Register the plug-ins that `--plugin` names."""
    from harness.plugins import custom

    for source in plugins or []:
        custom.add(source)


def ray_cluster(executor: str, address: str, gpu_share: float | None, gpus: int | None, device: str) -> Cluster | None:
    """The Ray cluster that the options ask for, or None for local workers. Raises BadGrid."""
    from harness.errors import BadGrid
    from harness.run.prepare import select_gpus
    from harness.run.ray_tasks import Cluster

    if gpu_share is not None and not isfinite(gpu_share):
        raise BadGrid(f"--gpu-share {gpu_share}: is not a number")
    if executor == "ray":
        if gpus is not None:
            raise BadGrid(f"--gpus {gpus}: is for --executor local; Ray gives GPUs out by --gpu-share")
        if not address:
            select_gpus(device)  # a Ray that is started here has this machine's
        return Cluster(address, gpu_share)
    for option, value in {"--address": address, "--gpu-share": gpu_share}.items():
        if value:
            raise BadGrid(f"{option} {value}: is for --executor ray")
    return None


Dir = Annotated[
    Path, typer.Argument(metavar="DIR", parser=local_folder, help="Folder or URL of a run, e.g. runs/quickstart.")
]
Grid = Annotated[str, typer.Argument(metavar="GRID", help=f"A YAML file, or a preset: {', '.join(PRESETS)}.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="key=value: doses=[0,5], digits.epochs=5, ...; repeatable.")
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out", help="Folder of the run, or a URL that fsspec knows: s3://bucket/mine.", show_default="runs/GRID"
    ),
]

# which cells
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only", help="Cells of a task, attack or defense, or by label: `badnets`, `'digits/*/5/*'`; repeatable."
    ),
]
Skip = Annotated[list[str] | None, typer.Option("--skip", help="Leave such cells out; repeatable.")]
Shard = Annotated[
    str | None, typer.Option("--shard", metavar="K/N", help="The K-th of N parts, for machines that share nothing.")
]
Retry = Annotated[bool, typer.Option("--retry", help="Run failed and timed-out cells again.")]
Adaptive = Annotated[
    bool,
    typer.Option(
        "--adaptive", help="Bisect the doses of every curve for its ED50 (half of the way) instead of running all."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
TimeBudget = Annotated[str | None, typer.Option("--time-budget", metavar="TIME", help="Stop after 2h, 1h30m or 90s.")]
MaxFailures = Annotated[int | None, typer.Option("--max-failures", min=1, help="Stop when so many cells failed.")]
WandbMode = Literal["offline", "online", "disabled"]
Wandb = Annotated[WandbMode, typer.Option(help="Log to Weights & Biases.")]

# where and how they run
Jobs = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Worker processes; 0 runs the cells in this one, one by one.",
        show_default="a core each, 8 at most; on a GPU what fits",
    ),
]
Device = Annotated[settings.Device, typer.Option(help="Where victims are trained; auto takes a GPU if there is one.")]
Gpus = Annotated[
    int | None, typer.Option(min=1, help="How many GPUs the workers share.", show_default="all that are visible")
]
Executor = Annotated[
    Literal["local", "ray"],
    typer.Option(help="Worker processes here, or tasks of a Ray cluster whose nodes share the run's folder."),
]
Address = Annotated[
    str, typer.Option(help='Of a running Ray: host:port, or "auto" for the one here.', show_default="starts one here")
]
GpuShare = Annotated[
    float | None,
    typer.Option(
        min=0, help="Part of a GPU that Ray gives a victim; 0.25 puts four on each.", show_default="1 or none"
    ),
]
Plugins = Annotated[
    list[str] | None, typer.Option("--plugin", help="A plug-in of your own: a file, or module:Class; repeatable.")
]
Deterministic = Annotated[bool, typer.Option("--deterministic", help="Deterministic GPU kernels (slower).")]
Speedup = Annotated[
    speedup.Speedup,
    typer.Option(
        help="How training is sped up: compile (torch.compile: pays on long trainings) or graphs (CUDA graphs of "
        "classifiers, on GPUs only). Both change the last digits of results."
    ),
]
