"""The documents made of a certificate: a page, a model card section, a bill of materials, and the data as Croissant."""

from __future__ import annotations

import html
import json
import re
import uuid
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from harness.certify.levels import LEVELS
from harness.certify.schema import Certificate, Data, Kind, Model
from harness.errors import MissingExtra

PAGE, CARD, BOM = "index.html", "model_card.md", "bom.json"
MAKERS = ("jinja2", "huggingface_hub", "cyclonedx-python-lib", "mlcroissant")  # libraries whose version shows in them
CAVEAT = (
    "It says what was tested, and how often such tests raise a false alarm. It is no proof that there is no poison: a "
    "test finds what it looks for."
)
ABSENT: dict[Kind, str] = {
    "vet": "no training data was vetted", "audit": "no model was audited", "run": "no attack or defense was measured",
}  # fmt: skip
HUB = re.compile(r"[\w.-]+/[\w.-]+")  # the name of a data set on the Hub
SPECIAL = re.compile(r"[\\`*_\[\]|~<>&]|^[#+-]|(?<=:)/(?=/)")  # to Markdown: marks, headings, lists, bare links


def require_extra() -> None:
    """Raises MissingExtra before anything is read."""
    missing = [name for name in (*MAKERS, "model-signing") if not _version(name)]
    if missing:
        raise MissingExtra(f'{", ".join(missing)}: missing, certificates need it; pip install "tinydrop[certify]"')


def maker_versions() -> dict[str, str]:
    return {name: _version(name) for name in MAKERS}


def make_documents(certificate: Certificate) -> dict[str, bytes]:
    """Name and content of every document. Equal certificates and libraries give equal bytes: no clock is read.

    What `certificate.files` holds does not matter.
    """
    found = {PAGE: _render(PAGE, certificate), CARD: _render(CARD, certificate, _front_matter(certificate))}
    found[BOM] = _bill_of_materials(certificate)
    for i, data in enumerate(certificate.data, 1):
        if data.fingerprint:
            found[f"croissant-{i}.json"] = _croissant(data)
    return {name: text.encode("utf-8", "backslashreplace") for name, text in found.items()}


def headline(certificate: Certificate) -> str:
    """What was reached and what was found, in a sentence or two."""
    alarms = [test for test in certificate.tests if test.alarm]
    reached = ", ".join(f"{level.level} {level.name}" for level in certificate.levels if level.granted)
    found = f" {len(alarms)} of {len(certificate.tests)} tests raise an alarm." if alarms else ""
    return f"Levels reached: {reached or 'none'}.{found}"


def _render(name: str, certificate: Certificate, front: str = "") -> str:
    kinds = {subject.kind for subject in certificate.subjects}
    never = [words for kind, words in ABSENT.items() if kind not in kinds]
    made: str = _template(name).render(
        c=certificate, front=front, headline=headline(certificate), caveat=CAVEAT,
        names=", ".join(dict.fromkeys(subject.name for subject in certificate.subjects)),
        name={subject.folder: f"{subject.name} ({subject.kind})" for subject in certificate.subjects},
        levels=list(zip(certificate.levels, LEVELS, strict=True)), open=[*certificate.untested, *never],
        alarms=any(test.alarm for test in certificate.tests),
        granted=any(level.granted and level.level for level in certificate.levels),
    )  # fmt: skip
    return made


@cache
def _template(name: str) -> Any:
    """Every text of the user's is escaped: on the page by itself, on the card by the filter `md`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    jinja = Environment(
        loader=PackageLoader("harness.certify"), autoescape=name == PAGE, undefined=StrictUndefined, trim_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    jinja.filters |= {"md": _plain_markdown, "p": _format_p}
    return jinja.get_template(name)


def _format_p(p: float | None) -> str:
    return "-" if p is None else f"{p:.4f}" if p >= 1e-4 else "<.0001"


def _plain_markdown(text: object) -> str:
    """A text on one line that is nothing but a text to Markdown and to HTML in it."""
    return SPECIAL.sub(lambda c: html.escape(c[0]) if c[0] in "<>&" else f"\\{c[0]}", " ".join(str(text).split()))


def _front_matter(certificate: Certificate) -> str:
    """The YAML that the Hub reads: data sets, and results of the tests."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="other", dataset_type="clean rows", dataset_name=data.source, metric_type="accuracy",
            metric_value=model.accuracy,
        )
        for model in certificate.models if model.sha256 == certificate.models[0].sha256  # a card is of one model
        for data in certificate.data if data.of == model.of
    ] + [
        EvalResult(
            task_type="other", dataset_type="poisoned", dataset_name=row.task, metric_type="ed50",
            metric_name=f"poisoned rows to half of the way (ED50): {row.attack} against {row.defense}",
            metric_value=row.ed50,
        )
        for row in certificate.measured if row.ed50 is not None and row.works
    ]  # fmt: skip
    names = [data.source for data in certificate.data if HUB.fullmatch(data.source)]
    card = ModelCardData(
        model_name=certificate.models[0].name if certificate.models else certificate.subjects[0].name,
        tags=["data-poisoning", "tinydrop"], datasets=sorted(set(names)) or None, eval_results=results or None,
    )  # fmt: skip
    return str(card.to_yaml())


def _bill_of_materials(certificate: Certificate) -> str:
    """CycloneDX 1.6: models, data and libraries."""
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    names = {subject.folder: subject.name for subject in certificate.subjects}
    parts = [_model_part(i, model) for i, model in enumerate(certificate.models)]
    parts += [_data_part(i, data) for i, data in enumerate(certificate.data)]
    libraries = {
        (library, one) for trained in certificate.training for library, versions in trained.libraries.items()
        for one in versions
    }  # fmt: skip
    for library, one in sorted(libraries):
        purl = None if library == "python" else PackageURL("pypi", name=library, version=one)
        kind = ComponentType.PLATFORM if library == "python" else ComponentType.LIBRARY
        parts.append(Component(name=library, version=one, type=kind, purl=purl, bom_ref=f"library:{library}@{one}"))
    unique = uuid.UUID(sha256(certificate.model_copy(update={"files": {}}).as_json()).hexdigest()[:32], version=4)
    bom = Bom(components=parts, serial_number=unique)
    bom.metadata.timestamp = datetime(1970, 1, 1, tzinfo=UTC)  # taken out below
    bom.metadata.properties.update(
        Property(name=f"tinydrop:{head.of}:ledger", value=f"{names[head.of]} {head.head}")
        for head in certificate.ledgers
    )
    tree = json.loads(JsonV1Dot6(bom).output_as_string())
    del tree["metadata"]["timestamp"]
    if certificate.date:
        tree["metadata"]["timestamp"] = f"{certificate.date}T00:00:00+00:00"
    return json.dumps(tree, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _model_part(i: int, model: Model) -> Any:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=model.sha256)] if model.sha256 else []
    return Component(
        name=model.name, type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref=f"model:{i}", hashes=hashes,
        description=model.kind, properties=[Property(name="tinydrop:of", value=model.of)],
    )  # fmt: skip


def _data_part(i: int, data: Data) -> Any:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense

    about = {"of": data.of, "source": data.source, "revision": data.revision, "fingerprint": data.fingerprint}
    return Component(
        name=data.name, type=ComponentType.DATA, bom_ref=f"data:{i}", licenses=[DisjunctiveLicense(name=data.licence)],
        properties=[Property(name=f"tinydrop:{name}", value=value) for name, value in about.items() if value],
    )  # fmt: skip


def _croissant(data: Data) -> str:
    """Croissant 1.0 of one data set: what it is and which version, no files, as they stay with their owner."""
    import mlcroissant

    metadata = mlcroissant.Metadata(
        name=data.name, license=data.licence, version=data.fingerprint,
        description=f"{data.name}: {data.rows} rows of {data.source}; the version is tinydrop's fingerprint of them",
        url=f"https://huggingface.co/datasets/{data.source}" if HUB.fullmatch(data.source) else None,
    )  # fmt: skip
    return json.dumps(metadata.to_json(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
