"""How large a leaderboard stays usable? 100,000 cells: seconds to build, and in a browser to load, sort and filter.

PYTHONPATH=. python tests/campaigns/site_scale.py
"""

from __future__ import annotations

import shutil
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from playwright.sync_api import sync_playwright

from harness.report.write import as_csv
from harness.site.build import Options, build
from harness.site.sources import join_sources, open_sources

DOSES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
STEPS = {
    "sort by ASR": "document.querySelectorAll('#cells th button')[6].click()",
    "sort by task": "document.querySelectorAll('#cells th button')[0].click()",
    "filter by two words": """(() => { const i = document.querySelector('.tools input'); i.value = 'attack_3 defense_7';
                           i.dispatchEvent(new Event('input')); })()""",
    "filter by status": """(() => { const s = document.querySelector('[aria-label^=status]'); s.selectedIndex = 1;
                        s.dispatchEvent(new Event('change')); })()""",
    "next page": "document.querySelectorAll('.tools button')[1].click()",
}  # fmt: skip


def cells() -> pd.DataFrame:
    """5 tasks x 10 attacks x 20 defenses x 10 doses x 10 seeds, ASR on Hill curves that differ by all of them."""
    rng = np.random.default_rng(0)
    axes = product(range(5), range(10), range(20), DOSES, range(10))
    frame = pd.DataFrame(axes, columns=["task", "attack", "defense", "dose", "seed"])
    middle = 5 * (1 + frame.attack) * (1 + 0.2 * frame.defense) * np.exp(rng.normal(0, 0.3, len(frame)))
    asr = 0.1 + 0.9 * frame.dose**2 / (frame.dose**2 + middle**2)
    names = {c: f"{c}_" + frame[c].astype(str) for c in ("task", "attack")}
    frame = frame.assign(
        **names, defense=np.where(frame.defense == 0, "none", "defense_" + frame.defense.astype(str)),
        stage=np.where(frame.defense == 0, "control", "filtering"), modality="image", reason="", train_size=2000,
        status=np.where(rng.random(len(frame)) < 0.01, "failed", "done"), clean_metric="accuracy", asr=asr, asr_n=1000,
        asr_floor=0.1, utility=0.9, utility_n=1000, fit_seconds=10.0, seconds=12.0, clean_used=0,
        device="cpu", commit="",
    )  # fmt: skip
    for column in ("task", "attack", "defense"):
        frame = frame.assign(**{f"{column}_name": frame[column], f"{column}_options": "{}"})
    return frame.assign(key=[f"{i:032x}" for i in range(len(frame))])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "run").mkdir()
        (root / "run" / "cells.csv").write_text(as_csv(cells()))
        clock = time.perf_counter()
        with open_sources([root / "run"]) as found:
            files = build(join_sources(found), root / "site", Options(formats=("svg",)))
        print(f"build: {time.perf_counter() - clock:.0f} s, {files} files")
        print(f"cells.js: {(root / 'site' / 'cells.js').stat().st_size / 1e6:.1f} MB")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page()
            for name in ("index.html", "cells.html"):
                clock = time.perf_counter()
                page.goto((root / "site" / name).as_uri())
                page.wait_for_selector("table.data tbody tr")
                print(f"{name}: {1000 * (time.perf_counter() - clock):.0f} ms")
            for step, code in STEPS.items():
                spent = page.evaluate(
                    f"(() => {{ const t = performance.now(); {code}; return performance.now() - t; }})()"
                )
                print(f"{step}: {spent:.0f} ms, {page.locator('output').inner_text()}")
            browser.close()


if __name__ == "__main__":
    main()
