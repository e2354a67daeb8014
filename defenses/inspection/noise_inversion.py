"""Trigger inversion in the noise of a generator: for every class, the smallest patch that always brings it."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from defenses.base import Case, Defense
from defenses.inspection.neural_cleanse import NeuralCleanse
from tasks.base import Batch
from tasks.deployed import Model
from tasks.diffusion import DiffusionVictim, noise_rows
from tasks.net import Net
from tasks.plugin import Above0, Positive, Share, options


@options
class NoiseInversion(Defense):
    """Inspection: if a patch on the noise brings one class whatever is asked for, the victim unlearns that patch.

    In the spirit of An et al., 2023 (Elijah), arXiv 2312.00050, and Mo et al., 2024 (TERD), arXiv 2409.05294: invert a
    trigger of the initial noise, decide, and teach the model to answer the triggered noise as it answers the plain one.
    Deviations: both invert the shift that an attacker in control of training leaves at the last timestep, and data
    poisoning leaves none. So patches are sought through a few steps of DDIM, with the masks and costs of
    `neural_cleanse`; what was made is read by its distance to the mean clean row of every class. Elijah decides by a
    random forest trained on backdoored models; here a patch counts that works on fresh noise and leaves room.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image_generation",)
    why_not: ClassVar[str] = "it searches a patch on the noise that pictures are made of"
    stage: ClassVar[str] = "inspection"
    paper: ClassVar[str] = "arXiv 2312.00050"

    clean_rows: Positive = 200  # drawn from the reserve
    noises: Positive = 32  # starting noises that the search uses, and as many to try the patches on
    steps: Positive = 5  # of DDIM in the search
    epochs: Positive = 60  # of the search
    lr: Above0 = 0.1  # of Adam
    sharpness: Above0 = 100.0  # of the reading: logits are minus this times the mean squared distance
    works: Share = 0.9  # of fresh noises turned to the class
    room: Share = 0.2  # of the picture that a patch must leave to the noise to be called a trigger
    unlearn_epochs: Positive = 20

    def defend(self, case: Case) -> Model:
        classes = len(case.task.classes)
        victim, clean = cast("DiffusionVictim", case.fit(case.train)), case.clean(self.clean_rows)
        x, y = case.task.rows(clean, case.device)
        means = torch.stack([x[y == c].mean(0) for c in range(classes)])
        noise = torch.randn(2 * self.noises, *x.shape[1:], generator=case.rng).to(case.device)
        seen, fresh = noise.chunk(2)
        search = NeuralCleanse(epochs=self.epochs, lr=self.lr, batch_size=self.noises)
        reading = cast("Net", _Reading(victim, means, self.steps, self.sharpness))
        # neural_cleanse works between 0 and 1, and noise does not: its arithmetic is linear, so that is no matter
        masks, patterns = search.invert(reading, (seen + 1) / 2, -1.0, 1.0, classes, case.rng)
        patterns = 2 * patterns - 1
        room = torch.stack([self.room_left(reading, fresh, masks[c], patterns[c], c) for c in range(classes)])
        target = int(room.argmax())
        mask, pattern = masks[target], patterns[target]
        case.report(model=float(room[target]), target=target)
        case.save("mask", mask)
        case.save("trigger", mask * (pattern + 1) / 2)
        if room[target] <= self.room:
            return victim
        loss = partial(self.loss, before=victim, mask=mask, pattern=pattern)
        return case.fit(clean, init=victim, loss=loss, epochs=self.unlearn_epochs)

    @torch.no_grad()
    def room_left(self, reading: Net, noise: Tensor, mask: Tensor, pattern: Tensor, target: int) -> Tensor:
        """() share of the picture that a patch leaves to the noise; 0 where it brings the class too seldom."""
        share = (reading(noise + mask * (pattern - noise)).argmax(1) == target).float().mean()
        free: Tensor = (1 - mask.mean()) * (share >= self.works)
        return free

    def loss(self, module: Net, batch: Batch, before: DiffusionVictim, mask: Tensor, pattern: Tensor) -> Tensor:
        """(B,) the task's own, plus how far what is said of noise with the patch is from what was said without."""
        noisy, t, _ = noise_rows(batch.x, batch.rng)
        with torch.no_grad():
            goal = before.module.eval()(noisy, t, batch.y).float()
        answer = module(noisy + mask * (pattern - noisy), t, batch.y).float()
        distance: Tensor = (answer - goal).square().mean((1, 2, 3))
        return before.task.loss(module, batch) + distance


class _Reading(nn.Module):
    """Starting noise to class logits of what a generator makes of it, whatever class it is asked for."""

    def __init__(self, victim: DiffusionVictim, means: Tensor, steps: int, sharpness: float) -> None:
        super().__init__()
        self.victim, self.means, self.steps, self.sharpness = victim, means, steps, sharpness
        self.module = victim.module  # so that its weights are frozen with this one's

    def forward(self, noise: Tensor) -> Tensor:
        """(N, K) logits of (N, C, H, W)."""
        asked = torch.arange(len(noise), device=noise.device) % len(self.means)
        apart = self.victim.sample(noise, asked, self.steps)[:, None] - self.means
        return apart.square().mean((2, 3, 4)).mul(-self.sharpness)
