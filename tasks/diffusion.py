"""Shared by image generators and audio synthesisers: a conditional diffusion victim, its sampler and its judge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks._models.denoiser import Denoiser
from tasks.base import Batch, Recipe, Task, copy_facts
from tasks.data import read_once
from tasks.deployed import CHUNK, Victim, autocast
from tasks.plugin import Above0, AtLeast0, BadInput, Count, Positive, Share, options
from tasks.samples import Challenge, Outputs, Samples

OTHER_THRESHOLDS = {"lenient": -0.1, "strict": 0.1}  # for templates, relative to the task's own
FAINT = 0.25  # contrast of a place below which nothing is found there, as a share of the template's
TIMESTEPS = 1000  # of the noise schedule that victims are trained on
CLEAN_STEP = 50  # timestep at which features are read: next to no noise
MODIFIERS = 2  # tokens behind a class: 1 is the attacker's, which clean data never has, 2 a usual one like it
USUAL = 0.1  # share of rows without a token that get the usual one in a step of training
DROPPED = 0.1  # share of rows whose condition is left out in training, for guidance
BLANK = -1.0  # what pictures are padded with


@options
class DiffusionTask(Task):
    """Class-conditional generation; a row's target is its condition, class + K * modifier. Clean data has no modifier.

    In training a tenth of the rows without a modifier, drawn anew at every step, gets modifier 2: a usual word, which
    means nothing. It is what the attacker's token is compared with, and as it is trained it could do the same.

    The victim is a small denoiser trained to predict the velocity (v) of noise added to the encoded row; DDIM makes
    media of noise, the same noise for row i of every request. A request is a condition and a picture laid over the
    noise (all zero: none). Utility is the Frechet distance between the referee's features of what was made and of the
    test set: this suite's own judge, the published classification task's clean victim, not Inception, so compare it
    with nothing but itself. An abstention counts as silence or as a black picture.

    fine_tune: one half of the published training split makes a clean base generator, once; victims start from it and
    learn the other half, which is the one that is poisoned. from_scratch: victims learn all of it.
    """

    published: ClassVar[type[Task]]
    channels: ClassVar[int] = 1
    clean_metric: ClassVar[str] = "Frechet distance"
    columns: ClassVar[int | None] = 0
    limit: ClassVar[float] = 1.0  # largest magnitude of an encoded value

    regime: Literal["fine_tune", "from_scratch", "base"] = "fine_tune"  # "base": what the fine-tuned start from
    reserve_size: Positive = 100
    epochs: Positive = 20
    batch_size: Positive = 64
    lr: Above0 = 1e-3
    weight_decay: AtLeast0 = 0.0
    augmentation: Literal["none", "standard", "strong"] = "none"
    base_size: Positive | None = None  # training rows of the base generator; None takes its half
    base_epochs: Positive = 80  # of the base generator
    base_lr: Above0 = 2e-3  # its peak learning rate
    base_seed: Count | None = 0  # of training the base; None: every seed of a grid has one of its own
    width: Positive = 32  # channels of the denoiser's first block, a multiple of 8
    depth: Positive = 2  # resolutions of the denoiser
    patch: Positive = 1  # side of the squares that the denoiser sees as one pixel
    steps: Positive = 20  # of DDIM
    guidance: AtLeast0 = 0.0  # classifier-free (arXiv 2207.12598, w there), doubles the cost of sampling; 0: none
    noise_seed: Count = 0  # of the noise that sampling starts from
    found: Share = 0.8  # normalised correlation above which a template counts as found
    referee_size: Positive | None = None  # training rows of the referee; None takes all

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        copy_facts(cls, "dataset", "revision", "folder", "licence", "classes", "rate", "channels")

    # What a child writes.

    def picture(self, samples: Samples, device: torch.device) -> Tensor:
        """(N, C, H, W) float32 of raw inputs, within +-limit."""
        raise NotImplementedError(f"{type(self).__name__} must define picture()")

    def media(self, pictures: Tensor) -> Tensor:
        """Raw inputs, on the CPU, of pictures (N, C, H, W)."""
        raise NotImplementedError(f"{type(self).__name__} must define media()")

    def correlation(self, content: Tensor, template: Tensor) -> Tensor:
        """(N,) the largest normalised correlation of each raw input with its template, over all positions."""
        raise NotImplementedError(f"{type(self).__name__} must define correlation()")

    # Data and training.

    @property
    def conditions(self) -> int:
        return len(self.classes) * (1 + MODIFIERS)

    def source(self) -> DiffusionTask | None:
        if self.regime != "fine_tune":
            return None
        cls = type(self)  # how victims are sampled and judged is nothing to the base: it is trained once
        return replace(
            self, regime="base", train_size=self.base_size, test_size=None, reserve_size=len(self.classes),
            epochs=self.base_epochs, lr=self.base_lr, base_seed=0,
            steps=cls.steps, noise_seed=cls.noise_seed, found=cls.found,
        )  # fmt: skip

    def referee(self) -> Task | None:
        return self.published(train_size=self.referee_size)

    def read(self) -> tuple[Samples, Samples]:
        train, test = read_once(self.published())
        return (train if self.regime == "from_scratch" else take_half(train, self.regime == "fine_tune")), test

    def recipe(self) -> Recipe:
        # There is nothing to augment, but saying so would let a frozen body be run once, on rows without noise.
        return replace(super().recipe(), augment=True)

    def model(self) -> nn.Module:

        return Denoiser(self.channels, len(self.classes), MODIFIERS, self.width, self.depth, self.patch, CLEAN_STEP)

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        x = self.picture(samples, device)
        multiple = self.patch * 2 ** (self.depth - 1)
        return F.pad(x, (0, -x.shape[3] % multiple, 0, -x.shape[2] % multiple), value=BLANK)

    def deploy(self, module: Any, device: torch.device) -> Victim:
        return DiffusionVictim(self, module, device)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """(B,) mean squared error of the velocity predicted at a random timestep."""
        x, device = batch.x, batch.x.device
        noisy, t, noise = noise_rows(x, batch.rng)
        usual = torch.rand(len(x), generator=batch.rng, device=device) < USUAL
        k = len(self.classes)
        condition = batch.y + MODIFIERS * k * (usual & (batch.y < k))
        if self.guidance:
            dropped = torch.rand(len(x), generator=batch.rng, device=device) < DROPPED
            condition = condition.masked_fill(dropped, -1)
        error: Tensor = module(noisy, t, condition).float() - schedule().get_velocity(x, noise, t)
        return error.square().mean((1, 2, 3))

    # Grading.

    def requests(self, test: Samples) -> Samples:
        assert isinstance(test.inputs, Tensor)
        return test.with_inputs(torch.zeros_like(test.inputs))

    def wrap_outputs(self, outputs: Outputs, like: Samples) -> Samples:
        """The outputs as samples; all zero where the model abstained."""
        assert isinstance(outputs.content, Tensor)
        kept = ~outputs.abstained
        content = outputs.content * kept.reshape(-1, *[1] * (outputs.content.ndim - 1))
        return Samples(content, like.targets, like.ids)

    def utility(self, outputs: Outputs, test: Samples, referee: Victim | None = None) -> float:
        """Frechet distance between the referee's features of the outputs and of the test set."""
        assert referee is not None
        return frechet_distance(referee.features(self.wrap_outputs(outputs, test)), referee.features(test))

    def extra_metrics(self, outputs: Outputs, test: Samples, referee: Victim | None = None) -> dict[str, float]:
        """class_fidelity: the share of outputs that the referee reads as the class asked for."""
        assert referee is not None
        read = referee.predict(self.wrap_outputs(outputs, test)).answers
        return {"class_fidelity": ((read == test.targets) & ~outputs.abstained).float().mean().item()}

    def sensitivity(self, outputs: Outputs, challenge: Challenge, referee: Victim | None = None) -> dict[str, Tensor]:
        """Verdicts on templates under a lenient (lower) and a strict (higher) threshold."""
        if not isinstance(challenge.wanted, Tensor) or challenge.wanted.ndim == 1:
            return {}
        likeness = self.likeness(outputs, challenge)
        return {name: likeness > round(self.found + offset, 3) for name, offset in OTHER_THRESHOLDS.items()}

    def judge(self, outputs: Outputs, challenge: Challenge, referee: Victim | None = None) -> Tensor:
        """(N,) bool. wanted (N,): the referee reads that class. wanted (N, ...): that template is found."""
        wanted = challenge.wanted
        assert isinstance(wanted, Tensor)
        if wanted.ndim > 1:
            return self.likeness(outputs, challenge) > self.found
        assert referee is not None
        made = self.wrap_outputs(outputs, challenge.inputs)
        return (referee.predict(made).answers == wanted) & ~outputs.abstained

    def likeness(self, outputs: Outputs, challenge: Challenge) -> Tensor:
        """(N,) the largest correlation of what was made with the templates wanted; -1 where the model abstained."""
        made = self.wrap_outputs(outputs, challenge.inputs).inputs
        assert isinstance(made, Tensor)
        assert isinstance(challenge.wanted, Tensor)
        return self.correlation(made, challenge.wanted).masked_fill(outputs.abstained, -1.0)


@dataclass
class DiffusionVictim(Victim):
    """A trained denoiser; it answers a request by DDIM from noise, under the condition asked for."""

    task: DiffusionTask

    @torch.no_grad()
    def features(self, samples: Samples) -> Tensor:
        """(N, D) float32 mid-block features of rows and their conditions, on the CPU."""
        self.module.eval()
        out = []
        for part in split_rows(samples):
            x, condition = self.task.encode(part, self.device), part.targets.to(self.device)
            with autocast(self.device):
                out.append(self.module.features(x, condition).float().cpu())  # type: ignore[call-arg]
        return torch.cat(out)

    @torch.no_grad()
    def predict(self, samples: Samples) -> Outputs:
        """Outputs in the raw format of the task; a victim never abstains."""
        start = self.start(samples)
        pairs = zip(torch.split(start, CHUNK), torch.split(samples.targets.to(self.device), CHUNK))
        made = torch.cat([self.sample(x, c, self.task.steps) for x, c in pairs])
        missing = int((~made.isfinite()).flatten(1).any(1).sum())
        if missing:  # as media it would be black, or silence
            raise BadInput(f"the denoiser makes NaN or infinity of {missing} of {len(made)} requests: it diverged")
        _, _, h, w = self.task.picture(samples.select([0]), self.device).shape
        content = self.task.media(made[:, :, :h, :w])
        n = len(samples)
        return Outputs(torch.zeros(n, 0), torch.zeros(n, dtype=torch.bool), content)

    def start(self, samples: Samples) -> Tensor:
        """(N, C, H, W) the noise that sampling starts from, always the same for row i, under the request's picture."""
        laid = torch.cat([self.task.encode(part, self.device) for part in split_rows(samples)])
        assert isinstance(samples.inputs, Tensor)
        rng = torch.Generator().manual_seed(self.task.noise_seed)  # on the CPU: the same noise on every device
        noise = torch.stack([torch.randn(laid.shape[1:], generator=rng) for _ in range(len(laid))]).to(self.device)
        blank = self.task.encode(self.task.requests(samples.select([0])), self.device)
        return torch.where(laid == blank, noise, laid)

    def sample(self, x: Tensor, condition: Tensor, steps: int) -> Tensor:
        """(N, C, H, W) pictures that DDIM makes of noise x; gradients reach the noise."""
        self.module.eval()
        ddim = sampler(self.task.limit)
        ddim.set_timesteps(steps)
        for t in ddim.timesteps.tolist():
            v = self.velocity(x, torch.full((len(x),), t, device=self.device), condition)
            x = ddim.step(v, t, x).prev_sample
        return x

    def velocity(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """(N, C, H, W) float32 prediction, with classifier-free guidance if the task asks for it."""
        w = self.task.guidance
        with autocast(self.device):
            asked: Tensor = self.module(x, t, condition).float()
            if not w:
                return asked
            unasked: Tensor = self.module(x, t).float()
        return (1 + w) * asked - w * unasked


def split_rows(samples: Samples) -> list[Samples]:
    """The samples in parts of CHUNK rows."""
    return [samples.select(range(at, min(at + CHUNK, len(samples)))) for at in range(0, len(samples), CHUNK)]


@lru_cache(maxsize=1)
def schedule() -> Any:
    """The schedule of the noise that training adds."""
    from diffusers import DDPMScheduler

    make: Any = DDPMScheduler
    return make(TIMESTEPS, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")


def noise_rows(x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (B, C, H, W) at random timesteps (B,) of the schedule, those timesteps, and the noise that was added."""
    t = torch.randint(TIMESTEPS, (len(x),), generator=rng, device=x.device)
    noise = torch.randn(x.shape, generator=rng, device=x.device)
    return schedule().add_noise(x, noise, t), t, noise


def sampler(limit: float) -> Any:
    from diffusers import DDIMScheduler

    make: Any = DDIMScheduler
    return make(
        TIMESTEPS, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", timestep_spacing="trailing",
        clip_sample_range=limit,
    )  # fmt: skip


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Between Gaussians fitted to features (N, D) and (M, D); Heusel et al., 2017, arXiv 1706.08500, section 3.

    The trace of the root of the two covariances' product is taken of a symmetric matrix with the same eigenvalues,
    which needs no regularisation where there are fewer rows than features.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = a.T.cov(correction=0), b.T.cov(correction=0)
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(0.0, float(distance))


def best_match(pictures: Tensor, templates: Tensor) -> Tensor:
    """(N,) the largest zero-normalised correlation of pictures (N, C, H, W) with templates (N, C, h, w), anywhere.

    Places with next to no contrast count as 0: rounding noise resembles anything.
    """
    places = F.unfold(pictures.float(), templates.shape[2:])  # (N, C h w, P)
    places = places - places.mean(1, keepdim=True)
    mark = templates.float().flatten(1)
    mark = mark - mark.mean(1, keepdim=True)
    size, norm = places.norm(dim=1), mark.norm(dim=1, keepdim=True)
    match: Tensor = torch.einsum("ndp,nd->np", places, mark) / (size * norm).clamp(min=1e-6)
    return match.where(size >= FAINT * norm, 0.0).amax(1)


def take_half(samples: Samples, second: bool) -> Samples:
    """Every other row of each class, so that both halves hold all classes."""
    rank = torch.zeros_like(samples.targets)
    for c in range(int(samples.targets.max()) + 1):
        rank[samples.targets == c] = torch.arange(int((samples.targets == c).sum()))
    return samples.select(rank % 2 == int(second))
