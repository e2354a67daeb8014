"""How the cells of a run are run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.cell.speedup import Speedup

Device = Literal["auto", "cpu", "cuda"]  # auto takes a GPU where there is one


@dataclass(frozen=True)
class Settings:
    """The same for all cells of a run. Every record keeps them, the store aside."""

    store: str  # a folder or a URL
    device: str = "auto"  # see Device
    gpus: tuple[str, ...] = ()  # shared out among local workers; names as in CUDA_VISIBLE_DEVICES
    threads: int = 0  # per process; 0 leaves torch's own choice
    timeout: float = 3600.0  # seconds per cell
    deterministic: bool = False
    speedup: Speedup = "none"
    plugins: tuple[str, ...] = ()  # the user's own: files, or module:Class
