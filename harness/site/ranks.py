"""Ranks of the defenses of a task, over the blocks that most of them have. What seeds cannot tell apart is a tie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.console import format_count
from harness.report.cells import LOWER_IS_BETTER
from harness.report.compare import clean_change, holm, paired_t_test
from harness.report.summary import t_interval

LEVEL = 0.05  # of significance, for all comparisons of a task together
BUDGET = 0.02  # of accuracy, that a defense may cost; of other clean metrics, OTHER_BUDGET of their value
OTHER_BUDGET = 0.1
MOST = 0.5  # of the defenses, that must have a block or a seed for it to count; of the blocks, to be ranked

Block = tuple[str, int]  # an attack and a dose


@dataclass(frozen=True)
class Ranking:
    """The defenses of one task.

    rows: defense, stage, rank (0: not ranked), tied, asr, low, high, better_than, cost (of the clean metric, worse is
    negative), missing (cells counted as undefended), why (not ranked: "control", "over budget" or "").
    """

    rows: pd.DataFrame
    blocks: tuple[Block, ...]
    seeds: int
    left_out: tuple[str, ...]  # defenses that lack most of the blocks
    tests: pd.DataFrame  # of every pair: better (the lower mean ASR), worse, apart, p, corrected (Holm)

    @property
    def doses(self) -> str:
        """The blocks in words: attacks of the same doses together."""
        by_attack: dict[str, list[int]] = {}
        for attack, dose in self.blocks:
            by_attack.setdefault(attack, []).append(dose)
        by_doses: dict[tuple[int, ...], list[str]] = {}
        for attack, doses in by_attack.items():
            by_doses.setdefault(tuple(doses), []).append(attack)
        return "; ".join(f"{', '.join(attacks)} at {', '.join(map(str, doses))}" for doses, attacks in by_doses.items())

    @property
    def size(self) -> str:
        return f"{format_count(len(self.blocks), 'block')}, {format_count(self.seeds, 'seed')}"


def rank_defenses(cells: pd.DataFrame, working: set[str]) -> Ranking | None:
    """One task's defenses by mean ASR over the same blocks and seeds; None if there are none.

    cells: of one task. working: attacks whose gate is open; the others say nothing about a defense. A block is an
    attack and a dose above 0 at which the undefended victim and MOST of the defenses are done; the seeds are those of
    the undefended victim in all blocks which MOST of the defenses have. A cell that a defense lacks counts as if it had
    not defended. So no defense changes the blocks of the others by failing in one, by running more seeds, or by running
    what nobody else ran. A defense that costs more of the clean metric than BUDGET (at dose 0 where that was run) has
    no rank: refusing every input is no defense.

    A defense's rank is one more than the number of defenses that have a lower ASR in the paired one-sided t test over
    seeds, Holm-corrected over all pairs of the task in both directions. Intervals are those of a share.
    """
    if "asr" not in cells:
        return None
    graded = cells[cells.attack.isin(working) & (cells.dose > 0)]
    done = graded[(graded.status == "done") & graded.asr.notna()]
    stages = cells.drop_duplicates("defense").set_index("defense").stage
    real = [defense for defense in dict.fromkeys(done.defense) if stages[defense] != "control"]
    blocks, seeds, defenses = _fair_places(done, real)
    if len(defenses) < 2 or not seeds:
        return None
    controls = [d for d in dict.fromkeys(done.defense) if stages[d] == "control" and _share(done, d, blocks) >= MOST]
    part, missing = _fill(done, [*controls, *defenses], blocks, seeds)
    costs = {defense: clean_change(cells, defense) for defense in [*controls, *defenses]}
    metric = str(cells.clean_metric.iloc[0])
    ranked = [d for d in defenses if not _too_dear(costs[d], metric)]
    tests = _tests(part, ranked)
    won = tests[tests.corrected < LEVEL]
    by_seed = part.groupby(["defense", "seed"]).asr.mean().unstack("seed")
    rows = []
    for defense in [*controls, *defenses]:
        low, high = np.clip(t_interval(by_seed.loc[defense]), 0, 1)
        rank = 1 + int((won.worse == defense).sum()) if defense in ranked else 0
        better = ", ".join(sorted(won[won.better == defense].worse))
        why = "" if rank else "control" if defense in controls else "over budget"
        rows.append({"defense": defense, "stage": stages[defense], "rank": rank, "asr": by_seed.loc[defense].mean(),
                     "low": low, "high": high, "better_than": better, "cost": costs[defense][0],
                     "missing": missing[defense], "why": why})  # fmt: skip
    frame = pd.DataFrame(rows)
    frame["tied"] = (frame["rank"] > 0) & frame["rank"].duplicated(keep=False)
    frame = frame.assign(last=frame["rank"] == 0).sort_values(["last", "rank", "asr", "defense"], ignore_index=True)
    frame = frame.drop(columns="last")
    left_out = tuple(sorted(set(real) - set(defenses)))
    mean = by_seed.mean(axis=1)
    tests = tests.assign(apart=tests.better.map(mean) - tests.worse.map(mean))
    tests = tests[(tests.apart < 0) | ((tests.apart == 0) & (tests.better < tests.worse))]  # one of both directions
    return Ranking(frame, tuple(blocks), len(seeds), left_out, tests.sort_values("p", kind="stable", ignore_index=True))


def _fair_places(done: pd.DataFrame, real: list[str]) -> tuple[list[Block], list[int], list[str]]:
    """The blocks and seeds that count, and the defenses that have most of the blocks."""
    has = {d: set(zip(part.attack, part.dose)) for d, part in done.groupby("defense", sort=False)}
    if not real:
        return [], [], []
    blocks = sorted(b for b in has.get("none", ()) if np.mean([b in has[d] for d in real]) >= MOST)
    defenses = [d for d in real if blocks and _share(done, d, blocks) >= MOST]
    plain = done[done.defense == "none"]
    by_block = {block: set(part.seed) for block, part in plain.groupby(["attack", "dose"], sort=False)}
    common = set.intersection(*(by_block[block] for block in blocks)) if blocks else set()
    ran = {d: set(part.seed) for d, part in done[done.defense.isin(defenses)].groupby("defense", sort=False)}
    return (
        blocks,
        sorted(s for s in common if ran and np.mean([s in seeds for seeds in ran.values()]) >= MOST),
        defenses,
    )


def _share(done: pd.DataFrame, defense: str, blocks: list[Block]) -> float:
    part = done[done.defense == defense]
    has = set(zip(part.attack, part.dose))
    return float(np.mean([block in has for block in blocks])) if blocks else 0.0


def _fill(
    done: pd.DataFrame, defenses: list[str], blocks: list[Block], seeds: list[int]
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Every cell of the blocks and seeds, those that are missing as of `none`; and how many these are, by defense.

    `dose` numbers the blocks, so that every block counts alike in the paired test.
    """
    columns = ["asr", "asr_n"] if "asr_n" in done else ["asr"]
    at = done.drop_duplicates(["defense", "attack", "dose", "seed"]).set_index(["defense", "attack", "dose", "seed"])
    places = [(attack, dose, seed) for attack, dose in blocks for seed in seeds]
    undefended = at[columns].loc[[("none", *place) for place in places]].to_numpy()
    parts, missing = [], {}
    for defense in defenses:
        own = at[columns].reindex([(defense, *place) for place in places])
        lacks = own.asr.isna().to_numpy()
        values = np.where(lacks[:, None], undefended, own.to_numpy())
        numbers = [1 + blocks.index((attack, dose)) for attack, dose, _ in places]
        parts.append(pd.DataFrame(values, columns=columns).assign(
            defense=defense, dose=numbers, seed=[seed for *_, seed in places], status="done"))  # fmt: skip
        missing[defense] = int(lacks.sum())
    return pd.concat(parts, ignore_index=True), missing


def _too_dear(cost: tuple[float, float], metric: str) -> bool:
    """Whether a defense costs more of the clean metric than a rank allows; unknown counts as too much."""
    change, base = cost
    worse = change if metric in LOWER_IS_BETTER else -change
    most = BUDGET if metric.endswith("accuracy") else OTHER_BUDGET * abs(base)
    return not worse <= most + 1e-9


def _tests(part: pd.DataFrame, ranked: list[str]) -> pd.DataFrame:
    """The paired test of whether `better` has a lower ASR than `worse`: a row for every pair, in both directions."""
    pairs = [(a, b) for a in ranked for b in ranked if a != b]
    p = np.array([paired_t_test(part, a, b) for a, b in pairs], dtype=float)
    return pd.DataFrame(pairs, columns=["better", "worse"]).assign(p=p, corrected=holm(p))
