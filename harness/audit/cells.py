"""The victim of a run's cell as the model of an audit: `RUN/LABEL`, such as runs/mine/digits/badnets/5/none/0."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from safetensors.torch import load_file

from harness.audit.models import Loaded
from harness.cell.case import SECONDS
from harness.console import expand_home, quote
from harness.plugins.registry import create
from harness.store import records
from harness.store.folder import Store
from harness.store.records import Record
from tasks.base import Task
from tasks.plugin import BadInput


@dataclass(frozen=True)
class Cell:
    """An undefended victim, which is one stored network, and the task that reads its clean data."""

    task: Task
    weights: Path

    def load(self) -> Loaded:
        net = self.task.model()
        tensors = load_file(self.weights)
        net.load_state_dict({name: value for name, value in tensors.items() if name != SECONDS})
        return Loaded(net, f"a victim of {self.task.name}", own=True, fresh=self.task.model)


def find_cell(source: str) -> Cell | None:
    """The cell that RUN/LABEL names; None where no beginning of the path is a run. Raises BadInput for another cell."""
    path = expand_home(source)
    run = next((folder for folder in path.parents if (folder / "records").is_dir()), None)
    if run is None or path.exists():
        return None
    label, store = path.relative_to(run).as_posix(), Store(run)
    known = list(records.load_all(store).values())
    found = records.find_records(label, known)
    where = f"MODEL {quote(source)}"
    if len({record.label for record in found}) != 1:
        near = get_close_matches(label, [record.label for record in found or known], n=3, cutoff=0.3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise BadInput(f"{where}: {run} has {len(found) or 'no'} such cell{'s' * (len(found) > 1)}{hint}")
    return _read(max(found, key=lambda record: record.started), store, where)


def _read(record: Record, store: Store, where: str) -> Cell:
    if record.defense.name != "none" or record.status != "done":
        raise BadInput(f"{where}: only done cells of the defense none have a victim that is deployed as it is")
    weights = store.artefact_path(record.fits[0]["key"])
    if not weights.is_file():
        raise BadInput(f"{where}: its victim is not kept in {store.address}; run the cell again")
    task = create("tasks", record.task.name, record.task.options)
    assert isinstance(task, Task)
    return Cell(task, weights)
