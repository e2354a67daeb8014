"""Arguments and options that several commands share, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.run import settings

if TYPE_CHECKING:
    from harness.run.ray_tasks import Cluster
    from harness.store.folder import Store

MOST = 10  # runs that an error names


def local_folder(text: str) -> Path:
    """The folder of a run; for a URL its working copy, brought up to date."""
    from harness.store.open import is_url, opened

    if not is_url(text):
        return Path(text)
    store = opened(text)
    store.pull()
    return store.root


def open_run(folder: Path) -> Store:
    """The store of a run. Raises FileNotFoundError for a folder that holds no run, and names the runs that are here."""
    from harness.store.folder import KEPT, PLAN
    from harness.store.open import opened

    store = opened(folder)
    if not any((folder / name).exists() for name in (*KEPT, PLAN)):
        here = [str(path.parent) for path in sorted(Path("runs").glob(f"*/{PLAN}"))]
        way_out = f"runs here: {', '.join(here[:MOST])}" if here else "start one with `tinydrop run`"
        raise FileNotFoundError(f"DIR: {store.address!r} holds no run; {way_out}")
    return store


def add_plugins(plugins: list[str] | None) -> None:
    """Register the plug-ins that `--plugin` names."""
    from harness.plugins import custom

    for source in plugins or []:
        custom.add(source)


def cluster_from_options(
    executor: str, address: str, gpu_share: float | None, gpus: int | None, device: str
) -> Cluster | None:
    """The Ray cluster that the options ask for, or None for local workers. Raises BadGrid."""
    from harness.errors import BadGrid
    from harness.run.prepare import select_gpus
    from harness.run.ray_tasks import Cluster

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
Jobs = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Worker processes; 0 runs one cell after the other in this one.",
        show_default="a core each, 8 at most; on a GPU what fits",
    ),
]
Device = Annotated[settings.Device, typer.Option(help="Where victims are trained; auto takes a GPU if there is one.")]
Gpus = Annotated[
    int | None, typer.Option(min=1, help="Over how many GPUs workers are dealt.", show_default="all that are visible")
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
Compiled = Annotated[bool, typer.Option("--compile", help="torch.compile the victims (pays on long runs).")]
