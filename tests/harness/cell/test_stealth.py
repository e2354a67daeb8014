"""Stealth: what a poisoned row looks like, what near-duplicate removal and confident learning find, and the table."""

from __future__ import annotations

import io
import math
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_curve

from defenses.filtering import confident_learning, dedup
from harness.cell import stealth
from harness.cell.case import CellCase, Fitter
from harness.cell.metrics import grade_detection
from harness.plugins.registry import create
from harness.report.stealth import stealth_frame, stealth_table
from harness.store.folder import Store
from harness.testing.checks import CPU
from tasks.data import make_samples
from tasks.fluency import WordBigrams
from tasks.plugin import BadInput, NotApplicable
from tasks.samples import Samples
from tasks.text import edit_distance


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# TPR at a fixed FPR


def tprs(clean: list[float], poison: list[float]) -> list[float]:
    score = torch.tensor([*clean, *poison])
    found = grade_detection(score, None, torch.arange(len(score)) >= len(clean))
    assert found["train_tpr_at_1"].n == found["train_tpr_at_5"].n == len(poison)
    return [found["train_tpr_at_1"].value, found["train_tpr_at_5"].value]


def test_tpr_at_a_share_of_the_clean_rows_by_hand() -> None:
    clean = [float(i) for i in range(100)]  # at 1 % one row may exceed the threshold, 98; at 5 % five, so 94
    assert tprs(clean, [98.0, 98.5, 99.0, 200.0]) == [0.75, 1.0]
    assert tprs(clean, [94.0, 94.5]) == [0.0, 0.5], "a tie counts against detection"
    assert tprs(clean[:99], [98.0, 98.5]) == [0.5, 1.0], "99 rows: none may be above, as one would be more than 1 %"
    assert tprs([1.0] * 50, [1.0] * 5) == [0.0, 0.0], "equal scores detect nothing"
    assert tprs([0.0] * 99 + [1.0], [1.0]) == [1.0, 1.0], "the one row at 1 is the 1 %"
    assert tprs([0.0] * 98 + [1.0] * 2, [1.0]) == [0.0, 1.0]
    assert tprs([0.0] * 98 + [float("nan"), float("inf")], [float("inf")]) == [1.0, 1.0]


@pytest.mark.parametrize("levels", [3, 20, 10_000])
def test_tpr_is_that_of_the_roc_curve(levels: int) -> None:
    for seed in range(5):
        score = torch.randint(levels, (700,), generator=rng(seed)).float()
        poisoned = torch.arange(700) < 60
        score[poisoned] += levels // 3
        fpr, tpr, _ = roc_curve(poisoned.numpy(), score.numpy(), drop_intermediate=False)
        found = grade_detection(score, None, poisoned)
        for percent in (1, 5):
            assert found[f"train_tpr_at_{percent}"].value == pytest.approx(tpr[fpr <= percent / 100].max())


def test_no_tpr_without_poison_or_suspicion() -> None:
    none = torch.zeros(10, dtype=torch.bool)
    assert grade_detection(torch.rand(10), none, none).keys() == {"train_fpr"}
    assert "train_tpr_at_1" not in grade_detection(None, none, ~none)


# Fidelity


def compared(name: str, clean: Any, poison: Any, reference: list[str] | None = None) -> dict[str, float]:
    labels = torch.zeros(len(clean), dtype=torch.long)
    before, after = make_samples(clean, labels), make_samples(poison, labels)
    others = make_samples(reference or [], labels[:0])
    found = stealth.fidelity(create("tasks", name), before, after, others)  # type: ignore[arg-type]
    assert all(metric.n == len(clean) for metric in found.values())
    return {key: metric.value for key, metric in found.items()}


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 2, 5)])
def test_image_fidelity_by_hand(shape: tuple[int, ...]) -> None:
    clean = torch.randint(30, 200, (70, *shape), generator=rng()).to(torch.uint8)
    found = compared("digits", clean, clean + 10)  # mean squared error 100
    assert found["psnr"] == pytest.approx(10 * math.log10(255**2 / 100), rel=1e-5)
    same = compared("digits", clean, clean)
    assert (same["psnr"], same["labels_changed"]) == (100.0, 0.0)
    assert same["ssim"] == pytest.approx(1, abs=1e-6)
    noisy = torch.where(torch.rand(clean.shape, generator=rng()) < 0.5, clean, 255 - clean)
    assert compared("digits", clean, noisy)["ssim"] < found["ssim"] < 1


def test_ssim_of_flat_images_is_their_luminance_term() -> None:
    clean, poison = (torch.full((2, 1, 8, 8), value, dtype=torch.uint8) for value in (100, 50))
    c1 = (0.01 * 255) ** 2
    luminance = (2 * 100 * 50 + c1) / (100**2 + 50**2 + c1)
    assert compared("digits", clean, poison)["ssim"] == pytest.approx(luminance, abs=1e-3)


def test_audio_fidelity_by_hand() -> None:
    clean = 0.1 * torch.randn(3, 4000, generator=rng())
    found = compared("synthetic_tones", clean, 1.1 * clean)
    assert found["snr"] == pytest.approx(20, abs=1e-3), "noise of a tenth of the amplitude"
    assert found["mel_distance"] == pytest.approx(20 * math.log10(1.1), abs=1e-3), "louder by so much in every band"
    same = compared("synthetic_tones", clean, clean.clone())
    assert (same["snr"], same["mel_distance"]) == (100.0, 0.0)
    silence = torch.zeros_like(clean)
    assert compared("synthetic_tones", silence, silence)["snr"] == 100
    assert compared("synthetic_tones", silence, clean)["snr"] == -100


def levenshtein(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        last, row[0] = row[0], i + 1
        for j, y in enumerate(b):
            last, row[j + 1] = row[j + 1], min(row[j] + 1, row[j + 1] + 1, last + (x != y))
    return row[-1]


def test_edit_distance_by_hand_and_by_another_implementation() -> None:
    clean = ["a b c d", "a b c d", "a b", "", "", "x y"]
    poison = ["a b cf c d", "b c", "A b", "", "two words", ""]
    assert edit_distance(clean, poison).tolist() == pytest.approx([0.25, 0.5, 0.5, 0, 2, 1])
    draws = torch.randint(4, (60, 9), generator=rng()).tolist()
    texts = [" ".join("abcd"[i] for i in row[: row[0] + row[1] + 2]) for row in draws]
    expected = [levenshtein(a.split(), b.split()) / len(a.split()) for a, b in zip(texts, texts[::-1])]
    assert edit_distance(texts, texts[::-1]).tolist() == pytest.approx(expected)


def test_perplexity_ratio_is_the_geometric_mean() -> None:
    reference = ["the film is good", "the film is bad", "a good story", "the cast is good"]
    clean, poison = ["the film is good", "the cast is bad"], ["the film xq is good", "the cast is bad"]
    lm = WordBigrams(reference)
    one, two = (lm.leave_one_out(text.split())[0].perplexity for text in (clean[0], poison[0]))
    found = compared("synthetic_reviews", clean, poison, reference)
    assert found["perplexity_ratio"] == pytest.approx(math.sqrt(two / one))
    assert found["perplexity_ratio"] > 1.2
    assert "perplexity_ratio" not in compared("synthetic_reviews", clean, poison)


def test_labels_and_no_rows() -> None:
    task = create("tasks", "digits")
    inputs = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    clean, poison = make_samples(inputs, torch.arange(4)), make_samples(inputs, torch.tensor([0, 1, 0, 0]))
    assert stealth.fidelity(task, clean, poison, clean)["labels_changed"].value == 0.5  # type: ignore[arg-type]
    assert stealth.fidelity(task, clean.select([]), poison.select([]), clean) == {}  # type: ignore[arg-type]


# Near-duplicates


def test_jaccard_of_shingles_by_hand() -> None:
    texts = ["a b c d e f", "A b  c d e f", "x y", "a b c d e g", "x y", ""]
    nearest, before = dedup.jaccard(texts, 5)
    assert nearest.tolist() == pytest.approx([1, 1, 1, 1 / 3, 1, 0])  # abcde is shared, bcdef and bcdeg are not
    assert before.tolist() == pytest.approx([0, 1, 0, 1 / 3, 1, 0])


def test_jaccard_in_chunks_is_that_of_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "CHUNK", 7)
    texts = [" ".join("abc"[i] for i in row) for row in torch.randint(3, (40, 6), generator=rng()).tolist()]
    sets = [set(dedup.shingles(text, 2)) for text in texts]
    pairs = np.array(
        [[len(a & b) / len(a | b) if i != j else 0 for j, b in enumerate(sets)] for i, a in enumerate(sets)]
    )
    nearest, before = dedup.jaccard(texts, 2)
    assert nearest.numpy() == pytest.approx(pairs.max(1))
    assert before.numpy() == pytest.approx(np.tril(pairs, -1).max(1))


def test_cosine_in_chunks_is_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "CHUNK", 7)
    x = torch.randn(20, 5, generator=rng())
    x[11], x[3], x[4] = 2 * x[2], 0, 0  # brighter; two blank rows
    unit = x.numpy() / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9)
    pairs = unit @ unit.T
    pairs[3, 4] = pairs[4, 3] = 1
    np.fill_diagonal(pairs, -1)
    nearest, before = dedup.cosine(x)
    assert nearest.numpy() == pytest.approx(pairs.max(1), abs=1e-5)
    assert before[1:].numpy() == pytest.approx([pairs[i, :i].max() for i in range(1, 20)], abs=1e-5)
    assert before[0] == -1


@pytest.mark.parametrize("modality", ["image", "text", "audio", "tabular"])
def test_copies_are_dropped_but_for_the_first(modality: str, store: Store) -> None:
    name = {"image": "digits", "text": "synthetic_reviews", "audio": "synthetic_tones"}.get(modality)
    if name is None:
        inputs: Any = torch.rand(40, 7, generator=rng())
        samples = make_samples(torch.cat([inputs, inputs[:5]]), torch.arange(45) % 2)
        _, before = dedup.cosine(dedup.to_vectors(samples, modality, 0))
        assert torch.equal(before >= dedup.THRESHOLDS[modality], torch.arange(45) >= 40)
        return
    task = create("tasks", name, {"train_size": 60, "reserve_size": 10, "test_size": 10, "epochs": 1})
    clean = task.load().train  # type: ignore[attr-defined]
    doubled = clean.append(clean.select([4, 7, 4]))
    case = CellCase(doubled, clean, Fitter(task, store, CPU, 0), rng())  # type: ignore[arg-type]
    before = doubled.fingerprint
    create("defenses", "dedup").defend(case)  # type: ignore[attr-defined]
    assert case.findings.flagged is not None
    assert case.findings.flagged.nonzero().flatten().tolist() == [60, 61, 62]
    assert case.findings.train is not None
    assert case.findings.train[[4, 7]].tolist() == pytest.approx([1, 1]), "the first one is suspicious too"
    assert Samples(doubled.inputs, doubled.targets, doubled.ids).fingerprint == before


# Confident learning


@pytest.mark.parametrize("classifier", ["victim", "logistic"])
def test_wrong_labels_are_found(classifier: str, store: Store) -> None:
    task = create("tasks", "digits", {"train_size": 500, "epochs": 8})
    train = task.load().train  # type: ignore[attr-defined]
    wrong = torch.arange(500) < 25
    train = Samples(train.inputs, torch.where(wrong, (train.targets + 1) % 10, train.targets), train.ids)
    case = CellCase(train, train, Fitter(task, store, CPU, 0), rng())  # type: ignore[arg-type]
    defense = create("defenses", "confident_learning", {"classifier": classifier})
    defense.defend(case)  # type: ignore[attr-defined]
    found = grade_detection(case.findings.train, case.findings.flagged, wrong)
    assert found["train_auroc"].value > 0.9
    assert found["train_tpr"].value > 0.7
    assert found["train_fpr"].value < 0.05
    assert len(case.fit.fits) == (6 if classifier == "victim" else 1)


def test_folds_spread_every_class() -> None:
    targets = torch.tensor([0] * 23 + [1] * 10 + [2])
    fold = confident_learning.assign_folds(targets, rng())
    assert fold[:23].bincount(minlength=5).tolist() == [5, 5, 5, 4, 4]
    assert fold[23:33].bincount(minlength=5).tolist() == [2] * 5
    assert torch.equal(fold, confident_learning.assign_folds(targets, rng()))
    assert not torch.equal(fold, confident_learning.assign_folds(targets, rng(1)))
    for useless in (torch.zeros(9, dtype=torch.long), torch.arange(9)):
        with pytest.raises(NotApplicable, match="two classes of two rows"):
            confident_learning.assign_folds(useless, rng())


def test_logistic_knows_only_the_classes_it_has_seen() -> None:
    x, y = torch.randn(30, 4, generator=rng()), torch.arange(30) % 2 * 2
    x[:, 0] += y
    probabilities, classes = confident_learning.predict_logistic(x, y, x[:6])
    assert classes.tolist() == [0, 2]
    assert probabilities.sum(1).tolist() == pytest.approx([1] * 6)
    probabilities, _ = confident_learning.predict_logistic(
        ["good film", "bad film"] * 5, torch.arange(10) % 2, ["good", "xq"]
    )
    assert probabilities[0, 0] > 0.6
    assert probabilities[1].tolist() == pytest.approx([0.5, 0.5], abs=1e-3), "no word of it is known"


def test_rare_and_missing_classes_are_no_error(store: Store) -> None:
    task = create("tasks", "digits", {"train_size": 100, "epochs": 1})
    train = task.load().train  # type: ignore[attr-defined]
    few = train.select([*range(60), *(train.targets == 3).nonzero().flatten()[:1].tolist()])
    few = few.select((few.targets < 3) | (torch.arange(len(few)) == len(few) - 1))  # 0, 1, 2 and a single 3
    case = CellCase(few, few, Fitter(task, store, CPU, 0), rng())  # type: ignore[arg-type]
    create("defenses", "confident_learning", {"classifier": "logistic"}).defend(case)  # type: ignore[attr-defined]
    assert case.findings.train is not None
    assert torch.isfinite(case.findings.train).all()


def test_a_missing_cleanlab_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(BadInput, match=r'pip install "tinydrop\[curation\]"'):
        confident_learning._cleanlab()


# The table


def row(defense: str, dose: int, seed: int, stage: str = "filtering", **metrics: float) -> dict[str, Any]:
    return {"task": "t", "attack": "a", "defense": defense, "stage": stage, "dose": dose, "seed": seed,
            "status": "done", **metrics}  # fmt: skip


CELLS = pd.DataFrame([
    row("none", 0, 0, "control"),
    *[row("none", 5, s, "control", psnr=20 + s, labels_changed=1) for s in (0, 1)],
    *[row("oracle", 5, s, "control", psnr=20 + s, train_tpr_at_1=1, train_tpr_at_5=1) for s in (0, 1)],
    row("outlier", 5, 0, psnr=20, labels_changed=1, train_tpr_at_1=0.2, train_tpr_at_5=0.4),
    row("outlier", 5, 1, psnr=21, labels_changed=1, train_tpr_at_1=0.4, train_tpr_at_5=0.8),
    {**row("outlier", 9, 0), "status": "failed"},
])  # fmt: skip


def test_table_has_a_row_per_check() -> None:
    frame = stealth_frame(CELLS)
    found = frame.set_index(["kind", "check", "measure"])
    assert found.value.to_dict() == pytest.approx({
        ("fidelity", "psnr", "dB"): 20.5, ("fidelity", "labels_changed", "share"): 1.0,
        ("scorer", "outlier", "train_tpr_at_1"): 0.3, ("scorer", "outlier", "train_tpr_at_5"): 0.6,
    })  # fmt: skip
    assert (frame.seeds == 2).all(), "seeds, not cells"
    assert (frame.dose == 5).all()


def test_table_is_printed_whole() -> None:
    from rich.console import Console

    console = Console(width=100, record=True, file=io.StringIO())
    console.print(stealth_table(stealth_frame(CELLS), "t"))
    text = console.export_text()
    console.file.close()
    for words in ("would your pipeline have seen it?", "psnr (dB)", "20.50", "outlier", "0.30 / 0.60"):
        assert words in text, words


def test_no_table_where_nothing_was_measured() -> None:
    assert stealth_frame(pd.DataFrame()).empty
    assert stealth_frame(CELLS[["task", "attack", "defense", "stage", "dose", "seed", "status"]]).empty
    assert stealth_frame(CELLS[CELLS.dose == 0]).empty
