"""Ranks of the defenses of a task, over complete blocks only. Defenses that the seeds cannot tell apart are a tie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.console import format_count
from harness.report.compare import holm, paired_t_test
from harness.report.summary import t_interval

LEVEL = 0.05  # of significance, for all comparisons of a task together

Block = tuple[str, int]  # an attack and a dose


@dataclass(frozen=True)
class Ranking:
    """The defenses of one task."""

    rows: pd.DataFrame  # defense, stage, rank (0: a control, not ranked), tied, asr, low, high, better_than
    blocks: tuple[Block, ...]
    seeds: int
    left_out: tuple[str, ...]  # defenses that were run and lack some of the blocks
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
    """One task's defenses by mean ASR over the blocks that all of them completed; None if there are none.

    cells: of one task. working: attacks whose gate is open; the others say nothing about a defense. A block is an
    attack and a dose above 0; it is complete where all of its seeds are done. Defenses and blocks are dropped, those
    that lack most first, until every defense left has every block left. A defense's rank is one more than the number of
    defenses that have a lower ASR in the paired one-sided t test over seeds, Holm-corrected over all pairs of the task
    in both directions. Intervals are those of a share: they end at 0 and 1.
    """
    if "asr" not in cells:
        return None
    graded = cells[cells.attack.isin(working) & (cells.dose > 0)]
    done = graded[(graded.status == "done") & graded.asr.notna()]
    if done.empty:
        return None
    defenses, blocks = _common_blocks(_complete_blocks(graded, done))
    seeds = _common_seeds(done, blocks)
    stages = cells.drop_duplicates("defense").set_index("defense").stage
    ranked = [d for d in defenses if stages[d] != "control"]
    if len(ranked) < 2 or not seeds:
        return None
    number = {block: n for n, block in enumerate(blocks, 1)}
    numbers = [number.get(pair, 0) for pair in zip(done.attack, done.dose)]
    part = done.assign(dose=numbers)  # so that every block counts alike in the paired test
    part = part[(part.dose > 0) & part.seed.isin(seeds) & part.defense.isin(defenses)]
    tests = _tests(part, ranked)
    won = tests[tests.corrected < LEVEL]
    by_seed = part.groupby(["defense", "seed"]).asr.mean().unstack("seed")
    rows = []
    for defense in defenses:
        low, high = np.clip(t_interval(by_seed.loc[defense]), 0, 1)
        rank = 1 + int((won.worse == defense).sum()) if defense in ranked else 0
        better = ", ".join(sorted(won[won.better == defense].worse))
        rows.append({"defense": defense, "stage": stages[defense], "rank": rank, "asr": by_seed.loc[defense].mean(),
                     "low": low, "high": high, "better_than": better})  # fmt: skip
    frame = pd.DataFrame(rows)
    frame["tied"] = (frame["rank"] > 0) & frame["rank"].duplicated(keep=False)
    frame = frame.assign(last=frame["rank"] == 0).sort_values(["last", "rank", "asr", "defense"], ignore_index=True)
    frame = frame.drop(columns="last")
    left_out = tuple(sorted(set(done.defense) - set(defenses)))
    mean = by_seed.mean(axis=1)
    tests = tests.assign(apart=tests.better.map(mean) - tests.worse.map(mean))
    tests = tests[(tests.apart < 0) | ((tests.apart == 0) & (tests.better < tests.worse))]  # one of both directions
    return Ranking(frame, tuple(blocks), len(seeds), left_out, tests.sort_values("p", kind="stable", ignore_index=True))


def _complete_blocks(graded: pd.DataFrame, done: pd.DataFrame) -> pd.DataFrame:
    """Defense x block: whether all seeds of the block are done."""
    block = ["attack", "dose"]
    seeds = graded.groupby(block, sort=False).seed.nunique()
    per_block = done.groupby(["defense", *block], sort=False).seed.nunique().unstack("defense").fillna(0)
    return per_block.eq(seeds.loc[per_block.index], axis=0).T


def _common_blocks(complete: pd.DataFrame) -> tuple[list[str], list[Block]]:
    """Defenses and blocks (by attack and dose) such that every defense has every block; many of both, greedily.

    Whatever lacks the largest share goes first. A defense or block that was dropped and, in the end, lacks nothing is
    re-admitted.
    """
    left = complete
    while not left.to_numpy().all():
        rows, columns = (~left).mean(axis=1), (~left).mean(axis=0)
        left = left.drop(index=rows.idxmax()) if rows.max() > columns.max() else left.drop(columns=[columns.idxmax()])
    blocks = complete.columns[complete.loc[left.index].all(axis=0)]
    defenses = complete.index[complete[blocks].all(axis=1)]
    return list(defenses), sorted((str(attack), int(dose)) for attack, dose in blocks)


def _common_seeds(done: pd.DataFrame, blocks: list[Block]) -> set[int]:
    sets = [set(part.seed) for pair, part in done.groupby(["attack", "dose"], sort=False) if pair in set(blocks)]
    return set.intersection(*sets) if sets else set()


def _tests(part: pd.DataFrame, ranked: list[str]) -> pd.DataFrame:
    """The paired test of whether `better` has a lower ASR than `worse`: a row for every pair, in both directions."""
    pairs = [(a, b) for a in ranked for b in ranked if a != b]
    alone = dict(list(part.groupby("defense", sort=False)))
    p = np.array([paired_t_test(pd.concat([alone[a], alone[b]]), a, b) for a, b in pairs])
    return pd.DataFrame(pairs, columns=["better", "worse"]).assign(p=p, corrected=holm(p))
