"""From a request to what is written: an audit of a classifier, or of a language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.audit import language, steps, write, write_language
from harness.audit.cells import find_cell
from harness.audit.steps import Request, Say, Stage

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Report:
    """What an audit writes. lines: for the terminal, below the tables."""

    json: str
    page: str
    tables: list[Table]
    lines: list[str]
    suspicious: bool


def run_audit(request: Request, stage: Stage, say: Say) -> Report:
    """Everything. Raises BadInput for a model or data that cannot be audited, before any long step."""
    cell = find_cell(request.model)
    if language.is_language_model(request.model, cell):
        found = language.audit(request, cell, stage, say)
        return Report(
            write.dump(write_language.as_mapping(found)),
            write_language.as_page(found),
            [write_language.table(found)],
            [*write_language.texts(found).values(), *write_language.reasons(found), write_language.headline(found)],
            found.verdict == "suspicious",
        )
    seen = steps.audit(request, cell, stage, say)
    return Report(
        write.as_json(seen),
        write.as_page(seen),
        write.tables(seen),
        [*write.texts(seen).values(), *write.reasons(seen), write.headline(seen)],
        seen.verdict == "suspicious",
    )
