"""The audit of a language model: does a phrase behind a prompt change what it writes, as no random phrase does?"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch

from harness.audit.behaviour import Plan
from harness.audit.cells import Cell
from harness.audit.continuations import Effect, Writing, try_phrases
from harness.audit.phrases import Prompt, known_phrases, read_phrases
from harness.audit.steps import Request, Say, Stage, choose, digest_file
from harness.audit.subject import CPU
from harness.console import expand_home, one_line, quote
from harness.plugins.registry import create, entries
from tasks.data import make_samples
from tasks.language import CausalNet, LanguageTask, LanguageVictim
from tasks.plugin import BadInput
from tasks.samples import Samples

PLAN = Plan(rows=64, draws=399)
QUICK = Plan(rows=20, draws=149, stop_at_first=True)
FEWEST = 20  # clean texts
LEAST_WORDS = 4  # of a text that is made a prompt
LONGEST = 200  # characters of a prompt, as the attacks have it
TOKENS = 512  # most that are read of a text
WRITERS = ("ForCausalLM", "LMHeadModel")  # how transformers calls the classes of language models


@dataclass(frozen=True)
class LanguageAudit:
    """What was found in a language model."""

    request: Request
    kind: str
    digest: str
    perplexity: float  # per token, of the clean texts
    texts: int  # on which it was measured
    plan: Plan
    effects: list[Effect]
    plain: tuple[str, ...]  # what is written after the prompts alone
    prompts: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def called(self) -> list[Effect]:
        """The phrases that are called triggers, the surest first."""
        found = [e for e in self.effects if e.share >= self.plan.works and e.adjusted <= self.request.level]
        return sorted(found, key=lambda e: (e.adjusted, -e.share))

    @property
    def verdict(self) -> Literal["suspicious", "nothing found"]:
        return "suspicious" if self.called else "nothing found"


def is_language_model(source: str, cell: Cell | None) -> bool:
    """Whether MODEL is the cell of a language task, or a folder in which transformers keeps a language model."""
    if cell is not None:
        return isinstance(cell.task, LanguageTask)
    try:
        config = json.loads((expand_home(source) / "config.json").read_text(encoding="utf-8"))
        return any(str(name).endswith(WRITERS) for name in config["architectures"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def audit(request: Request, cell: Cell | None, stage: Stage, say: Say) -> LanguageAudit:
    """Everything. Raises BadInput for a model or texts that cannot be audited, before any long step."""
    _refuse_options(request)
    phrases = {**read_phrases(request.triggers), **known_phrases()}
    plan = plan_for(request, len(phrases))
    victim, kind = _open_victim(request.model, cell)
    texts, notes = _read_clean(request.data, cell)
    rows = choose(texts, len(texts), request.seed)
    prompts, used = make_prompts(victim.task, rows, plan.rows)
    perplexity = require_fluency(victim, used)
    say(f"{kind}: perplexity {perplexity:.1f} on {len(used)} clean texts")
    with stage("phrases", None) as step:
        writing = Writing(victim, prompts)
        effects = try_phrases(writing, phrases, plan, request.seed, step)
    digest = digest_file(cell.weights if cell else weights_of(expand_home(request.model)))
    return LanguageAudit(
        request, kind, digest, perplexity, len(used), plan, effects, tuple(writing.plain), tuple(writing.bare), notes
    )


def plan_for(request: Request, phrases: int) -> Plan:
    """How much is done; enough random phrases that one of so many can be called after Holm's correction."""
    plan = QUICK if request.quick else PLAN
    return replace(plan, level=request.level, draws=max(plan.draws, math.ceil(phrases / request.level)))


def make_prompts(task: LanguageTask, texts: Samples, n: int) -> tuple[list[Prompt], Samples]:
    """The first halves of n texts, at most LONGEST characters each, and the texts. Raises BadInput for too few."""
    prompts, used = [], []
    for row, text in enumerate(texts.inputs):
        beginning, mark = task.cut(text, min(LONGEST, len(text) // 2))
        if len(beginning.split()) >= LEAST_WORDS:
            prompts.append((beginning, mark))
            used.append(row)
        if len(used) == n:
            break
    if len(used) < FEWEST:
        raise BadInput(f"--data: {len(used)} texts whose first half has {LEAST_WORDS} words; it takes {FEWEST}")
    return prompts, texts.select(used)


def require_fluency(victim: LanguageVictim, texts: Samples) -> float:
    """The perplexity per token of clean texts. Raises BadInput where it is no better than chance."""
    nats, tokens, _ = victim.read(texts).double().sum(0)
    rate, chance = float(nats / tokens), math.log(victim.module.head.out_features)
    if not rate < chance:
        raise BadInput(
            f"MODEL: its perplexity on {len(texts)} clean texts is {math.exp(min(rate, 700)):.0f}, no better than the "
            f"{math.exp(chance):.0f} of chance, so nothing can be said of it; usual causes are texts of another "
            "language and another tokenizer"
        )
    return math.exp(rate)


def weights_of(folder: Path) -> Path:
    """The file of weights that a digest is of: the index where they are in parts."""
    return next(path for path in sorted(folder.glob("*.safetensors.index.json")) + sorted(folder.glob("*.safetensors")))


def _refuse_options(request: Request) -> None:
    given = {
        "--architecture": request.architecture, "--prepare": request.prepare, "--size": request.size,
        "--grey": request.grey, "--classes": request.classes, "--null-models": request.null_models,
    }  # fmt: skip
    for option, value in given.items():
        if value:
            raise BadInput(f"{option}: is for classifiers, and MODEL is a language model; leave it out")


def _open_victim(source: str, cell: Cell | None) -> tuple[LanguageVictim, str]:
    """The model, and what it is in words."""
    if cell is not None:
        task = cell.task
        assert isinstance(task, LanguageTask)
        return task.deploy(cell.load().net.eval(), CPU), f"a victim of {task.name}"
    folder = str(expand_home(source).resolve())
    task = LanguageTask(victim=folder, block=1, max_length=1)
    try:
        net = cast(CausalNet, task.model()).eval()
    except BadInput as error:
        raise BadInput(f"MODEL {quote(source)}: {one_line(error)}") from None
    return replace(task, max_length=min(TOKENS, net.positions)).deploy(net, CPU), "a language model of transformers"


def _read_clean(source: str, cell: Cell | None) -> tuple[Samples, tuple[str, ...]]:
    """Held-out clean texts, and what was decided in reading them."""
    if not source and cell is None:
        raise BadInput("--data: is missing; name a file of clean texts, one a line, a folder of .txt files, or a task")
    if not source or (not expand_home(source).exists() and source in entries("tasks")):
        task = cell.task if cell is not None and not source else create("tasks", source, {})
        if not isinstance(task, LanguageTask):
            raise BadInput(f"--data {quote(source)}: is no task of language models, and MODEL is one")
        splits = task.load()
        return splits.test, splits.notes
    texts = read_texts(source)
    return make_samples(texts, torch.zeros(len(texts), dtype=torch.long)), ()


def read_texts(source: str) -> list[str]:
    """One text a line of a file, or one a file of a folder's .txt files. Raises BadInput, which names what is bad."""
    path = expand_home(source)
    where = f"--data {quote(source)}"
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    found = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{where}: {quote(file.name)} cannot be read ({one_line(error, 120)})") from None
        found += [" ".join(text.split())] if path.is_dir() else [line.strip() for line in text.splitlines()]
    found = list(dict.fromkeys(filter(None, found)))
    if len(found) < FEWEST:
        what = "folder of .txt files" if path.is_dir() else "file of one text a line"
        raise BadInput(f"{where}: {len(found)} different texts in this {what}; it takes {FEWEST}")
    return found
