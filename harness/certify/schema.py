"""The fields of certificate.json. `python -m harness.certify.schema` writes their JSON Schema beside this file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, FiniteFloat

from harness.certify.findings import Count, Probability, Strict

SCHEMA: Final = 1
PUBLISHED = Path(__file__).with_name("certificate.schema.json")
Kind = Literal["run", "audit", "vet"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Folder = Annotated[str, Field(pattern=r"^evidence/[1-9][0-9]?$")]
Date = Annotated[str, Field(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$")]


class Writer(Strict):
    """The program that wrote the certificate."""

    tinydrop: str
    commit: str = Field(description="of its code; nothing where it was installed")
    dirty: bool = Field(description="whether files of the code differ from the commit")
    libraries: dict[str, str] = Field(description="that made the documents, with their versions")


class TaskFacts(Strict):
    """What the suite says of a task's data."""

    dataset: str = Field(description="name on the Hub, or 'embedded'")
    revision: str
    licence: str


class Suite(Strict):
    """What the writer's tinydrop has, so that one can say what was not run."""

    tasks: dict[str, TaskFacts] = Field(description="those of the runs")
    attacks: dict[str, list[str]] = Field(description="modalities by name, without controls")
    defenses: dict[str, list[str]]


class Subject(Strict):
    """One run, audit or vetting."""

    folder: Folder
    kind: Kind
    name: str = Field(description="of the folder it came from")


class Data(Strict):
    """One version of a data set."""

    of: Folder
    name: str
    source: str
    revision: str
    licence: str = Field(description="as the task says; 'not known' where nobody says")
    fingerprint: str = Field(description="hash of the rows, or of the file")
    rows: Count | None
    delivered_by: list[str] = Field(description="the sources that the data names")
    accused: list[str] = Field(description="sources that stand out")
    quarantined: Count | None = Field(description="rows to be looked at; null where the data was not vetted")
    notes: list[str]


class Training(Strict):
    """How the victims of one task of a run were trained."""

    of: Folder
    task: str
    recipe: dict[str, Any] = Field(description="every option of the task")
    seeds: list[Count]
    code: list[str] = Field(description="commits, with '+' where files differed")
    libraries: dict[str, list[str]] = Field(description="versions by name")
    devices: list[str]
    cells: dict[str, Count] = Field(description="planned cells by status; pending: without a record")


class Model(Strict):
    """One audited model."""

    of: Folder
    name: str
    kind: str
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = Field(description="of its file; nothing: a function")
    accuracy: Probability
    rows: Count
    victim_of: list[str] = Field(description="cells of the certified runs whose undefended victim is this very file")


class Test(Strict):
    """One test that was run."""

    of: Folder
    test: str
    rate: Probability = Field(description="of false alarms")
    promise: str = Field(description="what the rate is a rate of, and when it holds")
    n: Count = Field(description="rows, changes or cells that it used")
    p: Probability | None
    alarm: bool | None = Field(description="null: a measurement, which raises none")
    result: str


class Measured(Strict):
    """One curve of a run: a task, an attack and a defense."""

    of: Folder
    task: str
    attack: str
    defense: str
    control: bool = Field(description="whether the defense is a control, not a defense")
    seeds: Count
    doses: list[Count]
    floor: FiniteFloat | None = Field(description="mean ASR of the clean, undefended victim")
    asr: FiniteFloat | None = Field(description="mean ASR at the largest dose")
    utility: FiniteFloat | None = Field(description="mean clean measure at the largest dose")
    clean_metric: str
    works: bool = Field(description="whether the undefended attack ever gets half of the way from floor to 1")
    ed50: FiniteFloat | None = Field(description="null where it is only a bound, which ed50_text has")
    ed50_text: str = Field(description="with its 95 % interval")
    protection_text: str
    note: str


class Granted(Strict):
    """One level, whether it was reached, and why not."""

    level: Count
    name: str
    granted: bool
    of: list[Folder]
    unmet: list[str]


class LedgerHead(Strict):
    """The ledger of a run."""

    of: Folder
    head: Sha256
    entries: Count


class Certificate(Strict):
    """A tinydrop certificate. Everything but date, written_by, suite and subjects' names follows from evidence/."""

    schema_version: Literal[1] = Field(alias="schema")
    date: Date = Field(description="as given by --date; no clock is read")
    written_by: Writer
    suite: Suite
    subjects: Annotated[list[Subject], Field(min_length=1)]
    data: list[Data]
    training: list[Training]
    models: list[Model]
    tests: list[Test]
    measured: list[Measured]
    levels: list[Granted]
    untested: list[str]
    ledgers: list[LedgerHead]
    files: dict[str, Sha256] = Field(description="every other file but the signature")

    def as_json(self) -> bytes:
        """The one form of the file that `check` accepts."""
        tree = self.model_dump(mode="json", by_alias=True)
        return (json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def schema_json() -> str:
    """The published JSON Schema."""
    return json.dumps(Certificate.model_json_schema(by_alias=True), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PUBLISHED.write_text(schema_json(), encoding="utf-8")
