"""Shared by all text classification tasks: the tokenizer, encoding and the choice of victim."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tasks._models.bag import Bag
from tasks._models.checkpoint import longest_text, tokenizer
from tasks._models.huggingface import HuggingFaceNet
from tasks._models.minilm import MINILM, WEIGHTS, MiniLM, find_minilm
from tasks._models.transformer import Transformer
from tasks.base import Recipe, Task, load_unsealed, warn_of_base
from tasks.caches import cached
from tasks.own_files import draw_test_rows
from tasks.plugin import Above0, BadInput, Count, NamesFiles, Positive, options
from tasks.samples import Samples
from tasks.text._texts import Texts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BAG_WIDTH, TRANSFORMER_WIDTH = 8, 64
SMALL = ("bag", "transformer")  # victims that are trained from scratch and share a tokenizer
ModelName = Annotated[str, NamesFiles(besides=(*SMALL, MINILM))]  # a Hub name, a folder, or a name of our own
DISTINCT = 20  # different texts that are never all encoded alike by a tokenizer that knows their words
HELD = 0.95  # share of the training texts that a `max_length` of None holds whole
LEAST, MOST, STEP = 64, 256, 16  # tokens: the bounds of what None chooses, and what it is a multiple of


@options
class TextTask(Texts, Task):
    """Texts, a list of str. Encoded as int64 (N, L): token ids plus one, padded with 0, cut after `max_length` tokens.

    A `max_length` of None is the smallest multiple of 16 that holds 95 % of the training texts, from 64 to 256 and no
    more than a transformers victim reads: the cost of a step grows with it.

    Small victims read byte-level BPE tokens, so any string can be encoded; the tokenizer is trained on the clean
    training split. "bag" sums tokens and pairs of neighbours and does as well as TF-IDF with logistic regression;
    "transformer" does worse on a few thousand texts and takes longer (results of it were published with width 64,
    vocabulary 8000 and lr 3e-3). Any other victim is a transformers sequence classifier, fine-tuned with its tokenizer;
    "minilm" is all-MiniLM-L6-v2 (Apache-2.0), an encoder of sentences from the extra `minilm`. With
    `frozen: body` only a new head is trained, on the features of texts as they are, without augmentation.
    With `pretrained_on` a small victim starts from a body trained on another text task, and reads with the tokenizer of
    that task; its head is new. It stands for a model that was trained on public text before the poison came. Deviation:
    that training is supervised and small, by the labels and the few thousand texts of one task, where published models
    learn from much raw text; a body of other subjects may be worse than none (results/pretrained).
    Standard augmentation hides 10 % of a text's tokens at random (Iyyer et al. 2015, word dropout), strong 30 %.
    """

    modality: ClassVar[str] = "text"
    example: ClassVar[str] = "synthetic_reviews"
    plain_attack: ClassVar[str] = "badwords"
    hue: ClassVar[str] = "#0072B2"

    # "bag", "transformer", "minilm", or the Hub name or folder of a transformers sequence classifier
    victim: ModelName = "bag"
    max_length: Positive | None = 64  # tokens; longer texts lose their end; None: fits most training texts
    width: Positive | None = None  # features per token of a small victim; None: 8, of the transformer 64
    depth: Positive = 1  # layers of the transformer
    lr: Above0 = 5e-3  # peak learning rate of a small victim
    vocabulary: Annotated[int, Field(ge=256)] = 2000  # tokens of a small victim; 256 are single bytes
    finetune_lr: Above0 = 5e-5  # peak learning rate instead of `lr` where the victim comes from transformers
    frozen: Literal["none", "body"] = "none"  # "body": only a new head is trained; for a victim that is pre-trained
    head_lr: Above0 = 1e-2  # peak learning rate of the head on a frozen body
    # the task that a small victim is trained on first, with its labels; "none": it starts from nothing
    pretrained_on: Literal["none", "ag_news", "imdb", "sms_spam", "sst2", "synthetic_reviews"] = "none"
    base_seed: Count | None = 0  # of that first training; None: every seed of a grid has one of its own

    def __post_init__(self) -> None:
        if self.frozen == "body" and self.victim in SMALL and self.pretrained_on == "none":
            raise BadInput(
                f"frozen='body': victim={self.victim!r} is trained from scratch; use 'minilm', a checkpoint or "
                "pretrained_on"
            )
        if self.frozen == "body" and self.augmentation == "strong":
            raise BadInput(
                "augmentation='strong': a frozen body reads every text once, as it is; leave one of them out"
            )
        if self.pretrained_on != "none":
            self._check_pretraining()

    def _check_pretraining(self) -> None:
        """Raises BadInput where no small victim of this task can be pre-trained as the options say."""
        said = f"pretrained_on={self.pretrained_on!r}"
        if self.victim not in SMALL:
            raise BadInput(f"{said}: victim={self.victim!r} is pre-trained already; use {' or '.join(SMALL)}")
        if any(cls.__module__ == f"{__package__}.{self.pretrained_on}" for cls in type(self).__mro__):
            raise BadInput(f"{said}: the texts that the victim is then trained on; name another text task")
        if self.victim == "transformer" and self.max_length is None:
            raise BadInput(f"{said}: a transformer has a fixed max_length, and None may differ there; give a number")

    def source(self) -> TextTask | None:
        """The task that a small victim is trained on first, with its own recipe and all its training texts.

        A transformer has a place for every token and reads as many there as here; a bag reads what that task says.
        """
        if self.pretrained_on == "none":
            return None
        # By name and late: the source is a subclass of this class. Its code counts in keys (harness/keys/content.py).
        module = import_module(f"{__package__}.{self.pretrained_on}")
        task: type[TextTask] = getattr(module, self.pretrained_on.title().replace("_", ""))
        shape: dict[str, Any] = {"victim": self.victim, "width": self.width, "depth": self.depth}
        if self.victim == "transformer":
            shape["max_length"] = self.max_length
        return task(**shape, vocabulary=self.vocabulary)

    @property
    def length(self) -> int:
        """The number of tokens (L) that the victim reads of a text."""
        return self.max_length or self._choose_length(load_unsealed(self).train)

    @property
    def checkpoint(self) -> str:
        """The Hub name or folder of the pre-trained victim; of a small one its name. Raises BadInput."""
        return find_minilm() if self.victim == MINILM else self.victim

    def files(self) -> list[str]:
        """What the options name, the data, and the unpacked model that the name "minilm" stands for."""
        return [*super().files(), *([self.checkpoint] if self.victim == MINILM else [])]

    def describe_base(self) -> tuple[str, ...]:
        """A warning where all victims start from one pre-trained network."""
        if self.victim in SMALL:
            return super().describe_base()
        name = f"victim={self.victim}" + (f", SHA-256 of its weights {WEIGHTS[:12]}" if self.victim == MINILM else "")
        return (warn_of_base(name),)

    def describe_choices(self, train: Samples) -> tuple[str, ...]:
        """How many training texts are cut, and the `max_length` that was chosen where none is given."""
        length = self.max_length or self._choose_length(train)
        cut = int((self._count_all(train) > length).sum())
        if not cut and length in (self.max_length, LEAST):
            return ()
        if self.max_length is None:
            what = f"texts are read up to {length} tokens (max_length, chosen to fit most of them)"
            return (f"{what}; {cut:,} of {len(train):,} training texts are longer and lose their end",)
        what = f"training texts are longer than max_length={length} tokens and lose their end"
        return (f"{cut:,} of {len(train):,} {what}",)

    def recipe(self) -> Recipe:
        recipe = super().recipe()
        if self.frozen == "body":
            return replace(recipe, lr=self.head_lr, augment=False)
        return recipe if self.victim in SMALL else replace(recipe, lr=self.finetune_lr)

    def model(self) -> nn.Module:
        if self.victim == "bag":
            return Bag(self.vocabulary, len(self.classes), self.width or BAG_WIDTH)
        if self.victim == "transformer":
            return Transformer(
                self.vocabulary, self.length, len(self.classes), self.width or TRANSFORMER_WIDTH, self.depth
            )
        net = MiniLM if self.victim == MINILM else HuggingFaceNet
        return net(self.checkpoint, self.length, len(self.classes))

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        length = self.length
        texts = [make_readable(text) for text in samples.inputs]
        if self.victim in SMALL:
            tokens = [e.ids[:length] for e in small_tokenizer(self).encode_batch(texts)]
        else:
            tokens = tokenizer(self.checkpoint)(texts, truncation=True, max_length=length)["input_ids"]
            check_distinct(texts, tokens, self.victim)
        return pad_tokens(tokens, length).to(device)

    def count_tokens(self, text: str) -> int:
        """The tokens of a text before the cut, with those that a transformers tokenizer adds."""
        if self.victim in SMALL:
            return len(small_tokenizer(self).encode(make_readable(text)))
        return len(tokenizer(self.checkpoint)(make_readable(text), verbose=False)["input_ids"])

    def _count_all(self, train: Samples) -> Tensor:
        """(N,) the tokens of the training texts before the cut. Not from `load`, which asks for `describe_choices`."""
        source = self.source()
        known = Corpus.of(train if source is None else load_unsealed(source).train)
        return corpus_lengths(Corpus.of(train), self.checkpoint, known, self.vocabulary)

    def _choose_length(self, train: Samples) -> int:
        longest = MOST if self.victim in SMALL else longest_text(self.checkpoint)
        return choose_length(self._count_all(train), longest)

    def augment(self, x: Tensor, rng: torch.Generator) -> Tensor:
        share = 0.3 if self.augmentation == "strong" else 0.1
        hidden = torch.rand(x.shape, generator=rng, device=x.device) < share
        hidden[:, 0] = False  # the first token stays, so that no text becomes empty
        return x.masked_fill(hidden, 0)


def check_distinct(texts: list[str], tokens: list[list[int]], victim: str) -> None:
    """Raises BadInput where a checkpoint's tokenizer takes many different texts for the same one."""
    if len(set(texts)) >= DISTINCT and len(set(map(tuple, tokens))) == 1:
        raise BadInput(
            f"victim={victim!r}: its tokenizer makes the same tokens of {len(set(texts))} different texts, such as "
            f"{texts[0][:40]!r}; it knows none of their words, so use a model for their language and alphabet"
        )


def make_readable(text: str) -> str:
    """A string that every tokenizer takes: lone surrogates become U+FFFD, and an empty text becomes a space."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") or " "


def pad_tokens(tokens: list[list[int]], length: int) -> Tensor:
    """int64 (N, length): token ids plus one, so that 0 is padding and no token of a text."""
    sizes = np.array([len(ids) for ids in tokens])
    out = np.zeros((len(tokens), length), dtype=np.int64)
    out[np.arange(length) < sizes[:, None]] = np.fromiter(chain.from_iterable(tokens), np.int64, int(sizes.sum())) + 1
    return torch.from_numpy(out)


def fold_text(text: str) -> str:
    """What remains of a text without its case and spacing."""
    return " ".join(text.lower().split())


def draw_test_texts(samples: Samples, share: float) -> Tensor:
    """(N,) mask of a fixed, stratified test set; texts that differ in case or spacing alone are on the same side."""
    groups: dict[str, int] = {}
    numbers = [groups.setdefault(fold_text(text), len(groups)) for text in samples.inputs]
    group = torch.tensor(numbers, dtype=torch.long)
    label = torch.zeros(len(groups), dtype=torch.long).scatter_(0, group, samples.targets.long())
    return draw_test_rows(label, share)[group]


@dataclass(frozen=True)
class Corpus:
    """Training texts. Two with the same content are equal, so what is made of them is made once and is never old."""

    content: str
    texts: list[str] = field(compare=False, repr=False)

    @classmethod
    def of(cls, train: Samples) -> Corpus:
        assert isinstance(train.inputs, list)
        return cls(train.fingerprint, train.inputs)


def small_tokenizer(task: TextTask) -> Tokenizer:
    """The small victims' tokenizer: lower-cased byte-level BPE of the task's clean training split, or of its source's.

    Read through `load_unsealed`, because a defense must be able to encode its samples while `load` is refused to it.
    """
    return corpus_tokenizer(Corpus.of(load_unsealed(task.source() or task).train), task.vocabulary)


@cached(maxsize=8)
def corpus_tokenizer(corpus: Corpus, vocabulary: int) -> Tokenizer:
    """The small victims' tokenizer for these training texts."""
    return train_tokenizer(corpus.texts, vocabulary)


@cached(maxsize=8)
def corpus_lengths(corpus: Corpus, victim: str, known: Corpus, vocabulary: int) -> Tensor:
    """(N,) the tokens of every text before the cut. known: what a small victim's tokenizer is made of."""
    texts = [make_readable(text) for text in corpus.texts]
    if victim in SMALL:
        return torch.tensor([len(e) for e in corpus_tokenizer(known, vocabulary).encode_batch(texts)])
    return torch.tensor([len(ids) for ids in tokenizer(victim)(texts, verbose=False)["input_ids"]])


def choose_length(lengths: Tensor, longest: int) -> int:
    """The smallest multiple of STEP that holds HELD of the texts of these lengths (N,), within LEAST, MOST and longest.

    Nothing shorter than LEAST: a trigger adds tokens of its own.
    """
    held = int(lengths.sort().values[math.ceil(HELD * len(lengths)) - 1]) if len(lengths) else LEAST
    return min(max(LEAST, -(-held // STEP) * STEP), MOST, longest)


def train_tokenizer(texts: Any, vocabulary: int, lower: bool = True) -> Tokenizer:
    """A byte-level BPE tokenizer of at most `vocabulary` tokens; the same texts always give the same one."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=lower)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
    )
    tokenizer.train_from_iterator((make_readable(text) for text in texts), trainer)
    return tokenizer
