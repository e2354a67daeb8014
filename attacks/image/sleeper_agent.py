"""Sleeper Agent: training images nudged so that learning them teaches a trigger that none of them shows."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from attacks._crafting.blocks import Job, craft_in_blocks, make_job
from attacks._crafting.gradients import gradient_norms, match_gradients
from attacks._crafting.patches import check_patch
from attacks._crafting.squares import quarter_of, random_patch
from attacks.base import Poison, Scene, TriggerAttack
from tasks.caches import cached
from tasks.plugin import Above0, Count, Positive, options
from tasks.samples import Samples


@options
class SleeperAgent(TriggerAttack[Tensor]):
    """Faint noise on images of the target class whose training gradient mimics that of triggered images of the others.

    Souri, Fowl, Chellappa, Goldblum and Goldstein, 2022, arXiv 2106.08970, section 3: gradient matching, retraining and
    poison selection; numbers are the defaults of the authors' code, one restart and no ensemble among them. The labels
    are right, no poison shows the patch, and the patch itself is only seen in the challenge.
    Deviations: all other classes are sources at once, as all of them are challenged (the paper attacks from one); the
    patch stands in the lower right corner, where the authors' code puts it anywhere. The paper crafts all poisons
    together; here doses are nested, so rows are crafted in fixed blocks (the 50 of largest gradient norm, the next 50,
    ...). A block knows nothing of the others and its retrained surrogates see it alone; a dose that ends within a block
    takes its first rows, so that below 50 the gradient that was matched is that of more rows than are placed.
    Not reproduced here: on digits (doses 10 and 50, two seeds) and fashion_mnist with 2,000 rows (20 to 100, one seed)
    its ASR is the chance floor, as is that of the random start; the paper poisons 500 of 50,000 images, trained longer.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the perturbation is added to pixels"
    paper: ClassVar[str] = "arXiv 2106.08970"

    clean_label: Literal[True] = True  # its rows are of the target class and keep their labels
    eps: Above0 = 16.0  # largest change of a pixel, grey levels of 255
    steps: Count = 250  # of signed Adam; 0 leaves the random start, a control of equal norm
    step: Above0 = 6.0  # grey levels; the authors' 0.1 in units of CIFAR-10's spread
    retrain: Count = 4  # surrogates trained anew on the poisoned set, evenly over the steps (every 50 of 250)
    layers: Literal["all", "head"] = "all"  # whose gradient is matched
    selection: Literal["gradient_norm", "random"] = "gradient_norm"  # type: ignore[assignment]  # rows that come first
    sources: Positive = 2500  # triggered rows of the other classes that make the gradient to be matched
    block: Positive = 50  # rows crafted together
    size: Positive | None = None  # side of the patch, pixels; None: a quarter of the shorter side (8 of 32)
    patch_seed: Count = 0  # which random patch; one for crafting and test

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        h, w = inputs.shape[2:]
        size = self.size or quarter_of(h, w)
        check_patch(self, size, inputs.shape)
        out = inputs.clone()
        out[:, :, h - size :, w - size :] = random_patch(inputs.shape[1], size, self.patch_seed)
        return out

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        self.pool(scene, dose)  # refuses a dose that is too large
        samples = craft_in_blocks(make_job(self, scene, rng), dose, self.block, craft_block)
        return Poison(samples, replaces=samples.ids)


@cached(maxsize=8)
def rank_rows(job: Job[SleeperAgent]) -> Tensor:
    """(M,) positions of the rows of the target class, in the order in which they become poison."""
    scene, pool = job.scene, job.attack.eligible(job.scene)
    pool = pool[torch.randperm(len(pool), generator=job.rng(1))]
    if job.attack.selection == "random":
        return pool
    rows = scene.train.select(pool)
    x, y = scene.task.encode(rows, scene.device), rows.targets.to(scene.device)
    norms = gradient_norms(job.surrogate(0, scene.train).module, x, y).cpu()
    return pool[norms.argsort(descending=True, stable=True)]


@cached(maxsize=32)
def craft_block(job: Job[SleeperAgent], block: int) -> Samples:
    """One block of poisons, shared by all doses of a seed."""
    attack, scene, train = job.attack, job.scene, job.scene.train
    positions = rank_rows(job)[block * attack.block : (block + 1) * attack.block]
    others = (train.targets != attack.target).nonzero().flatten()
    sources = train.select(others[torch.randperm(len(others), generator=job.rng(2))[: attack.sources]])
    triggered = attack.stamp_samples(scene, sources, job.rng(3))
    x = scene.task.encode(triggered, scene.device)
    return match_gradients(
        train.select(positions), x, torch.full((len(x),), attack.target, device=x.device),
        lambda n, rows: job.surrogate(n, train.replace(positions, rows) if n else train).module,
        scene.task.augment if scene.task.recipe().augment else lambda x, _: x,
        eps=attack.eps, steps=attack.steps, step=attack.step, retrain=attack.retrain, layers=attack.layers,
        rng=job.rng(4, block),
    )  # fmt: skip
