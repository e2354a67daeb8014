"""The site: which pages there are. Everything is written into a new folder, which then takes the old one's place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import harness
from harness.errors import MissingExtra, NotASite
from harness.report.figures import NARROW, curves, heat_map, protection_map
from harness.report.summary import GATE
from harness.report.write import as_csv, build_tables
from harness.site import charts, listings, overview, pairs, paper_tables, plugin_docs, samples
from harness.site.headline import Listing, coverage, covered, headline, matrices
from harness.site.listings import (
    Pages,
    cell_columns,
    compared,
    covering,
    facts,
    headlines,
    leaders,
    plugins,
    ranked,
    rerun,
    safe,
    tasks,
)
from harness.site.overview import answer, example, protected, smallest
from harness.site.ranks import Ranking, ranking
from harness.site.sources import Joined
from harness.site.sources import described as known
from harness.store import records
from harness.store.folder import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from harness.store.records import Record

HERE = Path(__file__).parent
MARK = '<meta name="generator" content="tinydrop'  # in the first page of a site that may be replaced
KINDS = ("attacks", "defenses")


@dataclass(frozen=True)
class Options:
    """How much of a site is made."""

    cell_pages: bool = True  # one for each record
    formats: tuple[str, ...] = charts.FORMATS  # of figures; the pages show SVG
    title: str = "tinydrop leaderboard"


def build(joined: Joined, to: Path, options: Options) -> int:
    """Write the site and return its number of files. Raises MissingExtra, or NotASite for a folder that is not ours."""
    try:
        import jinja2  # noqa: F401
        import tabulate  # noqa: F401
    except ImportError as error:
        raise MissingExtra(f'{error.name} is missing; pip install "tinydrop[leaderboard]"') from None
    if to.exists() and not _ours(to):
        raise NotASite(f"-o {str(to)!r}: holds something that is no leaderboard; name a new folder")
    with _replaced(to) as folder:
        _Site(joined, folder, options).write()
    return sum(path.is_file() for path in to.rglob("*"))


def _ours(to: Path) -> bool:
    """May this be replaced? An empty folder, or an older site."""
    index = to / "index.html"
    return to.is_dir() and (MARK in index.read_text("utf-8", "replace") if index.is_file() else not any(to.iterdir()))


@contextmanager
def _replaced(to: Path) -> Iterator[Path]:
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

    def __init__(self, joined: Joined, folder: Path, options: Options) -> None:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

        self.joined, self.folder, self.options = joined, folder, options
        self.cells, self.missing = joined.cells, joined.missing
        self.tables = build_tables(self.cells)
        self.head = headline(self.tables)
        self.at = Pages(self.cells, self.missing)
        self.modality = dict(zip(self.cells.task, self.cells.modality))
        self.paged = self._paged()
        self.described = known(joined)
        self.jinja = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self.sizes: dict[str, tuple[int, int]] = {}  # of figures, points
        self.jinja.globals.update(site=options.title, version=harness.__version__, at=self.at, sizes=self.sizes)
        self.drawn: dict[tuple[str, str], str] = {}  # task and attack -> name of the figure of its curves
        self.shown: list[dict[str, Any]] = []  # samples, for their gallery

    @cached_property
    def rankings(self) -> dict[str, Ranking]:
        found = {}
        every = pd.concat([self.cells, self.missing.assign(status="missing")])  # a block that lacks a cell is not whole
        for task, part in every.groupby("task", sort=False):
            working = set(self.head[(self.head.task == task) & self.head.gate].attack) if len(self.head) else set()
            made = ranking(part, working)
            if made is not None:
                found[str(task)] = made
        return found

    def write(self) -> None:
        for file in (HERE / "static").iterdir():
            self.put(file.name, file.read_bytes())
        self.figures()
        self.exports()
        self.cell_pages()
        self.put("cells.js", listings.data(self.cells, self.paged, self.at))
        for task in self.at.slugs:
            self.task(task)
        self.page("tasks.html", "index_of.html", kind="tasks",
                  listing=tasks(self.cells, self.missing, self.head, self.at))  # fmt: skip
        for kind in KINDS:
            self.plugin_pages(kind)
        self.page("cells.html", "cells.html", columns=cell_columns(), n=len(self.cells))
        self.page("samples.html", "samples.html", shown=self.shown)
        self.method()
        self.overview()

    def put(self, name: str, data: bytes | str) -> None:
        write_atomically(self.folder / name, data)

    def page(self, name: str, template: str, **values: Any) -> None:
        up = "../" * name.count("/")
        html = self.jinja.get_template(template).render(up=up, here=name.partition("/")[0].partition(".")[0], **values)
        self.put(name, html)

    def figure(self, name: str, drawn: Figure, formats: tuple[str, ...] = ()) -> str:
        charts.save(drawn, self.folder / "figures", name, formats or self.options.formats)
        width, height = drawn.get_size_inches()
        self.sizes[name] = round(72 * width), round(72 * height)
        return name

    def figures(self) -> None:
        """The overview's two, curves of every task and attack, matrices of every task with a defense."""
        import matplotlib

        matplotlib.use("Agg", force=True)
        if self.head.empty:
            return
        if smallest(self.head) is not None:
            self.both("how-many", charts.how_many)
        if len(protected(self.head)):
            self.both("what-it-buys", charts.what_it_buys)
        summary = self.tables.summary
        graded = summary[summary.asr.notna()]
        for (task, attack), part in graded.groupby(["task", "attack"], sort=False):
            if part.dose.nunique() > 1:
                name = f"{self.at.slugs[task]}--{safe(attack)}"
                name += f"-{len(self.drawn)}" if name in self.drawn.values() else ""
                self.drawn[task, attack] = self.figure(name, curves(part, str(task)))
        for task, part in graded.groupby("task", sort=False):
            if part.defense.nunique() > 1:
                self.maps(str(task), part)

    def both(self, name: str, draw: Callable[..., Figure]) -> None:
        """For wide and for narrow screens."""
        self.figure(name, draw(self.head, self.modality))
        self.figure(f"{name}-narrow", draw(self.head, self.modality, NARROW), ("svg",))

    def maps(self, task: str, part: pd.DataFrame) -> None:
        """For papers; the page itself has them as tables."""
        at = self.head[self.head.task == task].drop_duplicates("attack").set_index("attack").dose
        common = part[part.dose == part.attack.map(at)]
        self.figure(f"{self.at.slugs[task]}--map", heat_map(common, task))
        doses = self.tables.doses
        known = doses[(doses.task == task) & (doses.defense != "none")] if "protection" in doses else doses[:0]
        if len(known) and known.protection.notna().any():
            self.figure(f"{self.at.slugs[task]}--protection", protection_map(known, task))

    def exports(self) -> None:
        """Every table whole, as CSV; what a paper shows of the headline and the ranks also as LaTeX and Markdown."""
        self.put("tables/cells.csv", as_csv(self.cells))
        counts = coverage(self.cells, self.missing, ["task", "attack", "defense"]).reset_index()
        found = {"summary": self.tables.summary, "headline": self.head, "doses": self.tables.doses, "coverage": counts}
        ranks = [r.rows.assign(task=task) for task, r in self.rankings.items()]
        if ranks:
            found["ranks"] = pd.concat(ranks, ignore_index=True)
            self.paper(listings.ranks(self.rankings, self.at), paper_tables.RANKS)
        for name, frame in found.items():
            if not frame.empty:
                self.put(f"tables/{name}.csv", as_csv(frame))
        for metric, table in headlines(self.head, self.at).items():
            of_metric = (frame[frame.clean_metric == metric] for frame in (self.head, self.cells))
            self.paper(table, paper_tables.caption(table, *of_metric))

    def paper(self, table: Listing, caption: str) -> None:
        self.put(f"tables/{table.id}.tex", paper_tables.latex(table, caption))
        self.put(f"tables/{table.id}.md", paper_tables.markdown(table, caption))

    def _paged(self) -> set[str]:
        """Keys of the cells that get a page: those whose records are at hand."""
        if not self.options.cell_pages:
            return set()
        with_records = {s.name for s in self.joined.sources if s.store is not None}
        return set(self.cells[self.cells.source.isin(with_records)].key)

    def cell_pages(self) -> None:
        seen: set[tuple[str, str, str]] = set()
        rows = self.cells.sort_values(["dose", "seed"], ascending=[False, True], kind="stable")
        for row in rows.itertuples():
            store = self.joined.store(str(row.source)) if row.key in self.paged else None
            if store is None or (record := records.load_newest(store, str(row.key))) is None:
                continue
            made = samples.of(record, store)
            for path in (p for s in made for p in (*s.pictures, *s.sounds)):
                self.put(path, (store.root / path).read_bytes())
            self.cell(record, str(row.source), made, store.root)
            if any(s.kind in samples.KINDS for s in made) and (row.task, row.attack, row.defense) not in seen:
                seen.add((row.task, row.attack, row.defense))  # at the largest dose, of the first seed
                known = [s for s in made if s.kind in samples.KINDS]
                self.shown.append({"record": record, "groups": pairs.groups(known, store.root)})

    def cell(self, record: Record, source: str, made: list[samples.Sample], root: Path) -> None:
        rest = record.model_dump_json(indent=1, exclude={"traceback", "metrics"})
        self.page(
            f"cells/{record.key}.html", "cell.html", record=record, source=source, rest=rest,
            rerun=rerun(record), groups=pairs.groups([s for s in made if not s.found], root),
            found=pairs.groups([s for s in made if s.found and s.pictures], root),
            curves=[s for s in made if s.curve],
        )  # fmt: skip

    def task(self, task: str) -> None:
        head = self.head[self.head.task == task] if len(self.head) else self.head
        cells, missing = self.cells[self.cells.task == task], self.missing[self.missing.task == task]
        up = "../"
        links = {
            "attack": lambda a: self.at.plugin("attacks", a, up),
            "defense": lambda d: self.at.plugin("defenses", d, up),
        }
        rank = self.rankings.get(task)
        drawn = [(attack, name) for (t, attack), name in self.drawn.items() if t == task]
        name = next(iter([*cells.task_name, *missing.task_name]))
        slug, entry = self.at.slugs[task], self.described["tasks"].get(name)
        self.page(
            f"tasks/{slug}.html", "task.html", task=task, entry=entry,
            facts=[*facts(entry), *plugin_docs.data(entry)], options=plugin_docs.options("tasks", entry),
            details=plugin_docs.details("tasks", entry),
            train_size=cells.train_size.max() if "train_size" in cells else None,  # none where every cell failed
            covered=covered(coverage(cells, missing, ["task"]).iloc[0]),
            matrices=matrices(task, self.tables, self.head, self.missing) if len(head) else [],
            heads=headlines(head, self.at, up, ("task",)).values(), drawn=drawn, rank=rank,
            ranks=ranked(rank, self.at, up) if rank else None,
            tests=compared(rank, self.at, up) if rank else None,
            coverage=covering(cells, missing, ["attack", "defense"], links, "coverage"),
            maps=[n for n in (f"{slug}--map", f"{slug}--protection") if (self.folder / f"figures/{n}.svg").exists()],
            formats=self.options.formats,
        )  # fmt: skip

    def plugin_pages(self, kind: str) -> None:
        column = kind.removesuffix("s")
        listing = plugins(kind, self.cells, self.head, self.at, self.described[kind])
        self.page(f"{kind}.html", "index_of.html", kind=kind, listing=listing)
        up = "../"
        links = {"task": lambda t: self.at.task(t, up), column: lambda p: self.at.plugin(kind, p, up)}
        names, planned = self.cells[f"{column}_name"], self.missing[f"{column}_name"]
        for name in sorted({*names, *planned}):
            cells, missing = self.cells[names == name], self.missing[planned == name]
            head = self.head[self.head[f"{column}_name"] == name] if len(self.head) else self.head
            pairs = dict.fromkeys(zip(head.task, head.attack)) if len(head) else {}
            entry, alone = self.described[kind].get(name), (column,) if set(head.get(column, ())) == {name} else ()
            self.page(
                f"{kind}/{safe(name)}.html", "plugin.html", kind=kind, plugin=name, entry=entry,
                facts=facts(entry), options=plugin_docs.options(kind, entry),
                details=plugin_docs.details(kind, entry),
                heads=headlines(head, self.at, up, alone).values(),
                covered=covered(coverage(cells, missing, ["task"]).sum()),
                drawn=[(t, a, self.drawn[t, a]) for t, a in pairs if (t, a) in self.drawn],
                coverage=covering(cells, missing, ["task", column], links, "coverage"),
                formats=self.options.formats,
            )  # fmt: skip

    def method(self) -> None:
        repeated = self.joined.repeated
        apart = (repeated.asr_again - repeated.asr).abs() if len(repeated) else pd.Series(dtype=float)
        commits = {s.name: sorted(set(s.cells.commit.fillna("")) - {""}) for s in self.joined.sources if len(s.cells)}
        self.page("method.html", "method.html", sources=self.joined.sources, commits=commits, repeated=len(repeated),
                  mean_apart=apart.mean() if len(apart) else 0.0, max_apart=apart.max() if len(apart) else 0.0,
                  gate=GATE)  # fmt: skip

    def overview(self) -> None:
        by_task = coverage(self.cells, self.missing, ["task"])
        best = {t: leaders(rank) for t, rank in self.rankings.items()}
        counts = {"cells": len(self.cells), "tasks": len(self.at.slugs),
                  **{k: self.cells[f"{k.removesuffix('s')}_name"].nunique() for k in KINDS}}  # fmt: skip
        self.page(
            "index.html", "index.html", counts=counts, covered=covered(by_task.sum()),
            heads=headlines(self.head, self.at).values(), best=best, rankings=self.rankings,
            smallest=smallest(self.head) if len(self.head) else None,
            answer=answer(self.head, self.modality) if len(overview.working(self.head)) else None,
            example=example(self.head),
            drawn=[n for n in ("how-many", "what-it-buys") if (self.folder / f"figures/{n}.svg").exists()],
            exports=sorted(p.name for p in (self.folder / "tables").iterdir()), formats=self.options.formats,
        )  # fmt: skip
