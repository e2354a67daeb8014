"""The wheels of a pack: what the project needs and a machine without network lacks, found in the metadata of packages.

Versions are those installed here, where the tests ran; what the other machine has must agree with them.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections import deque
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from gpu.data_pack import CannotPack

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("hf", "generative", "dp", "curation")  # of the project
LEFT_OUT = {"wandb"}  # 20 MiB, imported by nothing but a run that logs to it
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LINUX = {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64",
         "implementation_name": "cpython", "platform_python_implementation": "CPython"}  # fmt: skip


def read_have(file: Path) -> dict[str, str]:
    """Packages that a machine has, with their versions, "" where none is said: `pip freeze`, or names in any layout.

    Raises CannotPack for what is neither.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0]
        for word in [text.partition("@")[0]] if " @ " in text else text.split():
            try:
                requirement = Requirement(word)
            except InvalidRequirement:
                raise CannotPack(
                    f"{file}, line {number}: {word!r} is no package; write name or name==version, as `pip freeze` does"
                ) from None
            pinned = [s.version for s in requirement.specifier if s.operator == "=="]
            found[canonicalize_name(requirement.name)] = pinned[0] if pinned else ""
    return found


def project_needs() -> list[Requirement]:
    """What pyproject.toml asks for, with EXTRAS and without LEFT_OUT."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *(text for e in EXTRAS for text in project["optional-dependencies"][e])]
    needs = [Requirement(text) for text in texts]
    return [need for need in needs if canonicalize_name(need.name) not in LEFT_OUT]


def find_missing(needs: list[Requirement], have: dict[str, str], python: str) -> dict[str, str]:
    """Name and version of every package that `needs` come down to and `have` lacks, on Linux with this Python.

    Raises CannotPack for a package that is there in a version that does not do, or neither there nor installed here.
    """
    target = {**default_environment(), **LINUX, "python_version": python, "python_full_version": f"{python}.0"}
    missing: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()  # package and the extra that was asked for
    asked = (need for need in needs if need.marker is None or need.marker.evaluate({**target, "extra": ""}))
    queue = deque(("the project", need) for need in asked)
    while queue:
        by, need = queue.popleft()
        name = canonicalize_name(need.name)
        here = _version_here(name)
        if name in have:
            _check_version(by, need, have[name])
        elif here is None:
            raise CannotPack(f"{by} needs {need}, which is neither there nor installed here; pip install {name!r} here")
        else:
            missing[name] = here
        for extra in ("", *sorted(need.extras)):
            if (name, extra) in seen or (extra == "" and name in have) or here is None:
                continue
            seen.add((name, extra))
            for text in distribution(name).requires or ():
                inner = Requirement(text)
                # What an extra adds is what holds with it and not without it.
                with_, without = (
                    inner.marker is None or inner.marker.evaluate({**target, "extra": e}) for e in (extra, "")
                )
                if with_ and not (extra and without):
                    queue.append((name, inner))
    return dict(sorted(missing.items()))


def _version_here(name: str) -> str | None:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


def _check_version(by: str, need: Requirement, there: str) -> None:
    """Raises CannotPack where the version that is there is known and is not what is needed."""
    if there and not need.specifier.contains(there, prereleases=True):
        version = f" {_version_here(by)}" if by != "the project" else ""
        raise CannotPack(
            f"{by}{version} needs {need}, and {there} is there; install another version of {by} here, or of "
            f"{need.name} there"
        )


def download(packages: dict[str, str], python: str, folder: Path) -> list[Path]:
    """The wheels of these packages for Linux and this Python, in `folder`. Raises CannotPack with what pip says."""
    folder.mkdir(parents=True)
    if packages:
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        words += ["--python-version", python, "--implementation", "cp", "--dest", str(folder)]
        words += [word for platform in PLATFORMS for word in ("--platform", platform)]
        words += [f"{name}=={version}" for name, version in packages.items()]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            raise CannotPack(f"pip cannot fetch the wheels: {(errors or [done.stderr.strip()])[-1]}")
    return sorted(folder.glob("*.whl"))
