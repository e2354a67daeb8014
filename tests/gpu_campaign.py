"""Measure this project on a GPU: `python tests/gpu_campaign.py --out results/gpu/h100 --minutes 9`.

Stages run in the order of what a short loan of a GPU should not miss, each in a process of its own that ends at its
time budget. Every figure is a line of figures.jsonl in the folder of --out as soon as it is measured, and figures.md
has them as tables. The same command goes on where the last one was cut off; a stage that is done is not repeated. It
needs no network: harness/run/README.md, "Run it on a machine without network", has the data and the packages.

`--device cpu --shrink` tries every stage at the smallest sizes within minutes on any machine. Such figures say so.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a machine without network has no installed tinydrop

from gpu.stage import Figures, read_lines  # noqa: E402
from gpu.table import write_table  # noqa: E402

from harness.run.provenance import code_version  # noqa: E402

GRACE = 15  # seconds that a stage may go on after its budget, to end what it has begun


@dataclass(frozen=True)
class Planned:
    name: str  # module gpu.<name>, whose `measure(stage)` does it
    seconds: int  # budget; a dry run takes as long as it takes
    what: str


STAGES = (
    Planned("training", 120, "seconds a victim, rows a second and share of the peak, by task and speedup; the CPU"),
    Planned("throughput", 170, "victims an hour by number of workers, with and without MPS; memory a worker"),
    Planned("grid", 150, "a real grid of three modalities and a generator; cells an hour"),
    Planned("checks", 75, "the tests that need a GPU"),
    Planned("cifar", 65, "accuracy over seconds of training on cifar10; an epoch of resnet18"),
    Planned("idle", 35, "the share of a cell in which the GPU has nothing to do"),
    Planned("language", 90, "language models of several sizes: tokens a second, and poison that they learn"),
)


def main() -> int:
    args = parse_arguments()
    figures = Path(args.out).resolve() / "figures.jsonl"
    figures.parent.mkdir(parents=True, exist_ok=True)
    refuse_other_machine(figures, args)
    done = {line["stage"] for line in read_lines(figures) if line.get("event") == "done"}
    end = time.monotonic() + 60 * args.minutes
    worst = 0
    for planned in STAGES:
        if planned.name in done or (args.only and planned.name not in args.only):
            continue
        seconds = 3600.0 if args.shrink else min(float(planned.seconds), end - time.monotonic() - GRACE)
        if seconds < 5:
            print(f"[{planned.name}] no time is left; start the same command again", flush=True)
            worst = worst or 3
        else:
            worst = max(worst, run_stage(planned, args, figures, seconds))
    print(write_table(figures), flush=True)
    return worst


def parse_arguments() -> argparse.Namespace:
    listing = "\n".join(f"  {s.name:<11}{s.seconds:>4} s  {s.what}" for s in STAGES)
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"stages:\n{listing}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, help="folder of figures.jsonl, figures.md and campaign.log")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shrink", action="store_true", help="the smallest size of everything")
    parser.add_argument("--commit", default="", help="of this code, where it was copied without its .git")
    parser.add_argument("--minutes", type=float, default=13.0, help="stop after so many minutes (default 13)")
    parser.add_argument("--only", nargs="+", choices=[s.name for s in STAGES], help="these stages alone")
    return parser.parse_args()


def refuse_other_machine(figures: Path, args: argparse.Namespace) -> None:
    """Figures of a dry run or of another device must not stand beside these."""
    for line in read_lines(figures):
        if (line["device"], line["shrink"]) != (args.device, args.shrink):
            dry = ", a dry run" if line["shrink"] else ""
            sys.exit(f"--out {args.out}: its figures are of --device {line['device']}{dry}; name another folder")


def run_stage(planned: Planned, args: argparse.Namespace, figures: Path, seconds: float) -> int:
    """Run a stage in a process group of its own, and kill all of it at the end of its time. Returns its exit status."""
    print(f"[{planned.name}] {planned.what} ({seconds:.0f} s at most)", flush=True)
    version = code_version()
    commit = args.commit or version["commit"][:12] + ("+" if version["dirty"] else "")
    command = [
        sys.executable, "-m", "gpu.run_stage", planned.name, str(figures.parent), "--device", args.device,
        "--seconds", str(seconds), "--commit", commit, *(["--shrink"] if args.shrink else []),
    ]  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix=f"gpu-{planned.name}-", ignore_cleanup_errors=True) as work,
        (figures.parent / "campaign.log").open("ab") as log,
    ):
        process = subprocess.Popen(
            [*command, "--work", work], cwd=ROOT, env=environment(), stdout=log, stderr=log, start_new_session=True
        )
        try:
            return process.wait(seconds + GRACE)
        except subprocess.TimeoutExpired:
            about = {"device": args.device, "shrink": args.shrink, "commit": commit}
            ended = {"event": "out of time", "seconds": seconds + GRACE, "reason": "it was stopped while it measured"}
            Figures(figures, planned.name, about).write(ended)
            return 3
        finally:
            end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what a stage has left behind, such as workers."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def environment() -> dict[str, str]:
    """The stages import the project from here, and their own modules from this folder."""
    path = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


if __name__ == "__main__":
    sys.exit(main())
