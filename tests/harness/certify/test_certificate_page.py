"""The page of a certificate in a real browser: no errors, nothing loaded, narrow screens, accessibility."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from certified import write_audit, write_run, write_vet

from harness.certify.write import certify

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need the pip package playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt install chromium")

CODE = {"tinydrop": "0", "commit": "c0ffee" * 7, "dirty": True}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    parts = [write_run(folder / "mine"), write_audit(folder / ("a long name " * 6), share=0.8, nulls=59)]
    certify([*parts, write_vet(folder / "vet", flagged=60)], folder / "certificate", CODE, "2026-01-31")
    return folder / "certificate" / "index.html"


def test_it_reads_well_on_narrow_and_wide_screens_in_light_and_dark(certificate: Path) -> None:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (390, 1400):
            for scheme in ("light", "dark"):
                page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
                said: list[Any] = []
                note: Any = lambda what, said=said: said.append(what)  # noqa: E731
                page.on("console", note)
                page.on("pageerror", note)
                page.on("request", lambda asked, note=note: asked.url.startswith(("file:", "data:")) or note(asked.url))
                page.goto(certificate.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") == width, "no page wider than the screen"
                assert not said
                found = axe.Axe().run(page)
                assert found.violations_count == 0, found.generate_report()
        browser.close()
