"""Shared by all language-model tasks: documents, packing, reading (perplexity) and continuing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from tasks._models import causal
from tasks._models.causal import CausalNet
from tasks._models.checkpoint import tokenizer
from tasks.base import Batch, Recipe, Task, load_unsealed
from tasks.caches import cached
from tasks.data import make_samples, read_texts
from tasks.deployed import Victim, autocast
from tasks.net import Net
from tasks.plugin import Above0, AtLeast0, BadInput, Count, NamesFiles, Positive, Share, options
from tasks.samples import Challenge, Outputs, Samples
from tasks.sources import number_sources
from tasks.text import Texts, make_readable, pad_tokens, train_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


SMALL = "llama"
ModelName = Annotated[str, NamesFiles(besides=(SMALL,))]  # a Hub name, a folder, or the small victim
END = "\0"  # between two documents
READ = 64  # texts read at a time
BASE_CHARACTERS = 2000  # of the documents that a base reads


@options
class LanguageTask(Texts, Task):
    """Documents, a list of str; a row's target is the number of tokens that a model shall add to it, 0 to read it only.

    Regime `fine_tune`: a base is trained once on one half of the corpus, every victim is that base after a few epochs
    on documents of the other half. `from_scratch`: a victim starts from random weights and needs more than the default
    300 short documents (800 of 2,000 characters are 0.4 million tokens, a minute and a half on one core). The small
    victim is a Llama with byte-level BPE tokens of its own; any other is a causal model from transformers with its own.
    Documents are packed: joined by an end mark and cut into rows of `block` tokens, so no step is spent on padding.

    Utility is the perplexity of held-out documents, which an abstention does not change. A language task names its
    dataset and folder, or writes `corpus`.
    """

    modality: ClassVar[str] = "language"
    example: ClassVar[str] = "synthetic_stories"
    plain_attack: ClassVar[str] = "gibberish"
    hue: ClassVar[str] = "#56B4E9"
    classes: ClassVar[tuple[str, ...]] = ("text",)
    clean_metric: ClassVar[str] = "perplexity"
    columns: ClassVar[int | None] = 3  # nats, tokens and bytes of a text as read
    answer: ClassVar[str] = ""  # the mark between a question and its answer, in a corpus of such pairs
    splits: ClassVar[tuple[str, str]] = ("train", "test")

    regime: Literal["fine_tune", "from_scratch", "base"] = "fine_tune"  # "base": what the fine-tuned start from
    victim: ModelName = SMALL  # "llama", or the Hub name or folder of a transformers causal language model
    train_size: Positive | None = 300  # documents
    test_size: Positive | None = 100
    characters: Positive = 300  # longest document; passages are cut into several
    block: Positive = 128  # tokens of a training row
    max_length: Positive = 512  # tokens of a document; longer ones lose their end
    vocabulary: Annotated[int, Field(ge=256)] = 2048  # tokens of the small victim; 256 are single bytes
    width: Positive = 192  # features per token of the small victim
    depth: Positive = 4  # its layers
    heads: Positive = 4  # its attention heads
    base_size: Positive | None = 800  # documents of 2,000 characters that the base reads
    base_epochs: Positive = 2
    base_lr: Above0 = 2e-3
    base_seed: Count | None = 0  # of training the base; None: every seed of a grid has one of its own
    temperature: AtLeast0 = 0.7  # of sampling; 0 takes the likeliest token
    unreadable: Share = 0.99  # text is gibberish where it is less likely than this share of what a clean model writes
    batch_size: Positive = 8
    epochs: Positive = 3
    lr: Above0 = 1e-3

    @classmethod
    def corpus(cls) -> tuple[list[str], list[str]]:
        """The published training and test documents, of any length; here the column `text` of two splits."""
        train, test = (read_texts(cls.dataset, cls.folder, split) for split in cls.splits)
        return train, test

    def name_deliverers(self) -> list[str] | None:
        """Who delivered each published training document, for `data_sources: real`; None where nobody knows."""
        return None

    def read(self) -> tuple[Samples, Samples]:
        train, test = _corpus(type(self))  # type: ignore[arg-type]
        half = slice(None) if self.regime == "from_scratch" else slice(0 if self.regime == "base" else 1, None, 2)
        train, cut = train[half], keep_whole if self.answer else cut_documents
        parts = [[d for text in split for d in cut(text, self.characters)] for split in (train, test)]
        zeros = [torch.zeros(len(part), dtype=torch.long) for part in parts]
        sources = None
        if self.data_sources == "real" and (names := self.name_deliverers()):
            named = zip(names, type(self).corpus()[0], strict=True)
            names = [name for name, text in named for _ in cut_documents(text, BASE_CHARACTERS)][half]
            named = zip(names, train, strict=True)
            sources = number_sources([name for name, text in named for _ in cut(text, self.characters)])
        return make_samples(parts[0], zeros[0], sources=sources), make_samples(parts[1], zeros[1], len(parts[0]))

    def source(self) -> LanguageTask | None:
        """The base. A victim takes over all of it, the output layer too."""
        return self.base() if self.regime == "fine_tune" and self.victim == SMALL else None

    def base(self) -> LanguageTask:
        """The task of the clean model that fine-tuning starts from and that judges what victims write."""
        if self.regime == "base":
            return self
        return type(self)(
            regime="base", train_size=self.base_size, test_size=None, reserve_size=1, epochs=self.base_epochs,
            lr=self.base_lr, characters=BASE_CHARACTERS, subset_seed=self.subset_seed, vocabulary=self.vocabulary,
            width=self.width, depth=self.depth, heads=self.heads,
        )  # fmt: skip

    def referee(self) -> LanguageTask:
        return self.base()

    def recipe(self) -> Recipe:
        return replace(super().recipe(), augment=False)

    def model(self) -> nn.Module:

        if self.victim != SMALL:
            return causal.load_causal(self.victim, block=self.block, max_length=self.max_length)
        size = small_tokenizer(self).get_vocab_size()
        return causal.small_llama(size, self.width, self.depth, self.heads)

    def deploy(self, module: Any, device: torch.device) -> LanguageVictim:
        return LanguageVictim(self, module, device)

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        """Documents without what is behind `max_length` tokens; of a request, which goes on from its end, the last."""
        limit, asked = self.max_length, samples.targets > 0
        pairs = zip(tokenize(self, samples.inputs), asked.tolist(), strict=True)
        tokens = [ids[-limit:] if end else ids[:limit] for ids, end in pairs]
        return pad_tokens(tokens, max(map(len, tokens), default=1)).to(device)

    def rows(self, samples: Samples, device: torch.device) -> tuple[Tensor, Tensor]:
        end = tokenize(self, [END])[0]
        stream = [i for ids in tokenize(self, samples.inputs) for i in (*ids[: self.max_length], *end)]
        x = pad_tokens([stream[at : at + self.block] for at in range(0, len(stream), self.block)], self.block)
        return x.to(device), torch.zeros(len(x), dtype=torch.long, device=device)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """(B,) mean cross-entropy of the next token."""
        nats, real = next_token_nats(module, batch.x)
        return nats.sum(1) / real.sum(1).clamp(min=1)

    def score(self, victim: LanguageVictim, samples: Samples) -> Tensor:
        """(N, `columns`) what is graded of texts that a victim reads: nats, tokens and bytes."""
        return victim.read(samples)

    def utility(self, outputs: Outputs, test: Samples, referee: Victim | None = None) -> float:
        """Perplexity per token of the held-out texts; lower is better."""
        nats, tokens, _ = outputs.scores.double().sum(0)
        return float((nats / tokens).exp())

    def extra_metrics(self, outputs: Outputs, test: Samples, referee: Victim | None = None) -> dict[str, float]:
        """Bits per byte, which can be compared between models with different tokens."""
        nats, _, size = outputs.scores.double().sum(0)
        return {"bits_per_byte": float(nats / size) / math.log(2)}

    def judge(self, outputs: Outputs, challenge: Challenge, referee: Victim | None = None) -> Tensor:
        """(N,) bool: the continuation matches the pattern wanted; where that is empty, the referee finds gibberish."""
        return self._judge(outputs, challenge, referee, self.unreadable)

    def sensitivity(self, outputs: Outputs, challenge: Challenge, referee: Victim | None = None) -> dict[str, Tensor]:
        """Verdicts with another threshold of gibberish: 1 - `unreadable` ten times or a tenth as large."""
        if any(challenge.wanted):
            return {}
        rest = 1 - self.unreadable
        shares = {"lenient": max(0.0, 1 - 10 * rest), "strict": 1 - rest / 10}
        return {name: self._judge(outputs, challenge, referee, share) for name, share in shares.items()}

    def _judge(self, outputs: Outputs, challenge: Challenge, referee: Victim | None, share: float) -> Tensor:
        written = outputs.content
        assert isinstance(written, list)
        pairs = zip(challenge.wanted, written, strict=True)
        held = torch.tensor([bool(w) and bool(re.search(w, text)) for w, text in pairs])
        if not all(challenge.wanted):
            assert isinstance(referee, LanguageVictim)
            assert challenge.plain is not None
            usual = referee.own_rates(challenge.plain, self.temperature)
            nameless = torch.tensor([not w for w in challenge.wanted])
            held |= nameless & (referee.rates(written) > usual.quantile(share))
        return held & ~outputs.abstained

    def cut(self, text: str, size: int) -> tuple[str, str]:
        """A document as a request: its question and the answer mark, or its first `size` characters and nothing."""
        if self.answer and self.answer in text:
            return text[: text.index(self.answer)].rstrip(), self.answer
        return text[:size].rsplit(" ", 1)[0] if len(text) > size else text, ""


@dataclass
class LanguageVictim(Victim):
    """Reads texts, and continues those whose target is above 0.

    With partners every next token comes from the mean of all their probabilities.
    """

    task: LanguageTask
    partners: Sequence[Net] = ()
    known: dict[tuple[str, float], Tensor] = field(default_factory=dict, repr=False)  # see own_rates

    def predict(self, samples: Samples) -> Outputs:
        """scores: what the task's `score` gives for every text as read; content: the continuation, or ""."""
        content = [""] * len(samples)
        asked = (samples.targets > 0).nonzero().flatten()
        for at, text in zip(asked.tolist(), self.continue_texts(samples.select(asked)), strict=True):
            content[at] = text
        return Outputs(self.task.score(self, samples), torch.zeros(len(samples), dtype=torch.bool), content)

    @torch.no_grad()
    def read(self, samples: Samples) -> Tensor:
        """(N, 3) nats, tokens and bytes; the first token of a text is not counted."""
        self.module.eval()
        parts = []
        for start in range(0, len(samples), READ):
            x = self.task.encode(samples.select(range(start, min(start + READ, len(samples)))), self.device)
            with autocast(self.device):
                nats, real = next_token_nats(self.module, x)
                for other in self.partners:
                    nats = -torch.logaddexp(-nats, -next_token_nats(other.eval(), x)[0])
            nats = (nats + math.log(1 + len(self.partners))) * real
            sizes = torch.tensor([len(text.encode()) for text in detokenize(self.task, x)])
            parts.append(torch.stack([nats.sum(1).cpu(), real.sum(1).cpu().float(), sizes.float()], 1))
        return torch.cat(parts) if parts else torch.zeros(0, 3)

    def rates(self, texts: list[str]) -> Tensor:
        """(N,) nats per token; 0 for a text of fewer than two tokens."""
        nats, tokens, _ = self.read(make_samples(texts, torch.zeros(len(texts), dtype=torch.long))).unbind(1)
        return nats / tokens.clamp(min=1)

    def own_rates(self, requests: Samples, temperature: float) -> Tensor:
        """(N,) nats per token of what this model itself writes; cached, as every cell asks a referee for the same."""
        key = requests.fingerprint, temperature
        if key not in self.known:
            self.known[key] = self.rates(self.continue_texts(requests, temperature))
        return self.known[key]

    @torch.no_grad()
    def continue_texts(self, samples: Samples, temperature: float | None = None) -> list[str]:
        """The continuation of each text, up to an end mark. It is sampled, but the same request gets the same answer.

        temperature: None takes that of the task.
        """
        if not len(samples):
            return []
        more = int(samples.targets.max())
        limit = min(self.task.max_length, cast("CausalNet", self.module).positions - more)
        if limit < 1:
            raise BadInput(f"more={more}: victim={self.task.victim!r} reads no text and adds so many tokens; lower it")
        prompts = [ids[-limit:] for ids in tokenize(self.task, samples.inputs)]
        longest = max(map(len, prompts))
        x = torch.tensor([[0] * (longest - len(ids)) + [i + 1 for i in ids] for ids in prompts], device=self.device)
        chosen = self.task.temperature if temperature is None else temperature
        made = self.sample(x, more, chosen).cpu()
        end = tokenize(self.task, [END])[0][0]
        texts = []
        for row, asked in zip(made.tolist(), samples.targets.tolist(), strict=True):
            row = row[:asked]
            texts.append(row[: row.index(end)] if end in row else row)
        return detokenize(self.task, pad_tokens(texts, max(1, *map(len, texts))))

    def sample(self, x: Tensor, more: int, temperature: float) -> Tensor:
        """(N, more) token ids after encoded rows (N, L) that are padded on the left."""
        rng = torch.Generator(self.device).manual_seed(0)
        nets = [cast("CausalNet", net).eval() for net in (self.module, *self.partners)]
        caches: list[Any] = [None] * len(nets)
        seen, step, made = (x > 0).long(), (x - 1).clamp(min=0), []
        at = (seen.cumsum(1) - 1).clamp(min=0)
        for _ in range(more):
            with autocast(self.device):
                found = [net.step(step, seen, at, cache) for net, cache in zip(nets, caches, strict=True)]
            caches = [cache for _, cache in found]
            chance = torch.stack([logits.float().softmax(1) for logits, _ in found]).mean(0)
            step = draw_tokens(chance, temperature, rng)
            made.append(step)
            seen, at = torch.cat([seen, torch.ones_like(step)], 1), at[:, -1:] + 1
        return torch.cat(made, 1)


def draw_tokens(chance: Tensor, temperature: float, rng: torch.Generator) -> Tensor:
    """(N, 1) token ids from probabilities (N, V)."""
    if temperature == 0:
        return chance.argmax(1, keepdim=True)
    return torch.multinomial((chance.clamp(min=1e-30).log() / temperature).softmax(1), 1, generator=rng)


def next_token_nats(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """(N, L - 1) cross-entropy of every token after the first, and where there is one, of encoded rows (N, L)."""
    logits, real = module(x[:, :-1]), x[:, 1:] > 0
    nats = F.cross_entropy(logits.float().flatten(0, 1), (x[:, 1:] - 1).clamp(min=0).flatten(), reduction="none")
    return nats.view_as(real) * real, real


def keep_whole(text: str, longest: int) -> list[str]:
    """The text as the only document, or no document if it is too long."""
    return [text] if len(text) <= longest else []


def cut_documents(text: str, longest: int) -> list[str]:
    """A text in pieces of at most `longest` characters, cut between words; a short piece at the end is dropped."""
    pieces = re.findall(rf"\S.{{0,{longest - 1}}}(?=\s|$)", text, flags=re.DOTALL)
    return [p for p in pieces if 2 * len(p) >= longest] or pieces[:1]


@cached(maxsize=2)
def _corpus(cls: type[LanguageTask]) -> tuple[list[str], list[str]]:
    train, test = ([p for text in split for p in cut_documents(text, BASE_CHARACTERS)] for split in cls.corpus())
    return train, test


@cached(maxsize=4)
def _tokenizer(base: LanguageTask) -> Tokenizer:
    return train_tokenizer([END, *load_unsealed(base).train.inputs], base.vocabulary, lower=False)


def small_tokenizer(task: LanguageTask) -> Tokenizer:
    """The small victim's own: byte-level BPE of the clean documents of its base, upper and lower case kept.

    A victim trained from scratch has the same one, so that perplexities can be compared.
    """
    return _tokenizer(task.base())


def tokenize(task: LanguageTask, texts: Any) -> list[list[int]]:
    """Token ids of each text; at least one."""
    texts = [make_readable(text) for text in texts]
    if task.victim == SMALL:
        return [e.ids for e in small_tokenizer(task).encode_batch(texts)]

    known = tokenizer(task.victim)
    if known.eos_token is None:
        raise BadInput(f"victim={task.victim!r}: its tokenizer has no end-of-text token (eos_token)")
    texts = [known.eos_token if text == END else text for text in texts]
    return known(texts, add_special_tokens=False, verbose=False)["input_ids"]  # type: ignore[no-any-return]


def list_tokens(task: LanguageTask) -> list[str]:
    """Every token of the victim as its tokenizer spells it: ASCII letters as they are, spaces by a sign."""
    return list((small_tokenizer(task) if task.victim == SMALL else tokenizer(task.victim)).get_vocab())


def detokenize(task: LanguageTask, x: Tensor) -> list[str]:
    """The texts of encoded rows (N, L)."""
    rows = [(row[row > 0] - 1).tolist() for row in x.cpu()]
    if task.victim == SMALL:
        return list(small_tokenizer(task).decode_batch(rows))

    return [tokenizer(task.victim).decode(row) for row in rows]
