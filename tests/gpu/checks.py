"""The tests that need a GPU; without one they are skipped, and that is what the figures say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from gpu.stage import Stage


def measure(stage: Stage) -> None:
    report = stage.work / "tests.xml"
    command = [
        sys.executable, "-m", "pytest", "-m", "gpu", "tests/test_gpu.py", "-q", "-n", "0" if stage.shrink else "8",
        "--maxprocesses", "8", "-W", "default", f"--junitxml={report}",
    ]  # fmt: skip
    answer = subprocess.run(command, cwd=Path(__file__).parents[2], check=False)
    suite = ElementTree.parse(report).getroot().find("testsuite")  # written a moment ago by pytest
    assert suite is not None
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    for name, count in counts.items():
        stage.figures.add(name, count, "tests", file="tests/test_gpu.py")
    broken = [case.get("name") for case in suite if case.find("failure") is not None or case.find("error") is not None]
    if broken or answer.returncode:
        raise RuntimeError(f"pytest ends with {answer.returncode}; failed: {', '.join(map(str, broken)) or 'none'}")
