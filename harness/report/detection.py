"""Would the defender have noticed? Detectors of poisoned models and of poisoned rows by dose, beside the ASR."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from harness.console import new_table

if TYPE_CHECKING:
    from rich.table import Table

Array = NDArray[np.float64]
Z = float(stats.norm.ppf(0.975))
# Clean models for a threshold at 1 % or 5 % false alarms, and in all for a calibration.
FEWEST = {1: 100, 5: 20}
CALIBRATED = 20
COLUMN = ["task", "attack", "defense"]


def detection_frame(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per task, attack, detector and dose above 0 that was graded: how well it tells poisoned from clean.

    kind "models": a detector's suspicion of a whole model; the clean ones are all its models of dose 0 on the task, a
    seed counting once. auroc with a 95 % interval over models, tpr_at_1 and tpr_at_5 (share of poisoned models more
    suspicious than all but 1 % or 5 % of the clean ones; only of FEWEST clean models, or more), brier and cross_entropy
    of a logistic calibration, each model judged by the others (of CALIBRATED models or more). kind "rows": a filter's
    suspicion of training rows: means over seeds. asr: of the undefended victim at that dose, nan if it was not run.
    """
    if "asr" not in cells:
        return pd.DataFrame()
    done = cells[(cells.status == "done") & (cells.stage != "control")]
    undefended = cells[(cells.status == "done") & (cells.defense == "none")]
    asr = undefended.groupby(["task", "attack", "dose"]).asr.mean()
    rows: list[dict[str, Any]] = []
    for place, part in done.groupby(COLUMN, sort=False):
        where = dict(zip(COLUMN, place))
        for dose, poisoned in part[part.dose > 0].groupby("dose"):
            shared = {**where, "dose": dose, "asr": asr.get((where["task"], where["attack"], dose), float("nan"))}
            if "model_suspicion" in part and poisoned.model_suspicion.notna().any():
                clean = clean_suspicion(done[(done.task == where["task"]) & (done.defense == where["defense"])])
                if len(clean):
                    suspicion = poisoned.model_suspicion.dropna().to_numpy(float)
                    rows.append({**shared, "kind": "models", **judge_models(clean, suspicion)})
            if "train_auroc" in part and poisoned.train_auroc.notna().any():
                means = poisoned[[n for n in ("train_auroc", "train_tpr_at_1", "train_tpr_at_5") if n in part]].mean()
                named = {name.removeprefix("train_"): value for name, value in means.items()}
                rows.append({**shared, "kind": "rows", "poisoned": len(poisoned), **named})
    return pd.DataFrame(rows)


def clean_suspicion(cells: pd.DataFrame) -> Array:
    """(C,) a detector's suspicion of the models without poison, each seed once. cells: of one task and detector."""
    clean = cells[cells.dose == 0].drop_duplicates("seed").model_suspicion.dropna()
    return np.asarray(clean, dtype=np.float64)


def judge_models(clean: Array, poisoned: Array) -> dict[str, float]:
    """The numbers of kind "models" from the suspicion of C clean and P poisoned models."""
    scores, truth = np.concatenate([clean, poisoned]), np.repeat([0, 1], [len(clean), len(poisoned)])
    auroc = float(roc_auc_score(truth, scores))
    low, high = auroc_interval(auroc, len(clean), len(poisoned))
    found = {"clean": len(clean), "poisoned": len(poisoned), "auroc": auroc, "auroc_low": low, "auroc_high": high}
    for percent, fewest in FEWEST.items():
        if len(clean) >= fewest:
            found[f"tpr_at_{percent}"] = float((poisoned > threshold_at(clean, percent)).mean())
    return found | (calibrate(scores, truth) if len(scores) >= CALIBRATED else {})


def threshold_at(clean: Array, percent: int) -> float:
    """The suspicion above which at most so many percent of the clean models (C,) lie."""
    return float(np.sort(clean)[::-1][percent * len(clean) // 100])


def auroc_interval(auroc: float, clean: int, poisoned: int) -> tuple[float, float]:
    """The 95 % score interval of an AUROC of independent models; also of 0 and 1, which a bootstrap would call certain.

    Newcombe, 2006, Confidence intervals for an effect size measure based on the Mann-Whitney statistic, part 2 (method
    5): the values whose own standard error, by Hanley and McNeil with both groups of the mean size, reaches the AUROC.
    """
    middle = (clean + poisoned) / 2 - 1

    def gap(theta: float) -> float:
        variance = theta * (1 - theta) * (1 + middle * ((1 - theta) / (2 - theta) + theta / (1 + theta)))
        return abs(auroc - theta) - Z * math.sqrt(variance / (clean * poisoned))

    # Of 0 and 1 the gap is 0 at the AUROC itself: the root inside is meant.
    low = float(optimize.brentq(gap, 0 if auroc < 1 else 1e-9, min(auroc, 1 - 1e-9))) if auroc > 0 else 0.0
    high = float(optimize.brentq(gap, max(auroc, 1e-9), 1 if auroc > 0 else 1 - 1e-9)) if auroc < 1 else 1.0
    return low, high


def calibrate(scores: Array, truth: NDArray[np.int64]) -> dict[str, float]:
    """Brier score and cross-entropy (nats) of the probability of poison: .25 and .69 know nothing of equal groups."""
    spread = scores.std() or 1.0
    x = ((scores - scores.mean()) / spread)[:, None]
    kept = [np.arange(len(x)) != i for i in range(len(x))]
    models = [LogisticRegression().fit(x[others], truth[others]) for others in kept]
    p = np.array([model.predict_proba(x[i : i + 1])[0, 1] for i, model in enumerate(models)])
    p = p.clip(1e-6, 1 - 1e-6)
    entropy = -np.where(truth == 1, np.log(p), np.log(1 - p)).mean()
    return {"brier": float(((p - truth) ** 2).mean()), "cross_entropy": float(entropy)}


def detection_table(detection: pd.DataFrame) -> Table:
    """Detectors of models by dose."""
    title = "detectors: is the model poisoned? (clean models against poisoned ones, 95 % interval over models)"
    table = new_table(title, COLUMN, ["dose", "ASR", "models", "AUROC", "TPR at 5 %"])
    for row in detection[detection.kind == "models"].itertuples():
        rate = getattr(row, "tpr_at_5", float("nan"))
        asr, tpr = (f"{value:.2f}" if value == value else "-" for value in (row.asr, rate))
        auroc = f"{row.auroc:.2f} ({row.auroc_low:.2f} to {row.auroc_high:.2f})"
        place = [str(row.task), str(row.attack), str(row.defense), str(row.dose)]
        table.add_row(*place, asr, f"{row.clean:.0f} + {row.poisoned:.0f}", auroc, tpr)
    return table
