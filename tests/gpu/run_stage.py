"""One stage in a process of its own; started by tests/gpu_campaign.py, which says what the arguments mean."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from gpu.stage import Figures, OutOfTime, Stage, read_lines
from harness.console import one_line
from harness.run.memory import ask_nvidia_smi


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("stage")
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--shrink", action="store_true")
    parser.add_argument("--commit", default="")
    args = parser.parse_args()
    path = args.out / "figures.jsonl"
    about = {"device": args.device, "shrink": args.shrink, "commit": args.commit}
    figures = Figures(path, args.stage, about)
    device = torch.device(args.device)
    if not any(line.get("event") == "machine" for line in read_lines(path)):
        Figures(path, "campaign", about).write({"event": "machine", "machine": describe_machine(device)})
    return carry_out(Stage(figures, device, args.shrink, args.seconds, args.work))


def carry_out(stage: Stage) -> int:
    """Measure, and write down how it ended. An error ends this stage and not the campaign."""
    end: dict[str, Any] = {"event": "done", "reason": ""}
    try:
        importlib.import_module(f"gpu.{stage.figures.stage}").measure(stage)
    except OutOfTime:
        end = {"event": "out of time", "reason": "the same command goes on where it was"}
    except BaseException as error:
        traceback.print_exc()
        end = {"event": "failed", "reason": f"{type(error).__name__}: {one_line(error)}"}
    stage.figures.write({**end, "seconds": stage.seconds - stage.left})
    return {"done": 0, "out of time": 3, "failed": 1}[end["event"]]


def describe_machine(device: torch.device) -> dict[str, Any]:
    """The card or processor, the cores, and the versions that speed depends on."""
    driver = ask_nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0]
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "card": card, "driver": driver, "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "torch": torch.__version__, "python": platform.python_version(), "processor": processor(),
    }  # fmt: skip


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
