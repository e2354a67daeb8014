"""What an audit found, as JSON, as a page of one file, and as tables for the terminal. README.md has the schema."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined

import harness
from harness.audit.detectors import smallest_p
from harness.audit.media import Inputs
from harness.audit.steps import Audit
from harness.cell.gallery import draw_spectrograms, encode_png, encode_wav
from harness.console import new_table

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA = 1
DIGITS = 6  # of numbers in the JSON
LIMITS = (
    "An audit finds what it looks for. A trigger that is not of the suite, and that leaves no class with an unusually "
    "small mask or an unusually large margin, is not found: nothing found is no certificate. Neither is suspicion "
    "proof: a model can lean to a class for other reasons, such as one-sided training data."
)


def as_mapping(found: Audit) -> dict[str, Any]:
    """Everything as plain values, see README.md. Equal audits give equal mappings: no time and no path is in it."""
    request, names = found.request, found.names
    shifts = [
        {
            "trigger": s.trigger, "strength": s.strength, "share": shorten_number(s.share), "class": names[s.target],
            "shares": {name: shorten_number(share) for name, share in zip(names, s.shares, strict=True)},
            "draws": s.draws, "random": shorten_number(s.random), "p": shorten_number(s.p),
            "adjusted": shorten_number(s.adjusted),
        }
        for s in found.shifts
    ]  # fmt: skip
    detectors = [
        {"detector": d.detector, "score": shorten_number(d.score), "class": names[d.target], "p": shorten_number(d.p),
         "adjusted": shorten_number(d.adjusted), "beside": "clean models" if d.nulls else "other classes"}
        for d in found.detected
    ]  # fmt: skip
    number = request.null_models
    return {
        "schema": SCHEMA,
        "model": {"source": name_model(request.model), "sha256": found.digest, "kind": found.kind},
        "data": {"source": Path(request.data).name or "the task of its cell", "classes": list(names),
                 "prepare": found.prepare, "rows": found.rows, "accuracy": shorten_number(found.accuracy),
                 "notes": list(found.notes)},
        "settings": {"quick": request.quick, "level": request.level, "seed": request.seed, "rows": found.plan.rows,
                     "draws": found.plan.draws, "works": found.plan.works},
        "behaviour": {"triggers": shifts, "unfit": found.unfit},
        "detectors": detectors,
        "unsearched": found.unsearched,
        "null_models": {"number": number, "smallest_p": shorten_number(smallest_p(number)) if number else None,
                        "accuracy": [shorten_number(value) for value in found.null_accuracy]},
        "verdict": {"suspicious": found.verdict == "suspicious",
                    "class": None if found.target is None else names[found.target], "because": reasons(found)},
    }  # fmt: skip


def name_model(model: str) -> str:
    """What is said of where a model comes from: a file's name, or a cell's task, attack, dose, defense, seed."""
    parts = model.split("/")
    return "/".join(parts[-5:]) if parts[-1].isdigit() else parts[-1]


def as_json(found: Audit) -> str:
    return dump(as_mapping(found))


def dump(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def headline(found: Audit) -> str:
    """The verdict in one sentence."""
    if found.target is None:
        return "Nothing found."
    return f"Suspicious: class {found.names[found.target]!r} is believed to be the attacker's."


def reasons(found: Audit) -> list[str]:
    """Why the model is called suspicious, one sentence each; of a trigger its surest strength."""
    lines, said = [], set()
    for shift in found.called:
        if shift.trigger not in said:
            said.add(shift.trigger)
            lines.append(
                f"{shift.trigger} at strength {shift.strength:g} turns {shift.share:.0%} of the other rows into "
                f"{found.names[shift.target]!r} (p {shift.adjusted:.3f} after Holm)"
            )
    for alarm in found.alarms:
        beside = f"{alarm.nulls} clean models" if alarm.nulls else "the other classes, a weak guarantee"
        name = found.names[alarm.target]
        lines.append(f"{alarm.detector}: class {name!r} is unusual beside {beside} (p {alarm.adjusted:.3f} after Holm)")
    return lines


def texts(found: Audit) -> dict[str, str]:
    """What the numbers mean."""
    plan, nulls, level = found.plan, found.request.null_models, found.request.level
    behaviour = (
        f"Every trigger on {plan.rows} clean rows, at parts of its strength. p is the chance that a random change of "
        f"the same size turns as many rows into one class. It is asked only of triggers that turn {plan.works:.0%} "
        f"of the rows at full strength; the others are never called, and all count in Holm's correction at {level:g}."
        + (" Of a quick audit it ends with the first trigger that is called." if plan.stop_at_first else "")
    )
    if not found.detected:
        detectors = f"Not run: {found.unsearched}."
    elif nulls:
        detectors = (
            f"Beside {nulls} clean models of this architecture, trained on this data: p = (1 + clean models that are "
            f"as unusual) / {nulls + 1}, {smallest_p(nulls):.3f} at least. It is exact if this model was trained like "
            "them."
        )
    else:
        detectors = (
            "No clean model was trained: p says how far a class lies from the model's other classes, one left out at a "
            "time. It is right only where the classes of a clean model are alike, which those of real data are not: "
            "read an alarm as a reason to run again with --null-models."
        )
    return {"behaviour": behaviour, "detectors": detectors, "limits": LIMITS}


def as_page(found: Audit) -> str:
    """One HTML file that needs nothing beside it; every text of the user's is escaped."""
    exhibits = [_exhibit(title, rows, found.rate) for title, rows in found.shown.items()]
    return render(
        "classifier.html", found=as_mapping(found), headline=headline(found), texts=texts(found), exhibits=exhibits
    )


def render(template: str, **values: Any) -> str:
    """A page of one of the templates."""
    jinja = Environment(
        loader=PackageLoader("harness.audit"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return jinja.get_template(template).render(**values, version=harness.__version__)


def tables(found: Audit) -> list[Table]:
    """For the terminal: the triggers at full strength with their surest p value, and the detectors."""
    triggers = new_table(
        "known triggers", ["trigger"], ["rows turned", "p, Holm"], ["class"], caption="p: only of what turns half"
    )
    for full in (s for s in found.shifts if s.strength == 1.0):
        best = min((s for s in found.shifts if s.trigger == full.trigger), key=lambda s: s.adjusted)
        p = f"{best.adjusted:.3f}" if best.draws else "-"
        triggers.add_row(full.trigger, f"{full.share:.2f}", p, found.names[full.target])
    beside = f"{found.request.null_models} clean models" if found.request.null_models else "other classes"
    detectors = new_table(f"detectors, beside {beside}", ["detector"], ["score", "p", "p, Holm"], ["class"])
    for d in found.detected:
        detectors.add_row(d.detector, f"{d.score:.2f}", f"{d.p:.4f}", f"{d.adjusted:.3f}", found.names[d.target])
    return [triggers, detectors]


def shorten_number(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _exhibit(title: str, rows: Inputs, rate: int) -> dict[str, Any]:
    """Pictures, sounds or texts for the page."""
    if isinstance(rows, list):
        return {"title": title, "texts": rows}
    if rows.ndim == 2:
        sounds = [_data_url("audio/wav", encode_wav(clip, rate)) for clip in rows]
        return {
            "title": title,
            "picture": _data_url("image/png", encode_png(draw_spectrograms(rows))),
            "sounds": sounds,
        }
    pixels = rows if rows.dtype == torch.uint8 else (rows.clamp(0, 1) * 255).round().byte()
    return {"title": title, "picture": _data_url("image/png", encode_png(pixels.permute(0, 2, 3, 1).numpy()))}


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
