"""The grid runner: expands a grid into cells, runs, grades and stores them. Nobody but the command line imports it."""

from importlib.util import find_spec
from pathlib import Path

__version__ = "0.1.0"

_ROOT = Path(__file__).resolve().parent.parent


def _check_siblings() -> None:
    # attacks, defenses and tasks are plain top-level names that another distribution, or a folder of the working
    # directory, can shadow; a wrong one would fail much later and far from the cause.
    for name in ("attacks", "defenses", "tasks"):
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found is None or found.parent.parent != _ROOT:
            where = found or (list(spec.submodule_search_locations or []) if spec else "nowhere")
            raise ImportError(
                f"tinydrop's package {name!r} is shadowed: Python finds {where}, expected {_ROOT / name}; "
                f"run from another folder or remove the other package"
            )


_check_siblings()
