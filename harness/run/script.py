"""A script that starts workers is run again by every one of them, so the call must be under `if __name__ == ...`."""

from __future__ import annotations

import ast
import sys
from multiprocessing import current_process

from harness.errors import BadGrid

GUARDS = ("__name__", "parent_process", "current_process")  # what the test of such an `if` asks


def refuse_unguarded_script(jobs: int) -> None:
    """Raises BadGrid if this call would be made again in every worker, and theirs in every one of their own."""
    main = sys.modules["__main__"]
    if str(getattr(getattr(main, "__spec__", None), "name", "")).endswith("__main__"):
        return  # python -m package: workers do not run a package's __main__.py
    frame = sys._getframe()
    while frame.f_back and not (frame.f_code.co_name == "<module>" and frame.f_globals is vars(main)):
        frame = frame.f_back
    again = getattr(current_process(), "_inheriting", False)  # a worker that is reading the script
    called_by_main = frame.f_code.co_name == "<module>" and frame.f_globals is vars(main)
    if again or (called_by_main and not _is_guarded(str(getattr(main, "__file__", "")), frame.f_lineno)):
        script = getattr(main, "__file__", "the script")
        raise BadGrid(
            f"jobs={jobs}: every worker would run {script}, line {frame.f_lineno}, again; put the call under "
            '`if __name__ == "__main__":`, or use jobs=0'
        )


def _is_guarded(file: str, line: int) -> bool:
    """Whether a line of a script is inside such an `if`; true where no script can be read, for nobody runs it again."""
    try:
        with open(file, "rb") as script:
            tree = ast.parse(script.read())
    except (OSError, SyntaxError, ValueError):
        return True
    return any(
        isinstance(node, ast.If)
        and node.lineno <= line <= (node.end_lineno or line)
        and any(name in ast.unparse(node.test) for name in GUARDS)
        for node in ast.walk(tree)
    )
