"""What a reader needs beside a cell to repeat it: the code, the libraries, the machine and the settings."""

from __future__ import annotations

import getpass
import platform
import subprocess
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import harness
from harness.run.settings import Settings

LIBRARIES = ("torch", "torchvision", "datasets", "transformers", "opacus", "scikit-learn", "numpy", "safetensors")


@cache
def code_version() -> dict[str, Any]:
    """The version of tinydrop, its commit, and whether tracked files differ from it."""

    def git(*words: str) -> str:
        root = Path(__file__).resolve().parents[2]
        if not (root / ".git").exists():  # installed; a repository further up is somebody else's
            return ""
        answer = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return answer.stdout.strip() if answer.returncode == 0 else ""

    return {
        "tinydrop": harness.__version__,
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
    }


@cache
def provenance(settings: Settings, device: str) -> dict[str, Any]:
    import torch  # imported late: `--version` does without it

    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else ""
    return {
        **code_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: library_version(name) for name in LIBRARIES},
        "device": gpu or device,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "settings": {name: value for name, value in asdict(settings).items() if name != "store"},
    }


def library_version(name: str) -> str:
    """Empty for a library that is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def user_at_host() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = "?"
    return f"{user}@{platform.node()}"
