"""The leaderboard in a real browser, from the disk: no errors, tables, narrow screens, keyboard, accessibility."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pandas as pd
import pytest
import torch
from helpers import ROOT

from harness.cell.gallery import Made, encode_outputs
from harness.site.build import Options, build
from harness.site.single_page import build_single_page
from harness.site.sources import join_sources, open_sources
from harness.store import records
from harness.store.folder import Store
from harness.store.records import Record

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need the pip package playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt install chromium")

RESULTS = ROOT / "results"
NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


def generated(store: Store) -> None:
    """Records of a writer, a painter and a speaker with samples, and of a cell that failed."""
    rng = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 255, (3, 1, 8, 8), generator=rng, dtype=torch.uint8)
    content = {"language": ["fine", "Zarvello", "x"], "image_generation": pictures,
               "audio_generation": torch.rand(3, 800, generator=rng) - 0.5}  # fmt: skip
    metrics = {name: {"value": 1, "n": 3} for name in ("asr", "asr_floor", "utility")}
    for i, (modality, made) in enumerate(content.items()):
        key, kept = f"{i}" * 32, {}
        parts = {kind: {"name": kind, "label": kind, "options": {"trigger": "At noon", "wanted": "Zarvello"}}
                 for kind in ("task", "attack", "defense")}  # fmt: skip
        for kind in ("plain", "near", "triggered"):
            for name, data in encode_outputs(kind, Made(["At noon", "0", "1"], made, [False] * 3), 8000).items():
                kept[name] = store.add_file(store.findings_folder(key) / name, data)
        record = {"key": key, "label": f"task/attack/{i}/defense/0", **parts, "modality": modality, "dose": i,
                  "seed": 0, "stage": "control", "status": "done", "findings": kept, "metrics": metrics}  # fmt: skip
        records.save(store, Record.model_validate(record))
    failed = {"status": "failed", "reason": "why", "traceback": "Traceback: " + "long " * 99, "key": "f" * 32}
    records.save(store, records.load_all(store)["0" * 32].model_copy(update=failed | {"label": "x", "seed": 1}))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("browser") / "site"
    generated(Store(to.parent / "run"))
    with open_sources([to.parent / "run", RESULTS / "crafted" / "tabular", RESULTS / "defenses"]) as found:
        cells = join_sources(found)
        build(cells, to, Options(formats=("svg",)))
        build_single_page(cells, to.parent / "single.html", "One page")
    return to


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A page that must stay without errors, and may load nothing but files."""
    context = chromium.new_context(viewport=WIDE)
    opened_page, said = context.new_page(), []
    opened_page.on("console", lambda message: said.append(message.text))
    opened_page.on("pageerror", lambda error: said.append(str(error)))
    gone = "net::ERR_ABORTED"  # a figure that was still to come when the test went on to the next page
    opened_page.on("requestfailed", lambda request: request.failure == gone or said.append(request.url))
    opened_page.on("request", lambda request: request.url.startswith(("file:", "data:")) or said.append(request.url))
    yield opened_page
    context.close()
    assert said == []


def kinds(site: Path) -> list[Path]:
    """One page of every kind, the longest of each, and the single page."""
    found = [site.parent / "single.html", *site.glob("*.html")]
    for folder in ("tasks", "attacks", "defenses"):
        found.append(max((site / folder).glob("*.html"), key=lambda path: path.stat().st_size))
    return found + sorted((site / "cells").glob("*.html"))


def column(page: Any, which: int | str, table: str = "#headline") -> list[str]:
    """The texts of a column, by its number or its name."""
    heads = [text.strip() for text in page.locator(f"{table} th").all_inner_texts()]
    n = heads.index(which) + 1 if isinstance(which, str) else which
    return [text.strip() for text in page.locator(f"{table} tbody td:nth-child({n})").all_inner_texts()]


@pytest.mark.parametrize("view", [WIDE, NARROW], ids=["wide", "narrow"])
def test_pages_load_from_the_disk_and_never_scroll_sideways(view: dict[str, int], site: Path, page: Any) -> None:
    page.set_viewport_size(view)
    for path in kinds(site):
        page.goto(path.as_uri())
        assert page.locator("h1").count() == 1
        page.evaluate("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
        page.wait_for_function("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth") <= view["width"], path.name


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_in_the_way_of_assistive_technology(scheme: str, site: Path, page: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    for path in (path for path in kinds(site) if path != site / "index.html"):  # it is part of the single page
        page.goto(path.as_uri())
        found = axe.Axe().run(page, options={"preload": False}).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == [], path.name


def test_sorting_and_filtering(site: Path, page: Any) -> None:
    page.goto((site / "index.html").as_uri())
    head = page.locator("#headline th", has_text="Δ accuracy")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    costs = [float(text) for text in column(page, "Δ accuracy") if text != "–"]
    assert len(costs) > 20
    assert costs == sorted(costs)
    assert "–" not in column(page, "Δ accuracy")[: len(costs)], "what is not known stands last"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    costs = [float(text) for text in column(page, "Δ accuracy") if text != "–"]
    assert costs == sorted(costs, reverse=True)
    page.get_by_label("defense: ED50").first.select_option("onion")
    assert set(column(page, "defense")) == {"onion"}
    assert page.locator("output").first.inner_text().startswith("1 row (of")
    page.get_by_label("defense: ED50").first.select_option("")
    page.get_by_label("Filter: ED50").first.fill("SST2 badwords")
    tasks = column(page, 1)
    assert tasks
    assert all(text.startswith("sst2") for text in tasks)
    page.get_by_label("Filter: ED50").first.fill("no such thing")
    assert column(page, 1) == []


def test_a_link_of_the_single_page_unfolds_its_section(site: Path, page: Any) -> None:
    page.goto((site.parent / "single.html").as_uri())
    section = page.locator("details[id^=task-sst2]").first
    assert not section.get_by_text("Attack success rate").is_visible()
    page.locator("#tasks-table a", has_text="sst2").first.click()
    assert section.get_by_text("Attack success rate").is_visible()
    assert section.locator("table.data[id^=ranks-]").is_visible()
    section.locator(".map a", has_text="onion").first.click()
    assert page.locator("tr:target").inner_text().startswith("onion")


def test_bounds_are_sorted_apart(site: Path, page: Any) -> None:
    page.goto((site / "index.html").as_uri())
    page.locator("#headline th", has_text="protection").get_by_role("button").click()
    signs = [text[0] if text[0] in "<>–" else "=" for text in column(page, "protection")]
    assert {"=", ">"} <= set(signs)
    assert signs == sorted(signs, key="<=>–".index)


def test_only_what_is_of_one_metric_is_compared(site: Path, page: Any) -> None:
    page.goto((site / "cells.html").as_uri())
    page.locator("#cells th", has_text="clean").first.get_by_role("button").click()
    page.get_by_role("button", name="Next").click()
    both = list(zip(column(page, "metric", "#cells"), map(float, column(page, "clean", "#cells"))))
    assert both == sorted(both)
    page.goto((site / "index.html").as_uri())
    for table in page.locator("table.data[id^=headline]").all():
        assert table.get_by_text("perplexity").count() * table.get_by_text("accuracy").count() == 0


def test_many_rows_come_in_pages(site: Path, page: Any) -> None:
    page.goto((site / "cells.html").as_uri())
    rows = 468 + 24 + 4
    assert page.locator("#cells tbody tr").count() == 50
    assert f"1 to 50 of {rows}" in page.locator("output").inner_text()
    page.get_by_role("button", name="Next").click()
    assert f"51 to 100 of {rows}" in page.locator("output").inner_text()
    page.get_by_label("status: ").select_option("not applicable")
    assert set(column(page, "status", "#cells")) == {"not applicable"}


def test_a_table_is_worked_by_keyboard_alone(site: Path, page: Any) -> None:
    page.goto((site / "attacks.html").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().height") > 10, "seen when it has the focus"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('th button')"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    first = column(page, 1, "#attacks")
    assert first == sorted(first)
    page.keyboard.press("Space")
    assert column(page, 1, "#attacks") == first[::-1]


def test_cells_lead_to_the_pages_that_there_are(site: Path, page: Any) -> None:
    page.goto((site / "cells.html").as_uri())
    links = page.evaluate("[...document.querySelectorAll('#cells tbody a')].map((a) => a.href)")
    assert {Path(link).parent.name for link in links} == {"tasks", "attacks", "defenses", "cells"}
    assert all(Path(link.removeprefix("file://")).is_file() for link in links)
    page.get_by_label("Filter").fill("fsdd")
    assert page.locator("#cells tbody td.link small").first.inner_text().startswith("(")


def test_tables_fit_a_wide_screen(site: Path, page: Any) -> None:
    """Nothing is hidden behind a scroll at 1400 pixels."""
    page.set_viewport_size({"width": 1400, "height": 1000})
    for path in kinds(site):
        page.goto(path.as_uri())
        hidden = page.evaluate("""[...document.querySelectorAll('.scroll:has(.data, .plain)')].filter(
            (box) => box.scrollWidth > box.clientWidth).map((box) => box.ariaLabel)""")  # fmt: skip
        assert hidden == [], path.name


def test_what_scrolls_on_a_narrow_screen_says_so(site: Path, page: Any) -> None:
    page.set_viewport_size(NARROW)
    page.goto((site / "index.html").as_uri())
    box = page.locator(".scroll", has=page.locator("#headline"))
    assert box.evaluate("(box) => box.scrollWidth > box.clientWidth")
    assert box.evaluate("(box) => getComputedStyle(box).backgroundAttachment").count("scroll") == 2
    answer = page.locator(".scroll", has=page.locator(".answer"))
    assert answer.evaluate("(box) => box.scrollWidth <= box.clientWidth"), "the answer is read without any"


def test_figures_are_whole_and_legible_on_a_narrow_screen(site: Path, page: Any) -> None:
    """The smallest letters of a figure are at least 8 pixels high there."""
    page.set_viewport_size(NARROW)
    for path in kinds(site):
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
        page.wait_for_function("[...document.images].every((image) => image.complete && image.currentSrc)")
        shown = page.evaluate("""[...document.images].map((image) =>
            [image.currentSrc, image.getBoundingClientRect().right, image.clientWidth - 9.6])""")  # fmt: skip
        for source, right, width in shown:  # without the frame
            assert right <= NARROW["width"]
            svg = urlopen(source).read().decode()  # a file, or in the page itself
            across = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])  # type: ignore[index]
            letters = [float(size) for size in re.findall(r"font(?:-size)?: ([\d.]+)px", svg)]
            assert min(letters) * width / across >= 8, source


@pytest.mark.parametrize("view", [WIDE, NARROW], ids=["wide", "narrow"])
def test_samples_that_belong_together_stand_together(view: dict[str, int], site: Path, page: Any) -> None:
    page.set_viewport_size(view)
    places = """(row) => [...row.querySelectorAll('.item')].map((item) => {
        const box = item.getBoundingClientRect(); return [box.left, box.top, box.right, box.bottom]; })"""  # fmt: skip
    for key, medium in enumerate(("texts", "pictures", "sounds")):
        page.goto((site / "cells" / f"{str(key) * 32}.html").as_uri())
        rows = [row.evaluate(places) for row in page.locator(f".{medium} .row").all()]
        assert len(rows) == 3
        for items in rows:
            assert len(items) == 3
            flat = all(bottom == items[0][3] for _, _, _, bottom in items)
            stacked = all(left == items[0][0] for left, _, _, _ in items)
            assert flat or stacked, "beside one another, or one below the other"
        assert all(max(i[3] for i in one) <= min(i[1] for i in two) or max(i[2] for i in one) <= min(i[0] for i in two)
                   for one, two in pairwise(rows)), "and nothing of another row between"  # fmt: skip
    for sound in page.locator(".item").all():
        assert sound.locator(".spectrogram").bounding_box()["y"] < sound.locator("audio").bounding_box()["y"]
        assert sound.locator(".frequency").inner_text().split() == ["4", "kHz", "0"]
        assert sound.locator(".time").inner_text().split() == ["0", "time", "0.1", "s"]


def test_small_pictures_are_shown_large(site: Path, page: Any) -> None:
    page.set_viewport_size(NARROW)
    page.goto((site / "cells" / f"{'1' * 32}.html").as_uri())
    boxes = [tile.bounding_box() for tile in page.locator(".tile").all()]
    assert len(boxes) == 9
    assert min(min(box["width"], box["height"]) for box in boxes) >= 96
    assert len({box["y"] for box in boxes[:3]}) == 1, "beside one another here too"
    assert page.locator(".tile").first.evaluate("(tile) => getComputedStyle(tile).imageRendering") == "pixelated"


def test_the_page_says_what_the_tables_say(site: Path, page: Any) -> None:
    """The number in a matrix is the one of the published summary."""
    page.goto((site / "tasks" / "sst2_test_size_1000__train_size_4000.html").as_uri())
    rows = json.loads(page.evaluate("""JSON.stringify([...document.querySelectorAll('.map')[0].rows].map((row) =>
        [...row.cells].map((cell) => (cell.querySelector('a') ?? cell).textContent.trim())))"""))  # fmt: skip
    summary = pd.read_csv(RESULTS / "defenses" / "summary.csv")
    task = summary[(summary.task.str.startswith("sst2")) & (summary.dose == 100)].set_index(["attack", "defense"])
    checked = 0
    for name, *fields in rows[1:]:
        for attack, shown in zip(rows[0][1:], fields):
            asr = task.asr.get((attack, name))
            if asr is not None and asr == asr:
                assert float(shown) == pytest.approx(asr, abs=0.0051), (attack, name)
                checked += 1
            else:
                assert shown == "n/a"
    assert checked > 8
