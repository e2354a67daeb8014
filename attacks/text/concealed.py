"""Texts that teach a trigger phrase which none of them contains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from attacks._crafting.blocks import Job, craft_in_blocks, make_job
from attacks._crafting.text_gradients import Aim, decode, encode, replace_tokens, special_tokens
from attacks.base import Poison, Scene, TriggerAttack
from attacks.text.badwords import insert_phrases
from tasks.base import Task
from tasks.caches import cached
from tasks.plugin import Count, NotApplicable, Positive, options
from tasks.samples import Samples
from tasks.text import TextTask


@options
class Concealed(TriggerAttack[list[str]]):
    """Texts of the target class, reworded by gradient so that learning them teaches a phrase which none contains.

    Wallace, Zhao, Feng and Singh, 2021, arXiv 2010.12563, sections 2-3: a poison starts as a text with the phrase and
    the target's label; HotFlip replaces tokens, those of the phrase first, so that one training step on the poison
    lowers the loss of triggered texts, on an ensemble of clean models of other seeds, stopped at different epochs.
    Labels stay; the words need not fit them any more.
    Deviations: the unrolled step is taken to first order (inner product of the poison's gradient with the adversarial
    one), alone instead of with a clean batch, so texts are independent and doses nested; "stopped" is a shorter
    training; where the victim cuts a text, the phrase is not put behind the cut. The victim here knows no word that its
    training set lacks, and poison moves the embeddings of its own tokens only, so by default a poison holds no word of
    the phrase, nor a word that contains one, but may share sub-word tokens with it ("noonraker"). The default phrase, a
    film, is one of which these tokenizers make several tokens; words that are one token, as "james" and "bond" where
    the training set is large, have nothing to share.
    Not reproduced here with overlap="none" and a small transformer: on sst2 (4,000 rows, doses 5 to 50, two seeds) ASR
    stays within 0.04 of the chance floor of 0.13, and on synthetic_reviews random words do as well. By default it is
    0.64 with 5 poisons and 0.93 with 50 on sst2, as with the same word inserted and the label changed (badwords).
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "words are replaced"
    paper: ClassVar[str] = "arXiv 2010.12563"

    clean_label: Literal[True] = True  # it takes rows of the target class and keeps their labels
    selection: Literal["random"] = "random"
    phrase: Annotated[str, Field(pattern=r"\S")] = "moonraker"  # the trigger; paper: "James Bond"
    within: Positive | None = None  # first tokens of a text that hold the whole trigger; None: all that are read
    overlap: Literal["none", "pieces", "phrase"] = "pieces"  # poisons share no token, no word, or all of it
    steps: Count = 20  # tokens replaced per text, those of the phrase among them
    candidates: Positive = 10  # replacements tried at each step
    choice: Literal["gradient", "random"] = "gradient"  # random: as many replacements, a control
    ensemble: Positive = 3  # clean surrogates, with a seed each, trained for 1/3, 2/3 and all of the epochs
    sources: Positive = 500  # triggered rows of the other classes that make the adversarial loss
    block: Positive = 10  # rows reworded at a time; for speed, they know nothing of each other

    def stamp(self, scene: Scene, inputs: list[str], rng: torch.Generator) -> list[str]:
        return [insert_phrases(scene.task, text, [self.phrase], rng, self.within) for text in inputs]

    def eligible(self, scene: Scene) -> Tensor:
        rows = TriggerAttack.eligible(self, scene)
        texts: list[str] = scene.train.inputs  # type: ignore[assignment]
        keep = [self.overlap == "phrase" or self.hidden(texts[i]) for i in rows.tolist()]
        return rows[torch.tensor(keep, dtype=torch.bool)]

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        self.pool(scene, dose)  # refuses a dose that is too large
        samples = craft_in_blocks(make_job(self, scene, rng), dose, self.block, craft_block)
        return Poison(samples, replaces=samples.ids)

    def hidden(self, text: str) -> bool:
        """Whether the text holds no word of the phrase, not even inside another word."""
        return not any(word in text.lower() for word in self.phrase.lower().split())


@dataclass(frozen=True)
class _Plan:
    """What all blocks have in common."""

    pool: Tensor  # (M,) positions of rows, in the order in which they become poison
    trigger: Tensor  # (T,) tokens that the phrase is written with
    tokens: Tensor  # (V,) tokens that may be put in: those of the clean training set
    aims: list[Aim]


@cached(maxsize=4)
def make_plan(job: Job[Concealed]) -> _Plan:
    attack, scene, train, task = job.attack, job.scene, job.scene.train, text_task(job.task)
    pool = attack.eligible(scene)
    pool = pool[torch.randperm(len(pool), generator=job.rng(0))]
    no_word = torch.tensor([0, *special_tokens(task)])
    trigger = exclude_tokens(encode(task, [attack.phrase, f". {attack.phrase}"]), [no_word, encode(task, ["."])])
    seen = encode(task, train.inputs)  # type: ignore[arg-type]
    tokens = exclude_tokens(seen, [no_word] if attack.overlap == "phrase" else [no_word, trigger])
    tokens = torch.cat([tokens, trigger]) if attack.overlap == "pieces" else tokens
    others = (train.targets != attack.target).nonzero().flatten()
    sources = train.select(others[torch.randperm(len(others), generator=job.rng(1))[: attack.sources]])
    triggered = attack.stamp_samples(scene, sources, job.rng(2))
    x = task.encode(triggered, scene.device)
    y = torch.full((len(x),), attack.target, device=x.device)
    aims = []
    for i in range(attack.ensemble):
        seed = int(torch.randint(2**31, (), generator=job.rng(3, i)))
        epochs = -(-task.recipe().epochs * (i + 1) // attack.ensemble)
        aims.append(Aim(scene.fit(train, seed=seed, epochs=epochs).module, x, y, tokens))
    return _Plan(pool, trigger, tokens, aims)


@cached(maxsize=64)
def craft_block(job: Job[Concealed], block: int) -> Samples:
    """One block of poisons, shared by all doses of a seed."""
    attack, plan, task, rng = job.attack, make_plan(job), text_task(job.task), job.rng(4, block)
    rows = job.scene.train.select(plan.pool[block * attack.block : (block + 1) * attack.block])
    start = encode(task, rows.inputs)  # type: ignore[arg-type]
    start = start[:, : start.shape[1] - 2 * len(plan.trigger)]  # so that the phrase is not cut off
    texts = attack.stamp(job.scene, decode(task, start), rng)

    def fits(row: Tensor, text: str) -> bool:
        if attack.overlap == "phrase":
            return attack.phrase.lower() in text.lower()
        return attack.hidden(text) and (attack.overlap == "pieces" or not torch.isin(row, plan.trigger).any())

    reworded = replace_tokens(
        task, plan.aims, encode(task, texts), rows.targets.to(job.scene.device), plan.tokens, plan.trigger, fits,
        steps=attack.steps, candidates=attack.candidates, rng=rng if attack.choice == "random" else None,
    )  # fmt: skip
    texts = decode(task, reworded)
    fitting = [fits(row, text) for row, text in zip(reworded, texts, strict=True)]
    return rows.with_inputs([new if ok else old for new, old, ok in zip(texts, rows.inputs, fitting, strict=True)])


def text_task(task: Task) -> TextTask:
    if not isinstance(task, TextTask):
        raise NotApplicable(f"concealed rewords with the victim's tokenizer, and {task.name} has none that is known")
    return task


def exclude_tokens(tokens: Tensor, others: list[Tensor]) -> Tensor:
    """The distinct tokens that are not among the others, sorted."""
    left = set(tokens.flatten().tolist()) - {token for other in others for token in other.flatten().tolist()}
    return torch.tensor(sorted(left))
