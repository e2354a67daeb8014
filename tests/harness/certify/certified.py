"""A run, audits and vettings to certify: written by the code that writes them, of made-up numbers, without training."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import torch

from harness.audit import vetted, write
from harness.audit.behaviour import Plan, Shift, holm
from harness.audit.detectors import Calibrated
from harness.audit.steps import Audit, Request
from harness.audit.vet import Check, Vetted, judge, test_sources
from harness.certify.sign import MAKE_KEY
from harness.store import records
from harness.store.folder import Store
from harness.store.records import Record
from tasks.samples import Samples
from tasks.text.synthetic_reviews import SyntheticReviews

ASR = {0: 0.02, 10: 0.4, 20: 0.9}  # of the undefended victim, by dose
CLASSES = ("cat", "dog", "<b>owl</b>")


def make_key(folder: Path) -> Path:
    """A private key, made by the command that the help names; public.pem lies beside it."""
    subprocess.run(MAKE_KEY, shell=True, cwd=folder, check=True, capture_output=True)
    return folder / "key.pem"


def write_run(folder: Path, seeds: int = 3, doses: tuple[int, ...] = tuple(ASR), **changes: Any) -> Path:
    """badnets on digits against nothing and a filter, which makes the ASR a tenth; changes: of every record."""
    store, cells = Store(folder), []
    for i, (dose, defense, seed) in enumerate(
        (dose, defense, seed) for dose in doses for defense in ("none", "outlier") for seed in range(seeds)
    ):
        asr = (ASR[dose] + 0.01 * seed) / (1 if defense == "none" else 10)
        names = {"task": "digits", "attack": "badnets", "defense": defense}
        key, label = f"{i:032x}", f"digits/badnets/{dose}/{defense}/{seed}"
        metrics = {name: {"value": v, "n": 100} for name, v in {"asr": asr, "asr_floor": 0.02, "utility": 0.9}.items()}
        record = {
            "key": key, "label": label, "modality": "image", "dose": dose, "seed": seed, "status": "done",
            "stage": "control" if defense == "none" else "filtering", "train_size": 1000, "metrics": metrics,
            "dataset_fingerprint": "ab" * 16, "fits": [{"key": key, "seconds": 1.0, "trained": True}],
            "provenance": {"commit": "c0ffee", "dirty": True, "libraries": {"torch": "2.5.0", "opacus": ""}},
            **{kind: {"name": name, "label": name, "options": {"epochs": 3}} for kind, name in names.items()},
        }  # fmt: skip
        records.save(store, Record.model_validate(record | changes))
        same = {f"{kind}_name": name for kind, name in names.items()}
        cells.append({"key": key, "label": label, "dose": dose, "seed": seed, **names, **same})
    records.write_plan(store, {"tasks": ["digits"]}, cells)
    return folder


def write_audit(folder: Path, share: float = 0.1, nulls: int = 0, quick: bool = False, digest: str = "5" * 64) -> Path:
    """An audit that tried one trigger, which turned this share of the rows into owls."""
    works = share >= 0.5
    p = [1 / 1000 if works else 1.0, 1.0]
    shifts = [
        Shift("badnets", strength, share, 2, draws=999 if p[i] < 1 else 0, p=p[i], adjusted=holm(p)[i],
              shares=[0.0, 0.01, share])
        for i, strength in enumerate((1.0, 0.5))
    ]  # fmt: skip
    raw = [0.4, 0.9]
    detected = [
        Calibrated(name, 1.5, raw[i], i, nulls, adjusted=holm(raw)[i])
        for i, name in enumerate(("neural_cleanse", "mm_bd"))
    ]  # fmt: skip
    request = Request("models/my <model>.pt", "pictures", "resnet18", null_models=nulls, quick=quick)
    found = Audit(
        request, "resnet18", digest, "imagenet", CLASSES, 0.93, 400, Plan(), shifts, {"wanet": "too small"}, "",
        detected, [0.9] * nulls, ("two rows were left out",),
    )  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "audit.json").write_text(write.as_json(found))
    return folder


def write_vet(folder: Path, flagged: int = 0, trusted: int = 199) -> Path:
    """Two checks of 600 rows by three people; so many rows of the last one stand out."""
    rng = torch.Generator().manual_seed(0)
    rows = Samples([f"text {i}" for i in range(600)], torch.arange(600) % 2, torch.arange(600), torch.arange(600) % 3)
    theirs = (torch.arange(600) % 3 == 2).nonzero().flatten()[:flagged]
    checks: list[Check] = []
    for name in ("outlier", "dedup"):
        suspicion = torch.rand(600, generator=rng)
        suspicion[theirs] += 1
        checks.append(judge(name, suspicion, torch.rand(trusted, generator=rng), 0.01))
    found = Vetted(rows, trusted, test_sources(checks, rows, 0), {"perplexity": "needs trusted rows"},
                   ("ann", "bob", "<i>eve</i>"), 0.05)  # fmt: skip
    folder.mkdir(parents=True)
    data = folder / "comments.csv"
    data.write_text("text,label,author\n")
    settings = {"rate": 0.01, "level": 0.05, "seed": 0, "victim": False}
    (folder / "vet.json").write_text(vetted.as_json(found, SyntheticReviews(), str(data), str(data), settings))
    return folder
