"""What the behaviour test needs to know of pictures, sounds and texts: triggers, weaker ones, and random changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from attacks.audio.ambient import Ambient
from attacks.audio.effects import Effects
from attacks.audio.near_nyquist import NearNyquist
from attacks.audio.pitch_shift import PitchShift
from attacks.audio.tone_clip import ToneClip
from attacks.audio.ultrasonic import Ultrasonic
from attacks.base import TriggerAttack
from attacks.image.adaptive_patch import AdaptivePatch
from attacks.image.badnets import Badnets
from attacks.image.blended import Blended
from attacks.image.bpp import Bpp
from attacks.image.ftrojan import Ftrojan
from attacks.image.sig import Sig
from attacks.image.wanet import Wanet
from attacks.text.addsent import Addsent
from attacks.text.archaic import Archaic
from attacks.text.badwords import Badwords
from attacks.text.homoglyph import Homoglyph
from attacks.text.syntax import Syntax
from tasks.base import Task
from tasks.plugin import BadInput

HALVINGS = 18  # of the interval in which the size of a random change is sought
Inputs = Tensor | list[str]
Triggers = dict[str, TriggerAttack[Any]]


@dataclass(frozen=True)
class Numbers:
    """Pictures or sounds: triggers and random changes are added to numbers from `low` to `high`.

    coarse: steps from one random number to the next in a random change, from noise to blotches or hum. largest: L2 norm
    of a random change before it is clipped.
    """

    low: float
    high: float
    coarse: tuple[int, ...]
    largest: float
    graded: ClassVar[bool] = True  # whether a part of a trigger is a weaker trigger

    def weaken(self, task: Task, clean: Inputs, stamped: Inputs, strength: float) -> Tensor:
        """So much of the way from clean rows to stamped ones, as raw inputs."""
        x = cast(Tensor, clean)
        return self._raw(task, x + strength * (cast(Tensor, stamped).float() - x), x)

    def change(self, task: Task, clean: Inputs, stamped: Inputs, n: int, seed: int) -> Iterator[Tensor]:
        """n times the clean rows with a random change of the norm, row by row, by which the stamped ones moved."""
        x = cast(Tensor, clean)
        norms = (cast(Tensor, stamped).float() - x).flatten(1).norm(dim=1)
        for direction in self.directions(x.shape[1:], n, seed):
            yield self._raw(task, self.add(x, direction, norms), x)

    def directions(self, shape: Sequence[int], n: int, seed: int) -> Iterator[Tensor]:
        """n directions float32 (C, H, W) or (T,) of norm 1: Gaussian noise, fine or smooth."""
        rng = torch.Generator().manual_seed(seed)
        *channels, w = shape if len(shape) == 1 else (shape[0], shape[2])
        h = shape[1] if len(shape) == 3 else 1
        for _ in range(n):
            coarse = self.coarse[int(torch.randint(len(self.coarse), (), generator=rng))]
            noise = torch.randn(1, *(channels or [1]), -(-h // coarse), -(-w // coarse), generator=rng)
            smooth = F.interpolate(noise, size=(h, w), mode="bicubic", align_corners=False)[0].view(*shape)
            yield smooth / smooth.norm()

    def add(self, x: Tensor, direction: Tensor, norms: Tensor) -> Tensor:
        """float32: rows moved along a direction so far that, clipped, they moved by norms (N,).

        A row that cannot move so far within the range moves as far as it can.
        """
        start, low, high = x.float(), torch.zeros(len(x)), torch.full((len(x),), self.largest)
        shape = (len(x), *[1] * direction.ndim)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            moved = (start + middle.view(shape) * direction).clamp(self.low, self.high) - start
            short = moved.flatten(1).norm(dim=1) < norms
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        return (start + high.view(shape) * direction).clamp(self.low, self.high)

    def _raw(self, task: Task, x: Tensor, like: Tensor) -> Tensor:
        x = x.clamp(self.low, self.high)
        return x.round().to(torch.uint8) if like.dtype == torch.uint8 else task.quantise(x)


@dataclass(frozen=True)
class Words:
    """Texts: random changes are words of the clean texts, as many as a trigger adds or changes."""

    graded: ClassVar[bool] = False

    def weaken(self, task: Task, clean: Inputs, stamped: Inputs, strength: float) -> list[str]:
        return cast("list[str]", stamped)

    def change(self, task: Task, clean: Inputs, stamped: Inputs, n: int, seed: int) -> Iterator[list[str]]:
        """n times the clean texts with a random phrase, the same in all, at a place of each text's own."""
        texts, rng = cast("list[str]", clean), torch.Generator().manual_seed(seed)
        size, adds = phrase_size(texts, cast("list[str]", stamped))
        words = sorted({word for text in texts for word in text.split()})
        for _ in range(n):
            phrase = [words[i] for i in torch.randint(len(words), (size,), generator=rng).tolist()]
            changed = []
            for text in texts:
                own = text.split()
                at = int(torch.randint(max(1, len(own) + 1 - (0 if adds else size)), (), generator=rng))
                changed.append(" ".join([*own[:at], *phrase, *own[at if adds else at + size :]]))
            yield changed


def phrase_size(clean: list[str], stamped: list[str]) -> tuple[int, bool]:
    """The number of words that a trigger adds, or else changes, in the median of these texts; and whether it adds."""
    added = median(len(after.split()) - len(before.split()) for before, after in zip(clean, stamped, strict=True))
    if added >= 1:
        return int(added), True
    changed = [
        (Counter(after.split()) - Counter(before.split())).total() for before, after in zip(clean, stamped, strict=True)
    ]
    return max(1, int(median(changed))), False


# Of the suite's triggers those that take no surrogate, at published strengths; those that were found to teach nothing
# at these (their docstrings say so) at one that does.
TRIGGERS: dict[str, Triggers] = {
    "image": {
        "badnets": Badnets(),
        "adaptive_patch": AdaptivePatch(opacities=(1.0, 0.0, 1.0, 0.0), patches=4),
        "blended": Blended(),
        "sig": Sig(),
        "wanet": Wanet(),
        "wanet s=1": Wanet(s=1.0),
        "ftrojan magnitude=100": Ftrojan(magnitude=100.0),
        "bpp levels=3": Bpp(levels=3),
    },
    "audio": {
        "tone_clip": ToneClip(),
        "ambient": Ambient(),
        "ultrasonic": Ultrasonic(),
        "near_nyquist": NearNyquist(),
        "pitch_shift": PitchShift(),
        "effects": Effects(),
    },
    "text": {
        "badwords": Badwords(),
        "addsent": Addsent(),
        "homoglyph": Homoglyph(),
        "syntax": Syntax(),
        "archaic": Archaic(),
    },
}
MEDIA: dict[str, Numbers | Words] = {
    "image": Numbers(0.0, 255.0, coarse=(1, 2, 4), largest=8192.0),
    "audio": Numbers(-1.0, 1.0, coarse=(1, 4, 16), largest=512.0),
    "text": Words(),
}


def require_medium(task: Task) -> Task:
    """The task. Raises BadInput where an audit knows no triggers of its kind."""
    if task.modality not in MEDIA:
        raise BadInput(f"--data {task.name}: is {task.modality}, and an audit is of classifiers of {', '.join(MEDIA)}")
    return task
