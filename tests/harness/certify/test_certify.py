"""A certificate says what the records say, in every document; and what it cannot be made of is refused in one line."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from certified import CLASSES, make_key, write_audit, write_run, write_vet
from helpers import ROOT, invoke, tinydrop
from jsonschema import Draft202012Validator

from harness.certify import documents
from harness.certify.check import check
from harness.certify.findings import read_audit
from harness.certify.levels import LEVELS
from harness.certify.schema import PUBLISHED, schema_json
from harness.certify.write import certify
from harness.errors import BadEvidence, BrokenLedger, MissingExtra, NotASite

CODE = {"tinydrop": "0", "commit": "c", "dirty": False}


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key, made by the command that the help names; public.pem lies beside it."""
    return make_key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What reaches every level."""
    folder = tmp_path_factory.mktemp("parts")
    return [write_run(folder / "mine"), write_audit(folder / "audit", nulls=59), write_vet(folder / "vet")]


@pytest.fixture(scope="module")
def whole(parts: list[Path], key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("whole") / "certificate"
    done = invoke("certify", *parts, "-o", to, "--key", key, "--date", "2026-01-31")
    assert done.exit_code == 0
    assert "Levels reached: 0 recorded, 1 vetted, 2 audited, 3 calibrated, 4 measured.\n" in done.output
    return to


def tree(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "certificate.json").read_bytes())
    return found


def levels(*places: Path, to: Path) -> dict[str, str]:
    """Why each level is not reached; "" where it is."""
    return {level.name: "; ".join(level.unmet) for level in certify(places, to, CODE).levels}


def test_a_signed_certificate_is_in_order(whole: Path, key: Path) -> None:
    done = invoke("certify", whole, "--check", "--public-key", key.with_name("public.pem"))
    assert done.exit_code == 0
    assert "all follows from the records; signed by this key" in done.output
    done = invoke("certify", whole, "--check", "--unsigned")
    assert done.exit_code == 0
    assert "the signature was not checked, so anybody can have written it" in done.output


def test_another_key_or_no_signature_is_refused(whole: Path, tmp_path: Path, parts: list[Path], key: Path) -> None:
    make_key(tmp_path)
    done = invoke("certify", whole, "--check", "--public-key", tmp_path / "public.pem")
    assert done.exit_code == 1
    assert "signature.json: Key mismatch" in done.output
    done = invoke("certify", parts[1], "-o", tmp_path / "plain")
    assert done.exit_code == 0
    assert "not signed: anybody could have written it" in done.output
    done = invoke("certify", tmp_path / "plain", "--check", "--public-key", key.with_name("public.pem"))
    assert done.exit_code == 1
    assert "signature.json: is missing" in done.output


def test_it_has_the_published_schema(whole: Path) -> None:
    assert PUBLISHED.read_text() == schema_json(), "python -m harness.certify.schema"
    schema = json.loads(PUBLISHED.read_text())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    validator.validate(tree(whole))
    assert not validator.is_valid(tree(whole) | {"more": 1})


def test_it_says_what_the_evidence_says(whole: Path, parts: list[Path]) -> None:
    found = tree(whole)
    assert found["date"] == "2026-01-31"
    head = json.loads((parts[0] / "ledger.jsonl").read_text().splitlines()[-1])["hash"]
    assert found["ledgers"] == [{"of": "evidence/1", "head": head, "entries": 18}]
    plain, filtered = found["measured"]
    assert plain["floor"] == 0.02
    assert plain["asr"] == pytest.approx(0.91), "the mean of 0.9, 0.91 and 0.92"
    assert (plain["seeds"], plain["doses"], plain["works"]) == (3, [0, 10, 20], True)
    assert 10 < plain["ed50"] < 20
    assert filtered["ed50_text"].startswith(">")
    assert filtered["ed50"] is None
    (trained,) = found["training"]
    assert trained["cells"] == {"done": 18, "pending": 0}
    assert (trained["code"], trained["libraries"]) == (["c0ffee+"], {"torch": ["2.5.0"]})
    assert found["models"][0]["sha256"] == "5" * 64
    run, audit, vet = found["data"]
    assert (run["fingerprint"], run["licence"]) == ("ab" * 16, "CC BY 4.0 (UCI Machine Learning Repository)")
    assert (vet["rows"], vet["quarantined"], vet["delivered_by"]) == (600, 0, ["ann", "bob", "<i>eve</i>"])
    assert (audit["rows"], audit["notes"]) == (400, ["two rows were left out"])
    rates = {test["test"]: test["rate"] for test in found["tests"]}
    assert rates == {"attacks x defenses on digits": 0.05, "known triggers": 0.05, "outlier": 0.01, "dedup": 0.01,
                     "neural_cleanse, beside clean models": 0.05, "mm_bd, beside clean models": 0.05,
                     "sources": 0.05}  # fmt: skip
    untested = "\n".join(found["untested"])
    for words in ("attacks that the suite has for image were not run: adaptive_blend", "no dose above 20 of 1,000",
                  "audit: the trigger wanet was not tried: too small", "vet: the check perplexity was not run: needs",
                  "vet: no victim was trained"):  # fmt: skip
        assert words in untested


def test_a_victim_is_traced_to_its_cell(tmp_path: Path) -> None:
    import torch

    from harness.store.folder import Store
    from harness.store.ledger import expected_files, read_ledger

    run = write_run(tmp_path / "mine", seeds=1)
    Store(run).save_tensors(f"{0:032x}", {"w": torch.ones(2)})
    (digest,) = (d for name, d in expected_files(read_ledger(run)).items() if name.startswith("artefacts/"))
    certify([run, write_audit(tmp_path / "audit", digest=digest)], tmp_path / "to", CODE)
    assert tree(tmp_path / "to")["models"][0]["victim_of"] == ["mine/digits/badnets/0/none/0"]


@pytest.mark.parametrize(
    ("make", "level", "why"),
    [
        (lambda to: write_audit(to, share=0.8), "audited", "in: suspicious: class '<b>owl</b>' is believed to be the"),
        (lambda to: write_audit(to, digest=""), "audited", "in: the model comes from a function"),
        (lambda to: write_audit(to), "calibrated", "in: no clean models were trained (--null-models)"),
        (lambda to: write_audit(to, nulls=19), "calibrated", "in: 19 clean models are too few to call a model by one"),
        (lambda to: write_audit(to, nulls=59, quick=True), "calibrated", "in: a quick audit"),
        (lambda to: write_vet(to, flagged=60), "vetted", " of 600 rows are to be looked at"),
        (lambda to: write_vet(to, trusted=50), "vetted", "in: 50 trusted rows give no rate of false alarms of 0.01"),
        (lambda to: write_run(to, seeds=1), "measured", "in: digits: badnets: 1 seed; 3 are asked for"),
        (lambda to: write_run(to, doses=(0, 20)), "measured", "in: digits: badnets: 1 dose above 0; 2 are asked for"),
        (lambda to: write_run(to, doses=(10, 20)), "measured", "in: digits: badnets: no dose 0, so no chance floor"),
        (lambda to: write_run(to, status="failed"), "measured", "in: digits: 18 cells failed"),
    ],
)  # fmt: skip
def test_a_level_says_what_is_missing(make: Any, level: str, why: str, tmp_path: Path) -> None:
    unmet = levels(make(tmp_path / "in"), to=tmp_path / "to")
    assert unmet.pop("recorded") == ""
    assert why in unmet[level]
    assert not check(tmp_path / "to").problems


def test_no_finding_is_hidden_behind_a_better_one(tmp_path: Path) -> None:
    good, bad = write_audit(tmp_path / "good"), write_audit(tmp_path / "bad", share=0.8)
    assert levels(good, to=tmp_path / "one")["audited"] == ""
    assert levels(good, bad, to=tmp_path / "two")["audited"].startswith("bad: suspicious")
    assert "1 of 6 tests raise an alarm" in (tmp_path / "two" / "index.html").read_text()


def test_the_table_of_the_readme_is_that_of_the_code() -> None:
    text = (ROOT / "harness" / "certify" / "README.md").read_text()
    for level in LEVELS:
        assert f"| {level.number} {level.name} | {level.about} | {level.asks} | {level.leaves_open} |" in text


def test_the_same_evidence_gives_the_same_files(whole: Path, parts: list[Path], key: Path, tmp_path: Path) -> None:
    """All but the signature, for which ECDSA draws."""
    done = invoke("certify", *parts, "-o", tmp_path / "again", "--key", key, "--date", "2026-01-31")
    assert done.exit_code == 0
    first, second = ({p.relative_to(top): p.read_bytes() for p in top.rglob("*") if p.is_file()}
                     for top in (whole, tmp_path / "again"))  # fmt: skip
    assert [name for name in first | second if first.get(name) != second.get(name)] == [Path("signature.json")]


class Words(HTMLParser):
    """The tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)


def test_names_are_no_html_and_no_markdown(tmp_path: Path) -> None:
    bad = write_audit(tmp_path / "[x](javascript:1) <script> | *", share=0.8)
    certify([bad, write_vet(tmp_path / "vet", flagged=60)], tmp_path / "to", CODE)
    page, card = ((tmp_path / "to" / name).read_text() for name in (documents.PAGE, documents.CARD))
    words = Words()
    words.feed(page)
    assert not words.tags & {"script", "b", "i", "img", "a"}
    for text in (page, card):
        assert "<script" not in text
        assert "<i>" not in text
        assert CLASSES[2] not in text
    assert "[x]" not in card
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["model-index"][0]["name"] == "my <model>.pt"


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph")  # of rdflib, which mlcroissant uses
def test_the_bill_of_materials_and_croissant_are_valid(whole: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (whole / "bom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    kinds = {part["name"]: part["type"] for part in json.loads(text)["components"]}
    assert kinds["my <model>.pt"] == "machine-learning-model"
    assert kinds["comments.csv"] == "data"
    assert kinds["torch"] == "library"
    data = mlcroissant.Dataset(jsonld=json.loads((whole / "croissant-1.json").read_text()))
    assert (data.metadata.name, data.metadata.version) == ("digits", "ab" * 16)


def test_the_model_card_is_in_the_hubs_format(whole: Path) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard((whole / "model_card.md").read_text(), ignore_metadata_errors=False)
    results = [(result.metric_type, result.metric_value) for result in card.data.eval_results or ()]
    assert results == [("accuracy", 0.93), ("ed50", tree(whole)["measured"][0]["ed50"])], "no bound is a number"
    assert "## Poisoning certificate" in card.text


@pytest.fixture
def broken(tmp_path: Path) -> Any:
    """Changes one field of an audit.json or vet.json and says how that is refused."""

    def change(kind: str, path: str, value: Any) -> str:
        folder = (write_audit if kind == "audit" else write_vet)(tmp_path / "in")
        file = folder / f"{kind}.json"
        found = json.loads(file.read_text())
        *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
        inner: Any = found
        for step in way:
            inner = inner[step]
        inner[last] = value
        file.write_text(json.dumps(found))
        with pytest.raises(BadEvidence) as caught:
            certify([folder], tmp_path / "to", CODE)
        assert not (tmp_path / "to").exists()
        return str(caught.value)

    return change


@pytest.mark.parametrize(
    ("kind", "path", "value", "said"),
    [
        ("audit", "schema", 2, "evidence/1/audit.json: schema: Input should be 1"),
        ("audit", "model.sha256", "../../x", "model.sha256: String should match pattern"),
        ("audit", "verdict.suspicious", True, "verdict.suspicious: True, but 0 classes are called"),
        ("audit", "verdict.class", "dog", "verdict.class: 'dog' is called by no test"),
        ("audit", "behaviour.triggers.0.p", 0.5, "behaviour.triggers.0.p: 0.5, but no random change was drawn"),
        ("audit", "behaviour.triggers.0.share", 0.9, "behaviour.triggers.0.share: 0.9 is not that of class"),
        ("audit", "detectors.1.adjusted", 1.0, "detectors.1.adjusted: 1.0, but by Holm's correction follows 0.9"),
        ("audit", "detectors.0.p", "0.4", "detectors.0.p: Input should be a valid number"),
        ("audit", "detectors.0.score", 1e999, "Infinity is no number"),
        ("audit", "null_models.number", 59, "with 59 clean models"),
        ("audit", "extra", 1, "extra: Extra inputs are not permitted"),
        ("vet", "checks.0.flagged", 600, "checks.0.excess: 0."),
        ("vet", "checks.0.flagged", -1, "checks.0.flagged: Input should be greater than or equal to 0"),
        ("vet", "accused", {"ann": "outlier"}, "accused: 'ann' is accused by no check"),
        ("vet", "quarantine", [1], "quarantine: 1 rows, which is not what the checks say"),
        ("vet", "trusted.rows", 99999, "does not follow"),
    ],
)  # fmt: skip
def test_a_file_that_contradicts_itself_is_refused(broken: Any, kind: str, path: str, value: Any, said: str) -> None:
    message = broken(kind, path, value)
    assert said in message or (path == "trusted.rows" and "follows" in message)
    assert "\n" not in message


def test_a_changed_record_is_not_certified(tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine", seeds=1)
    record = next((run / "records").iterdir())
    record.write_text(record.read_text().replace('"value": 0.9', '"value": 0.8'))
    with pytest.raises(BrokenLedger, match="is not what was written"):
        certify([run], tmp_path / "to", CODE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("certify nowhere", "INPUT 'nowhere': holds no run (plan.json), no audit.json and no vet.json"),
        ("certify audit --key no.pem", "--key 'no.pem': no such file; make one with `openssl ecparam"),
        ("certify audit --key audit/audit.json", "--key 'audit/audit.json': "),
        ("certify audit --date yesterday", "--date 'yesterday': is no date; write it as 2026-01-31"),
        ("certify audit --unsigned", "--unsigned: is for --check"),
        ("certify audit --check", "--check: name the signer's --public-key, or --unsigned"),
        ("certify audit --check --unsigned", "FOLDER 'audit': holds no certificate.json"),
        ("certify audit --check --unsigned --date 2026-01-31", "--date: is for writing a certificate"),
        ("certify audit audit --check --unsigned", "INPUT: 2 folders; --check takes one certificate"),
        ("certify audit --check --public-key audit/audit.json", "--public-key 'audit/audit.json': "),
        ("certify old", "INPUT 'old': holds no run (plan.json), no audit.json and no vet.json; `tinydrop vet` writes"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_ends_with_2_and_one_line(
    words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from harness.cli import app

    write_audit(tmp_path / "audit")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "quarantine.csv").write_text("row\n1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tinydrop", *words.split()])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}")
    assert error.count("\n") == 1


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    audit = write_audit(tmp_path / "audit")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(NotASite, match="holds something else than a certificate"):
        certify([audit], tmp_path / "mine", CODE)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotASite, match="is no folder"):
        certify([audit], tmp_path / "link", CODE)
    for _ in range(2):  # a certificate is replaced
        certify([audit], tmp_path / "to", CODE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit", "link", "mine", "to"], "nothing half-written"


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "_version", lambda name: "" if name == "mlcroissant" else "1")
    with pytest.raises(MissingExtra, match=r'^mlcroissant: missing.*pip install "tinydrop\[certify\]"$'):
        invoke("certify", "mine")


def test_a_certificate_of_other_code_says_so_where_it_is_refused(tmp_path: Path) -> None:
    certify([write_audit(tmp_path / "audit")], tmp_path / "to", CODE)
    assert check(tmp_path / "to", code={"tinydrop": "1", "commit": "d"}).notes == []
    (tmp_path / "to" / "index.html").unlink()
    found = check(tmp_path / "to", code={"tinydrop": "1", "commit": "d"})
    assert found.problems
    assert found.notes == [
        "written by tinydrop 0, commit c, which may count otherwise: check it with that code before you judge"
    ]
    assert check(tmp_path / "to", code=CODE).notes == []


def test_help_teaches() -> None:
    said = tinydrop("certify", "--help", check=True).stdout
    for words in ("openssl ecparam", "--public-key", "None of them proves", "Exit codes"):
        assert words in said


def test_the_audit_of_a_language_model_is_refused_in_words() -> None:
    data = json.dumps({"schema": 1, "data": {"perplexity": 90.0}}).encode()
    with pytest.raises(BadEvidence, match=r"^audit\.json: is of a language model"):
        read_audit("audit.json", data)
    with pytest.raises(BadEvidence, match="is no JSON"):
        read_audit("audit.json", b'{"data": {"perplexity"')
