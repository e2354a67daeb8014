"""The command that says what a machine has."""

from __future__ import annotations

from pathlib import Path

from harness.console import out

EXTRAS = {  # libraries that some plug-ins need, and the extra that installs them
    "transformers": "hf", "diffusers": "generative", "opacus": "dp", "cleanlab": "curation", "ray": "ray",
}  # fmt: skip


def doctor() -> None:
    """Say what this machine has and whether training works on it: what to paste into a bug report.

    It names versions, devices, memory, disk and the datasets that are there, and trains a small network for a few
    seconds. It sends nothing anywhere.

    Example:  tinydrop doctor
    """
    facts = _software() | _machine() | _data()
    width = max(map(len, facts))
    for name, value in facts.items():
        out.print(f"{name:{width}}  {value}", highlight=False, soft_wrap=True)
    out.print(f"{'training':{width}}  {_train()}", highlight=False, soft_wrap=True)


def _software() -> dict[str, str]:
    import platform

    from harness.run.provenance import LIBRARIES, code_version, library_version

    code = code_version()
    changed = " (changed since)" if code["dirty"] else ""
    facts = {
        "tinydrop": f"{code['tinydrop']} {code['commit'][:12]}{changed}".strip(),
        "python": f"{platform.python_version()} on {platform.platform()}",
    }
    for name in dict.fromkeys([*LIBRARIES, *EXTRAS]):
        missing = f'not installed; pip install "tinydrop[{EXTRAS[name]}]"' if name in EXTRAS else "not installed"
        facts[name] = library_version(name) or missing
    return facts


def _machine() -> dict[str, str]:
    import os
    import shutil

    import psutil
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(".").free
    return {
        "devices": ", ".join([f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads of torch", *gpus]),
        "memory": f"{memory.available / 2**30:.0f} of {memory.total / 2**30:.0f} GiB free",
        "disk": f"{disk / 2**30:.0f} GiB free here",
    }


def _data() -> dict[str, str]:
    from harness.plugins.datasets import list_datasets
    from tasks.files import data_root

    root, found = data_root(), [row.dataset for row in list_datasets() if row.place]
    named = "not set: published data comes from the Hub"
    if root is not None:
        named = str(root).replace(str(Path.home()), "~") + ("" if root.is_dir() else " (no such folder)")
    return {"TINYDROP_DATA": named, "data here": f"{', '.join(found) or 'none'} (all of them: `tinydrop data`)"}


def _train() -> str:
    """A few seconds of training on embedded digits: how long, and how well."""
    import time

    from harness.cell.train import train_victim
    from harness.plugins.registry import create
    from harness.run.record_cell import set_up_process
    from harness.run.settings import Settings
    from tasks.base import Task

    device, task = set_up_process(Settings("")), create("tasks", "digits", {"train_size": 500})
    assert isinstance(task, Task)
    splits, begun = task.load(), time.perf_counter()
    victim = train_victim(task, splits.train, recipe=task.recipe(), seed=0, device=device)
    right = (victim.predict(splits.test).scores.argmax(1).cpu() == splits.test.targets).float().mean()
    return f"digits on {device}: accuracy {float(right):.2f} after {time.perf_counter() - begun:.1f} s"
