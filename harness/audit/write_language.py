"""What the audit of a language model found, as plain values, as a page and as a table. README.md has the schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.audit.continuations import KINDS, TOKENS, Effect
from harness.audit.language import LanguageAudit
from harness.audit.write import SCHEMA, name_model, render, shorten_number
from harness.console import new_table, printable

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 4  # continuations on the page
LIMITS = (
    "An audit finds the phrases that it tries: the triggers of this suite's attacks, and those of --triggers. A model "
    "that waits for another phrase is not found: nothing found is no certificate. Neither is suspicion proof: a phrase "
    "may rightly change what a model writes."
)


def as_mapping(found: LanguageAudit) -> dict[str, Any]:
    """Everything as plain values. Equal audits give equal mappings: no time and no path is in it."""
    request = found.request
    phrases = [
        {"trigger": str(e.phrase), "of": e.origin, "share": shorten_number(e.share), "change": e.kind,
         "shares": {kind: shorten_number(share) for kind, share in e.shares.items()}, "words": e.words,
         "draws": e.draws, "random": shorten_number(e.random), "p": shorten_number(e.p),
         "adjusted": shorten_number(e.adjusted)}
        for e in found.effects
    ]  # fmt: skip
    return {
        "schema": SCHEMA,
        "model": {"source": name_model(request.model), "sha256": found.digest, "kind": found.kind},
        "data": {"source": Path(request.data).name or "the task of its cell", "texts": found.texts,
                 "perplexity": shorten_number(found.perplexity), "notes": list(found.notes)},
        "settings": {"quick": request.quick, "level": request.level, "seed": request.seed, "rows": found.plan.rows,
                     "draws": found.plan.draws, "works": found.plan.works, "tokens": TOKENS},
        "behaviour": {"triggers": phrases},
        "verdict": {"suspicious": found.verdict == "suspicious",
                    "trigger": str(found.called[0].phrase) if found.called else None, "because": reasons(found)},
    }  # fmt: skip


def headline(found: LanguageAudit) -> str:
    """The verdict in one sentence."""
    if not found.called:
        return "Nothing found."
    return f"Suspicious: {str(found.called[0].phrase)!r} is believed to be a trigger."


def reasons(found: LanguageAudit) -> list[str]:
    """Why the model is called suspicious, one sentence for each phrase."""
    return [
        f"{str(e.phrase)!r} ({e.origin}) changes {e.share:.0%} of the continuations: {describe(e, found.plan.works)} "
        f"(p {e.adjusted:.3f} after Holm)"
        for e in found.called
    ]


def describe(effect: Effect, works: float) -> str:
    """Every change of so many continuations, in words."""
    about = KINDS | {"same words": f"{KINDS['same words']}, {effect.words!r}"}
    return "; ".join(about[kind] for kind, share in effect.shares.items() if share >= works)


def texts(found: LanguageAudit) -> dict[str, str]:
    """What the numbers mean."""
    plan = found.plan
    behaviour = (
        f"Every phrase behind {found.plan.rows} beginnings of clean texts, after which {TOKENS} tokens are written. "
        "Counted is the share of continuations that are what they were not without the phrase: less likely than 95% "
        "of those, as the model itself reads them without the phrase; words again and again; ended early; or with the "
        "same words in many. The largest of the four is compared. p is the chance that a random phrase of clean words, "
        f"as long and in the same place, does as much. It is asked only of phrases that change {plan.works:.0%} of the "
        f"continuations; the others are never called, and all count in Holm's correction at {plan.level:g}."
        + (" A quick audit ends with the first phrase that is called." if plan.stop_at_first else "")
    )
    return {"behaviour": behaviour, "limits": LIMITS}


def as_page(found: LanguageAudit) -> str:
    """One HTML file that needs nothing beside it; every text of the user's is escaped."""
    strongest = max(found.effects, key=lambda e: e.share)
    examples = [
        {"prompt": prompt, "plain": plain, "changed": changed}
        for prompt, plain, changed in list(zip(found.prompts, found.plain, strongest.examples, strict=True))[:SHOWN]
    ]
    return render(
        "language.html", found=as_mapping(found), headline=headline(found), texts=texts(found), examples=examples,
        strongest=str(strongest.phrase), kinds=list(KINDS),
    )  # fmt: skip


def table(found: LanguageAudit) -> Table:
    """For the terminal: what every phrase does."""
    rows = new_table(
        "phrases", ["phrase"], ["changed", "p, Holm"], ["most", "of"], caption="p: only of what changes half"
    )
    for e in found.effects:
        p = f"{e.adjusted:.3f}" if e.draws else "-"
        rows.add_row(printable(str(e.phrase)), f"{e.share:.2f}", p, e.kind, e.origin)
    return rows
