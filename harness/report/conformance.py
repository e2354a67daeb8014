"""Does every method do what its paper says? Claims, and what the cells of a grid say of them.

python -m harness.report.conformance results/conformance
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import stats
from sklearn.metrics import roc_auc_score

from harness.plugins.registry import VERDICTS
from harness.report.cells import LOWER_IS_BETTER, read_cells
from harness.report.compare import clean_change
from harness.report.dose_response import GAIN
from harness.report.write import as_csv
from harness.store.folder import write_atomically

CLAIMS = "claims.yaml"
CONTROL, RESERVE = "label_flip", "reserve_only"
MARGIN = {"attacks": 0.2, "defenses": 0.3}  # of ASR: what an attack adds to label flipping, what a defense takes away
WORKS = 0.5  # ASR without a defense, below which there is nothing to defend against
AUROC = 0.8  # of a verdict on models, clean ones against poisoned ones
COST = 0.05  # of accuracy that a defense may cost, unless its claim says otherwise; of another metric its tenth
SURE = 0.95


@dataclass(frozen=True)
class Claim:
    """What a method has to show, and where.

    kind: attacks or defenses. task: its label. dose: of poison. attack: that a defense is tried against, by name, or by
    label where it has options; of an attack with options, its own label. published: what the paper reports. measure:
    "asr", or "model_suspicion" for a defense that judges models. cost: of the clean metric that a defense may cost.
    folder: of the cells, below results/.
    """

    kind: str
    method: str
    task: str
    dose: int
    attack: str = ""
    published: str = ""
    measure: str = "asr"
    cost: float = COST
    folder: str = "conformance"


@dataclass(frozen=True)
class Verdict:
    """What the cells say: "works", "unproven" or "not run", and the numbers behind it, means over seeds."""

    kind: str
    method: str
    task: str
    attack: str
    dose: int
    published: str
    base: float = nan  # ASR of label flipping or the chance floor, whichever is higher; of a defense, ASR without it
    ours: float = nan  # ASR
    clean: float = nan  # the clean metric without poison, or at this dose where dose 0 was not run
    clean_base: float = nan  # the same of the undefended victim
    seeds: int = 0
    seconds: float = nan  # a cell
    verdict: str = "not run"
    why: str = ""


def read_claims(path: Path) -> list[Claim]:
    """The claims of a YAML file: by kind and method, the fields of Claim."""
    kinds: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(path.read_text("utf-8"))
    return [Claim(kind, method, **rest) for kind, claims in kinds.items() for method, rest in claims.items()]


def judge(claim: Claim, cells: pd.DataFrame) -> Verdict:
    """The verdict on a claim. cells: of its folder, one row each (see harness.report.cells)."""
    of_task = cells[(cells.task == claim.task) & (cells.status == "done")]
    found = _judge_attack(claim, of_task) if claim.kind == "attacks" else _judge_defense(claim, of_task)
    return _verdict(claim, found)


def _verdict(claim: Claim, found: dict[str, Any] | None = None) -> Verdict:
    """What a claim and the numbers found say together; without them it was not run."""
    return Verdict(claim.kind, claim.method, claim.task, claim.attack, claim.dose, claim.published, **(found or {}))


def _judge_attack(claim: Claim, cells: pd.DataFrame) -> dict[str, Any] | None:
    """An attack has to beat label flipping and the chance floor by MARGIN, and not to fall with the dose."""
    plain = cells[(cells.defense == "none") & cells.asr.notna()]
    own = plain[plain.attack == claim.attack] if claim.attack else plain[plain.attack_name == claim.method]
    at = own[own.dose == claim.dose].set_index("seed")
    if at.empty:
        return None
    # Flips against a class, or against one input where the attack has one: ASR is then over as many inputs.
    alike = (plain.asr_n == 1) == (at.asr_n == 1).all()
    flips = plain[(plain.attack_name == CONTROL) & (plain.dose == claim.dose) & alike].set_index("seed").asr
    base = np.fmax(at.asr_floor, flips.reindex(at.index))
    lower = own[(own.dose > 0) & (own.dose < claim.dose)].groupby("dose").asr.mean()
    why = _why_small(at.asr - base, MARGIN["attacks"], "no more than label flipping or chance")
    if not why and len(lower) and at.asr.mean() < lower.iloc[0] - GAIN:
        why = "falls with the dose"
    return _numbers(at, base, at.utility.mean(), own[own.dose == 0].utility.mean(), why)


def _judge_defense(claim: Claim, cells: pd.DataFrame) -> dict[str, Any] | None:
    """A defense has to take MARGIN off the ASR at the stated cost, and to beat its clean rows alone on clean data."""
    column = cells[claim.attack == (cells.attack if "(" in claim.attack else cells.attack_name)]
    own, plain = column[column.defense_name == claim.method], column[column.defense == "none"]
    at, base = own[own.dose == claim.dose].set_index("seed"), plain[plain.dose == claim.dose].set_index("seed").asr
    if at.empty or (base.empty and claim.measure == "asr"):
        return None
    base = base.reindex(at.index)
    label = str(own.defense.iloc[0])
    change, before = clean_change(column, label)
    sign = -1 if column.clean_metric.iloc[0] in LOWER_IS_BETTER else 1
    worse = -sign * change
    allowed = claim.cost if str(column.clean_metric.iloc[0]).endswith("accuracy") else claim.cost * 2 * abs(before)
    if claim.measure == "model_suspicion":
        why = _why_blind(own, claim.dose)
    elif base.mean() < WORKS:
        why = "the attack does not work undefended"
    else:
        why = _why_small(base - at.asr, MARGIN["defenses"], "ASR stays")
    if not why and worse > allowed:
        why = f"costs {worse:.3g} of the clean metric"
    reserve, _ = clean_change(column, label, RESERVE)
    if not why and reserve == reserve and sign * reserve <= 0:
        why = f"no better on clean data than {RESERVE}"
    return _numbers(at, base, before + change, before, why)


def _why_small(gain: pd.Series, margin: float, words: str) -> str:
    """Why a gain (one value per seed) is none; "" where its mean is MARGIN and surely above 0."""
    gain = gain.dropna()
    if len(gain) < 3:
        return f"{len(gain)} seeds"
    error = max(gain.sem(), 1e-9)
    if gain.mean() < margin:
        return words
    return "" if gain.mean() - stats.t.ppf(SURE, len(gain) - 1) * error > 0 else "seeds do not agree"


def _why_blind(own: pd.DataFrame, dose: int) -> str:
    """Why a suspicion of models is none: the AUROC of models without poison against those at a dose."""
    both = own[own.dose.isin([0, dose]) & own.model_suspicion.notna()]
    if both.dose.nunique() < 2:
        return "no suspicion of models"
    area = roc_auc_score(both.dose > 0, both.model_suspicion)
    return "" if area >= AUROC else f"AUROC over models {area:.2f}"


def _numbers(at: pd.DataFrame, base: Any, clean: float, clean_base: float, why: str) -> dict[str, Any]:
    return {
        "base": float(base.mean()), "ours": float(at.asr.mean()), "clean": float(clean),
        "clean_base": float(clean_base), "seeds": len(at), "seconds": float(at.seconds.mean()),
        "verdict": "unproven" if why else "works", "why": why,
    }  # fmt: skip


def conformance_frame(folder: Path) -> pd.DataFrame:
    """One row per claim of a folder's claims, judged on the published cells that it names."""
    cells: dict[str, pd.DataFrame] = {}
    rows = []
    for claim in read_claims(folder / CLAIMS):
        path = folder.parent / claim.folder / "cells.csv"
        if claim.folder not in cells and path.is_file():
            cells[claim.folder] = read_cells(path)
        rows.append(asdict(judge(claim, cells[claim.folder])) if claim.folder in cells else asdict(_verdict(claim)))
    return pd.DataFrame(rows)


HEADS = {
    "attacks": ("attack", "task, dose", "published", "label flipping or chance", "ASR", "clean, with and without"),
    "defenses": ("defense", "task, attack, dose", "published", "ASR without", "ASR", "clean, with and without"),
}


def to_markdown(frame: pd.DataFrame) -> str:
    """The table of a README: one section per kind, numbers with two digits."""
    lines: list[str] = []
    for kind, rows in frame.groupby("kind", sort=False):
        lines += ["", f"| {' | '.join(HEADS[str(kind)])} | verdict |", "|---" * 7 + "|"]
        for row in rows.itertuples():
            where = ", ".join(filter(None, [str(row.task), str(row.attack), str(row.dose)]))
            said = f"{row.verdict}: {row.why}" if row.why else str(row.verdict)
            numbers = ["-" if v != v else f"{v:.3g}" for v in (row.base, row.ours, row.clean, row.clean_base)]
            lines.append(
                f"| {row.method} | {where} | {row.published or '-'} | {numbers[0]} | {numbers[1]} "
                f"| {numbers[2]}, {numbers[3]} | {said} |"
            )
    return "\n".join(lines[1:]) + "\n"


def main() -> None:
    """Write the verdicts that the catalogue shows, and print the table of the README."""
    parser = argparse.ArgumentParser(prog="python -m harness.report.conformance", description=(__doc__ or "").strip())
    parser.add_argument("folder", type=Path, help=f"with {CLAIMS}; the cells are in it and in its neighbours")
    folder = parser.parse_args().folder
    frame = conformance_frame(folder)
    write_atomically(VERDICTS, as_csv(frame).encode())
    print(to_markdown(frame), end="")


if __name__ == "__main__":
    main()
