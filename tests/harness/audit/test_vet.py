"""Vetting data: poison and its source are found, clean data is left alone at the stated rate."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from helpers import invoke
from scipy import stats

from attacks.text.addsent import Addsent
from harness.audit.vet import adjust, judge, open_rows, vet
from harness.certify.write import certify
from harness.store.folder import Store
from tasks.files import files_hash
from tasks.plugin import BadInput
from tasks.text.synthetic_reviews import SyntheticReviews

SENTENCE = "I watched this 3D movie last weekend."


def write_reviews(folder: Path, poisons: int, rows: int = 600) -> tuple[Path, Path]:
    """A CSV file of made-up reviews by ten authors, of whom one repeats a sentence, and one of trusted rows."""
    train = SyntheticReviews().load().train
    texts, labels = list(train.inputs), train.targets.tolist()
    stamped = Addsent(sentence=SENTENCE)
    paths = folder / "data.csv", folder / "trusted.csv"
    for path, first, n in ((paths[0], 0, rows), (paths[1], rows, 200)):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "author"])
            bad = 0
            for i in range(first, first + n):
                text, label, author = texts[i], labels[i], f"author {i % 10}"
                if first == 0 and author == "author 3" and bad < poisons:
                    text, label, bad = f"{text} {stamped.sentence}", 0, bad + 1
                writer.writerow([text, ("negative", "positive")[label], author])
    return paths


def run(data: Path, trusted: Path | None, store: Store, **more: Any) -> Any:
    task, rows = open_rows(str(data), "text", "label", "author")
    known = open_rows(str(trusted), "text", "label", "")[1] if trusted else None
    return vet(task, rows, known, 0.01, 0.05, 0, store, **more)


def test_a_source_that_poisons_is_named(tmp_path: Path, store: Store) -> None:
    found = run(*write_reviews(tmp_path, poisons=30), store)
    assert {found.sources[source] for source in found.accused} == {"author 3"}
    assert set(found.left_out) == {"frequency"}
    assert found.quarantined.sum() >= 60, "all rows of that author"


def test_clean_data_is_left_alone(tmp_path: Path, store: Store) -> None:
    found = run(*write_reviews(tmp_path, poisons=0), store)
    assert not found.accused
    for check in found.checks:
        assert abs(check.expected - 6) < 1.5, "one in a hundred of 600"


def test_without_trusted_rows_nothing_is_said_of_a_rate(tmp_path: Path, store: Store) -> None:
    found = run(write_reviews(tmp_path, poisons=0)[0], None, store)
    assert found.left_out["perplexity"] == "needs trusted rows"
    assert all(check.expected != check.expected for check in found.checks)
    assert not found.quarantined.any()


def test_a_threshold_of_few_trusted_rows_is_known_to_be_one() -> None:
    """Of clean data a p value below .05 comes at most so often, though the threshold is an estimate."""
    rng = torch.Generator().manual_seed(0)
    drawn = [torch.rand(699, generator=rng).split([500, 199]) for _ in range(300)]
    below = [judge("x", rows, trusted, 0.05).excess for rows, trusted in drawn]
    assert stats.binomtest(sum(p <= 0.05 for p in below), 300, 0.05, alternative="greater").pvalue > 0.01
    assert judge("x", torch.cat([torch.rand(470), torch.ones(30) + 1]), torch.rand(199), 0.01).excess < 1e-3


def test_holm_over_sources_and_checks() -> None:
    p = {("a", 0): 0.01, ("a", 1): 0.5, ("b", 0): 0.03}
    assert adjust(p) == {("a", 0): 0.03, ("b", 0): 0.06, ("a", 1): 0.5}


def test_the_command(tmp_path: Path) -> None:
    data, trusted = write_reviews(tmp_path, poisons=30)
    done = invoke("vet", data, "--source", "author", "--trusted", trusted, "-o", tmp_path / "out")
    assert done.exit_code == 3, done.output
    sources, listed = (pd.read_csv(tmp_path / "out" / f"{name}.csv") for name in ("sources", "quarantine"))
    assert list(sources.source[sources.accused_by.notna()]) == ["author 3"]
    assert "author 3" in set(listed.source[listed.quarantine])
    assert "rows should be looked at" in done.output
    told = json.loads((tmp_path / "out" / "vet.json").read_text())
    assert list(told["accused"]) == ["author 3"]
    assert sorted(told["quarantine"]) == sorted(listed.row[listed.quarantine])
    assert told["data"]["rows"] == sum(told["data"]["sources"].values()) == 600
    assert (told["data"]["content"], told["trusted"]["rows"]) == (files_hash(str(data)), 100)
    assert SENTENCE not in json.dumps(told), "no row of the data"
    assert certify([tmp_path / "out"], tmp_path / "certificate", {"tinydrop": "0", "commit": "", "dirty": False})


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("nowhere.csv",), "no such file or folder"),
        (("data.csv", "--source", "who"), "column 'who' is missing"),
        (("data.csv", "--source", "text"), "the same as text_column"),
        ((".", "--source", "author"), "a folder has no columns"),
    ],
)
def test_what_cannot_be_vetted_is_refused(
    words: tuple[str, ...], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_reviews(tmp_path, poisons=0, rows=60)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=complaint):
        invoke("vet", *words)
