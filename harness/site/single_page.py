"""The leaderboard as one HTML file that needs nothing beside it: no network, no folder."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from harness.errors import NotASite
from harness.site.board import KINDS, Board, environment
from harness.site.build import STATIC, is_leaderboard
from harness.site.drawings import Drawings
from harness.site.headline import Field, Listing
from harness.site.listings import Pages, safe_name, task_index
from harness.store.folder import write_atomically

if TYPE_CHECKING:
    from harness.site.sources import Joined


class Sections(Pages):
    """Where things are on the single page."""

    def page(self, name: str, up: str = "") -> str:
        return f"#{name}"

    def task(self, label: str, up: str = "") -> Field:
        return Field(label, href=f"#task-{self.slugs[label]}")

    def plugin(self, kind: str, label: str, up: str = "") -> Field:
        return Field(label, href=f"#{kind}-{safe_name(self.names[label])}")


def build_single_page(joined: Joined, to: Path, title: str) -> int:
    """Write the page and return its size in bytes. Raises NotASite for a file that is not ours."""
    if not is_page_name(to):
        raise NotASite(f"-o {str(to)!r}: --single-file writes one page; name a file that ends in .html")
    if to.exists() and not is_leaderboard(to):
        raise NotASite(f"-o {str(to)!r}: exists and is not a leaderboard; name a new file")
    html = _render(Board(joined, Sections), title).encode()
    write_atomically(to, html)
    return len(html)


def is_page_name(path: Path) -> bool:
    """Whether this is the name of a file with one page."""
    return path.suffix.lower() in (".html", ".htm")


def _render(board: Board, title: str) -> str:
    style, script = ((STATIC / name).read_text("utf-8") for name in ("style.css", "table.js"))
    jinja = environment(title, board.links)
    with TemporaryDirectory() as folder:
        drawings = Drawings(board, Path(folder), ("svg",))
        drawings.draw_overview()
        jinja.globals.update(
            sizes=drawings.sizes, formats=(), figure_url=lambda name, up: _data_url(Path(folder) / f"{name}.svg")
        )
        return jinja.get_template("single.html").render(
            **board.overview(), **board.method(), up="", exports=[], drawn=drawings.overview,
            style=Markup(style), script=Markup(script), script_hash=_hash(script),
            tasks=_table_of_section(task_index(board.cells, board.missing, board.headline, board.links)),
            results=[_results(board, task) for task in board.links.slugs],
            indexes={kind: _table_of_section(board.index(kind)) for kind in KINDS},
        )  # fmt: skip


def _results(board: Board, task: str) -> dict[str, Any]:
    """Matrices and ranks of a task; the names of its table differ from those of other tasks on the same page."""
    values = board.results(task)
    ranks = values["ranks"]
    if ranks:
        values["ranks"] = replace(ranks, id=f"ranks-{values['slug']}", caption=f"{ranks.caption}: {task}")
    return values


def _table_of_section(listing: Listing) -> Listing:
    """The section that holds the table has its name."""
    return replace(listing, id=f"{listing.id}-table")


def _data_url(svg: Path) -> str:
    """An image in a URL: nothing inside of it is run, and its style and ids stay its own."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.read_bytes()).decode()}"


def _hash(script: str) -> str:
    """As a content security policy takes it: a browser then runs this script and no other."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
