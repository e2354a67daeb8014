"""The site: which pages there are. Everything is written into a new folder, which then takes the old one's place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.errors import NotASite
from harness.report.write import as_csv
from harness.site import charts, listings, paper_tables, samples
from harness.site.board import KINDS, TEMPLATES, Board, environment
from harness.site.drawings import Drawings
from harness.site.headline import Listing, count_by_status
from harness.site.listings import cell_columns, headline_listings, rerun_command, safe_name, task_index
from harness.site.sample_groups import group_samples
from harness.store import records
from harness.store.folder import write_atomically

if TYPE_CHECKING:
    from harness.site.samples import Sample
    from harness.site.sources import Joined
    from harness.store.records import Record

STATIC = TEMPLATES.with_name("static")
CELLS = "cells.js"  # a site has it, a single page does not
MARK = '<meta name="generator" content="tinydrop'  # in the first page of a site that may be replaced


@dataclass(frozen=True)
class Options:
    """How much of a site is made."""

    cell_pages: bool = True  # one for each record
    formats: tuple[str, ...] = charts.FORMATS  # of figures; the pages show SVG
    title: str = "tinydrop leaderboard"


def build(joined: Joined, to: Path, options: Options) -> int:
    """Write the site and return its number of files. Raises NotASite for a folder that is not ours."""
    if to.exists() and not _may_replace(to):
        raise NotASite(f"-o {str(to)!r}: exists and is not a leaderboard; name a new folder")
    with _replace_folder(to) as folder:
        _Site(Board(joined), folder, options).write()
    return sum(path.is_file() for path in to.rglob("*"))


def is_leaderboard(page: Path) -> bool:
    """Whether this file is a page that tinydrop made."""
    return page.is_file() and MARK in page.read_text("utf-8", "replace")


def _may_replace(to: Path) -> bool:
    """Whether this is an empty folder, or an older site."""
    if not to.is_dir() or not any(to.iterdir()):
        return to.is_dir()
    return is_leaderboard(to / "index.html") and (to / CELLS).is_file()  # beside a single page lie other things


@contextmanager
def _replace_folder(to: Path) -> Iterator[Path]:
    """An empty folder that takes this place when the block ends well; until then what was there stays."""
    to.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}-"))
    old = fresh.with_name(fresh.name + "-old")
    try:
        fresh.chmod(0o755)
        yield fresh
        for path in fresh.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # for a web server too, which is another user
        if to.exists():
            to.rename(old)
        fresh.rename(to)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


class _Site:
    """One build."""

    def __init__(self, board: Board, folder: Path, options: Options) -> None:
        self.board, self.folder, self.options = board, folder, options
        self.drawings = Drawings(board, folder / "figures", options.formats)
        self.paged = self._paged_keys()
        self.jinja = environment(options.title, board.links)
        self.jinja.globals.update(
            sizes=self.drawings.sizes, formats=options.formats, figure_url=lambda name, up: f"{up}figures/{name}.svg"
        )
        self.gallery: list[dict[str, Any]] = []  # of samples.html

    def _paged_keys(self) -> set[str]:
        """Keys of the cells that get a page: those whose records are at hand."""
        if not self.options.cell_pages:
            return set()
        with_records = {s.name for s in self.board.joined.sources if s.store is not None}
        return set(self.board.cells[self.board.cells.source.isin(with_records)].key)

    def write(self) -> None:
        board, links = self.board, self.board.links
        for file in STATIC.iterdir():
            self._put(file.name, file.read_bytes())
        self.drawings.draw_overview()
        self.drawings.draw_tasks()
        self._write_exports()
        self._write_cell_pages()
        self._put(CELLS, listings.cells_script(board.cells, self.paged, links))
        for task, slug in links.slugs.items():
            self._write_task(task, slug)
        listing = task_index(board.cells, board.missing, board.headline, links)
        self._write_page("tasks.html", "index_of.html", kind="tasks", listing=listing)
        for kind in KINDS:
            self._write_plugins(kind)
        self._write_page("cells.html", "cells.html", columns=cell_columns(), n=len(board.cells))
        self._write_page("samples.html", "samples.html", shown=self.gallery)
        self._write_page("method.html", "method.html", **board.method())
        exports = sorted(path.name for path in (self.folder / "tables").iterdir())
        figures = self.drawings.overview
        self._write_page("index.html", "index.html", **board.overview(), drawn=figures, exports=exports)

    def _put(self, name: str, data: bytes | str) -> None:
        write_atomically(self.folder / name, data)

    def _write_page(self, name: str, template: str, **values: Any) -> None:
        up = "../" * name.count("/")
        html = self.jinja.get_template(template).render(up=up, here=name.partition("/")[0].partition(".")[0], **values)
        self._put(name, html)

    def _write_task(self, task: str, slug: str) -> None:
        drawn = [(attack, name) for (of, attack), name in self.drawings.curves.items() if of == task]
        maps = self.drawings.maps.get(task, [])
        self._write_page(f"tasks/{slug}.html", "task.html", **self.board.task(task, "../"), drawn=drawn, maps=maps)

    def _write_plugins(self, kind: str) -> None:
        self._write_page(f"{kind}.html", "index_of.html", kind=kind, listing=self.board.index(kind))
        curves = self.drawings.curves
        for name, values in self.board.plugins(kind):
            drawn = [(*pair, curves[pair]) for pair in values["pairs"] if pair in curves]
            self._write_page(f"{kind}/{safe_name(name)}.html", "plugin.html", **values, drawn=drawn)

    def _write_exports(self) -> None:
        """Every table whole, as CSV; what a paper shows of the headline and the ranks also as LaTeX and Markdown."""
        board = self.board
        self._put("tables/cells.csv", as_csv(board.cells))
        counts = count_by_status(board.cells, board.missing, ["task", "attack", "defense"]).reset_index()
        frames = {"summary": board.tables.summary, "headline": board.headline, "doses": board.tables.doses,
                  "coverage": counts}  # fmt: skip
        if board.rankings:
            ranks = [ranking.rows.assign(task=task) for task, ranking in board.rankings.items()]
            frames["ranks"] = pd.concat(ranks, ignore_index=True)
            self._write_paper_table(listings.ranks(board.rankings, board.links), paper_tables.RANKS)
        for name, frame in frames.items():
            if not frame.empty:
                self._put(f"tables/{name}.csv", as_csv(frame))
        for metric, table in headline_listings(board.headline, board.links).items():
            of_metric = (frame[frame.clean_metric == metric] for frame in (board.headline, board.cells))
            self._write_paper_table(table, paper_tables.caption(table, *of_metric))

    def _write_paper_table(self, table: Listing, caption: str) -> None:
        self._put(f"tables/{table.id}.tex", paper_tables.to_latex(table, caption))
        self._put(f"tables/{table.id}.md", paper_tables.to_markdown(table, caption))

    def _write_cell_pages(self) -> None:
        """A page for every record; the gallery takes each task, attack and defense at its largest dose, first seed."""
        in_gallery: set[tuple[str, str, str]] = set()
        rows = self.board.cells.sort_values(["dose", "seed"], ascending=[False, True], kind="stable")
        for row in rows.itertuples():
            store = self.board.joined.store(str(row.source)) if row.key in self.paged else None
            if store is None or (record := records.load_newest(store, str(row.key))) is None:
                continue
            of_cell = samples.samples_of(record, store)
            for path in (path for sample in of_cell for path in (*sample.pictures, *sample.sounds)):
                self._put(path, (store.root / path).read_bytes())
            self._write_cell(record, str(row.source), of_cell, store.root)
            rows_and_outputs = [sample for sample in of_cell if not sample.is_finding]
            if rows_and_outputs and (row.task, row.attack, row.defense) not in in_gallery:
                in_gallery.add((row.task, row.attack, row.defense))
                self.gallery.append({"record": record, "groups": group_samples(rows_and_outputs, store.root)})

    def _write_cell(self, record: Record, source: str, of_cell: list[Sample], root: Path) -> None:
        self._write_page(
            f"cells/{record.key}.html", "cell.html", record=record, source=source, rerun=rerun_command(record),
            rest=record.model_dump_json(indent=1, exclude={"traceback", "metrics"}),
            groups=group_samples([s for s in of_cell if not s.is_finding], root),
            findings=group_samples([s for s in of_cell if s.is_finding and s.pictures], root),
            curves=[s for s in of_cell if s.curve],
        )  # fmt: skip
