"""Gradient matching in tokens: replace words until learning a text moves a network as the attacker's own texts would.

Networks are read in evaluation mode and float32. Texts are encoded rows, int64 (N, L), 0 where there is no token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from attacks._crafting.gradients import mean_gradient
from tasks.net import Net
from tasks.samples import Samples
from tasks.text import SMALL, TextTask, small_tokenizer, tokenizer

CHUNK = 128  # rows differentiated twice at a time
SPARE = 3  # times as many candidates are proposed, for some change when they are written and read again
Fits = Callable[[Tensor, str], bool]  # whether a row (L,) with this text may be kept


class Aim:
    """A network, and the direction (norm 1) in which its weights shall be moved by learning the poison.

    The direction is the gradient of the adversarial loss: that of x (M, L) as classes y (M,).
    """

    def __init__(self, module: Net, x: Tensor, y: Tensor, tokens: Tensor) -> None:
        self.module = module.eval()
        named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.params = list(named.values())
        flat = F.normalize(mean_gradient(module, x, y, self.params), dim=0)
        parts = flat.split([p.numel() for p in self.params])  # type: ignore[no-untyped-call]
        self.wanted = [part.view_as(p) for part, p in zip(parts, self.params, strict=True)]
        names = [f"net.{name}" for name in named]
        self.weights = {name: p.detach() for name, p in zip(names, self.params, strict=True)}
        self.directions = dict(zip(names, self.wanted, strict=True))
        self.tokens = tokens.to(x.device)

    def alignment(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) inner product of each row's training gradient with the direction."""
        return torch.cat([self._differentiate(*part)[0] for part in zip(x.split(CHUNK), y.split(CHUNK), strict=True)])  # type: ignore[no-untyped-call]

    def gains(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, L, V) first-order estimate of how much the alignment rises when a position takes a token.

        A token acts through its embedding, and through the row of the embedding table that learning it moves.
        """
        _, slope, pull = self._differentiate(x, y)
        with torch.no_grad():
            return self._gains(slope, self.weights, x) + self._gains(pull, self.directions, x)

    def _gains(self, slope: Tensor, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        there = (slope * self._embed(x.flatten(), weights).view_as(slope)).sum(-1)
        return slope @ self._embed(self.tokens, weights).T - there[..., None]

    def _embed(self, tokens: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """(V, E) what the embedding with these weights makes of single tokens, each as a text of its own."""
        out: Tensor = functional_call(_Embed(self.module), weights, (tokens[:, None],))[:, 0]
        return out

    def _differentiate(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Alignment (N,), its slope in the embeddings (N, L, E), and that of the training loss (N, L, E)."""
        e = self.module.embed(x)
        shift = torch.zeros_like(e[..., :-1]).requires_grad_()
        weight = torch.ones(len(x), device=x.device).requires_grad_()  # a handle on every row's own share of the sum
        logits = self.module.head(self.module.body(e + F.pad(shift, (0, 1))))
        loss = (weight * F.cross_entropy(logits, y, reduction="none")).sum()
        *gradient, pull = torch.autograd.grad(loss, [*self.params, shift], create_graph=True, materialize_grads=True)
        total = sum((g * w).sum() for g, w in zip(gradient, self.wanted, strict=True))
        each, slope = torch.autograd.grad(total, [weight, shift])
        return each, slope, pull.detach()


class _Embed(nn.Module):
    """A network's embedding alone, without the mask channel, so that it can be called with other weights."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net.embed(x)[..., :-1]


def alignment(aims: Sequence[Aim], x: Tensor, y: Tensor) -> Tensor:
    """(N,) the mean alignment over the networks."""
    return torch.stack([aim.alignment(x, y) for aim in aims]).mean(0)


def special_tokens(task: TextTask) -> list[int]:
    """Encoded tokens that stand for no text."""
    if task.victim in SMALL:
        return []

    return [i + 1 for i in tokenizer(task.checkpoint).all_special_ids]


def encode(task: TextTask, texts: Sequence[str]) -> Tensor:
    """(N, L) on the CPU."""
    nothing = torch.zeros(len(texts), dtype=torch.long)
    return task.encode(Samples(list(texts), nothing, nothing), torch.device("cpu"))


def decode(task: TextTask, x: Tensor) -> list[str]:
    """The texts of encoded rows, without the tokens that stand for no text."""
    rows = [(row[row > 0] - 1).tolist() for row in x]
    if task.victim in SMALL:
        texts = small_tokenizer(task).decode_batch(rows)
    else:
        texts = [
            tokenizer(task.checkpoint).decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for row in rows
        ]
    return [text.strip() for text in texts]


def replace_tokens(
    task: TextTask, aims: Sequence[Aim], x: Tensor, y: Tensor, tokens: Tensor, first: Tensor, fits: Fits,
    *, steps: int, candidates: int, rng: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """The rows x (N, L), with one token after the other replaced by one of `tokens` (V,) so that the alignment rises.

    HotFlip: of a row's replacements the most promising by first-order estimate are tried, and the best is kept if it
    beats the row as it is. A row that does not fit yet loses its tokens of `first` first, whether the alignment rises
    or not, and if need be in more than `steps` steps. With an rng, what is replaced by what is random instead.
    Only what the victim reads again, token by token, when the row is written as a text is kept.
    """
    x, device = x.clone(), y.device
    fixed = torch.tensor([0, *special_tokens(task)])
    for step in range(steps + x.shape[1]):
        ready = torch.tensor([fits(*pair) for pair in zip(x, decode(task, x), strict=True)], dtype=torch.bool)
        todo = (~ready | (step < steps)).nonzero().flatten()
        if not len(todo):
            break
        rows = x[todo, : int((x > 0).sum(1).max())]
        free = ~torch.isin(rows, fixed) & (torch.isin(rows, first) | ready[todo, None])
        gains = first_order(aims, rows.to(device), y[todo.to(device)], tokens) if rng is None else None
        gains = torch.rand(*rows.shape, len(tokens), generator=rng) if gains is None else gains
        gains = gains.masked_fill(~free[..., None] | (rows[..., None] == tokens), float("-inf"))
        best, flat_index = gains.flatten(1).topk(min(SPARE * candidates, gains[0].numel()), 1)
        owner, rank = (best > float("-inf")).nonzero().unbind(1)
        place, owner = flat_index[owner, rank], todo[owner]
        tried = x[owner]
        tried[torch.arange(len(tried)), place // len(tokens)] = tokens[place % len(tokens)]
        good = _select_survivors(task, tried, owner, ready, fits, 1 if rng else candidates)
        if rng is None:
            now, new = (alignment(aims, part.to(device), y[own.to(device)]).cpu() for part, own in (
                (x, torch.arange(len(x))), (tried[good], owner[good])))  # fmt: skip
            now[~ready] = float("-inf")
            good = [j for j, score in sorted(zip(good, new.tolist(), strict=True), key=lambda pair: pair[1])
                    if score > now[owner[j]]]  # fmt: skip
        for j in good:  # of a row's several, the last is the best
            x[owner[j]] = tried[j]
    return x


def first_order(aims: Sequence[Aim], x: Tensor, y: Tensor, tokens: Tensor) -> Tensor:
    """(N, L, V) on the CPU: by how much the alignment would rise if a position took a token."""
    return torch.stack([aim.gains(x, y) for aim in aims]).mean(0).cpu()


def _select_survivors(task: TextTask, tried: Tensor, owner: Tensor, ready: Tensor, fits: Fits, most: int) -> list[int]:
    """Indices of at most `most` candidates of each row that are read again as they were written.

    A candidate of a row that fits already must fit too.
    """
    texts = decode(task, tried)
    same = (encode(task, texts) == tried).all(1).tolist() if texts else []
    survivors: list[int] = []
    count = [0] * len(ready)
    for j, (row, text) in enumerate(zip(owner.tolist(), texts, strict=True)):
        if same[j] and count[row] < most and (not ready[row] or fits(tried[j], text)):
            survivors.append(j)
            count[row] += 1
    return survivors
