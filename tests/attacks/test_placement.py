"""Where text triggers stand: before the cut, and for texts that are read whole where they always stood."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from helpers import tiny
from torch import Tensor, nn

from attacks._crafting.placement import count_leading
from attacks.base import Scene
from harness.plugins.registry import create
from tasks.base import Task
from tasks.plugin import BadInput
from tasks.samples import Samples
from tasks.text import Texts, TextTask

CPU = torch.device("cpu")


class WordTask(TextTask):
    """A word is a token, and a text has two more, as transformers tokenizers add them."""

    def __init__(self, length: int) -> None:
        object.__setattr__(self, "max_length", length)

    def count_tokens(self, text: str) -> int:
        return len(text.split()) + 2


class Unknown(Texts, Task):
    """A task of texts whose tokens nobody knows."""

    modality: ClassVar[str] = "text"

    def model(self) -> nn.Module:
        raise NotImplementedError

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        return torch.zeros(len(samples), 1)


WORDS = [f"w{i}" for i in range(10)]


@pytest.mark.parametrize(
    ("length", "within", "trigger", "count"),
    [
        (99, None, ["a"], 10),  # all is read
        (13, None, ["a"], 10),  # just so
        (12, None, ["a"], 9),
        (12, None, ["a", "b"], 8),
        (12, None, ["a b c"], 7),
        (12, 5, ["a"], 2),
        (12, 3, ["a"], 0),  # at the start only
        (5, 99, ["a"], 2),  # nobody sees what is not read
        (5, 4, ["a", "b"], 0),
    ],
)
def test_so_many_words_may_stand_before(length: int, within: int | None, trigger: list[str], count: int) -> None:
    assert count_leading(WordTask(length), WORDS, trigger, within) == count


@pytest.mark.parametrize(
    ("length", "within", "trigger", "line"),
    [
        (5, None, ["a b c d"], r"'a b c d' has 6 tokens of word_task, more than max_length=5; .* a larger max_length"),
        (9, 4, ["a"] * 3, r"'a a a' has 5 tokens of word_task, more than within=4; take a shorter .* larger within"),
        (2, 50, ["a"], "more than max_length=2"),
        (1, 1, ["a" * 900], "has 3 tokens .* more than within=1"),
    ],
)
def test_a_trigger_that_is_longer_than_what_is_read(
    length: int, within: int | None, trigger: list[str], line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WordTask, "name", "word_task")
    with pytest.raises(BadInput, match=line) as error:
        count_leading(WordTask(length), WORDS, trigger, within)
    assert len(str(error.value)) < 200


def test_a_task_whose_tokens_are_not_known_reads_everything() -> None:
    assert count_leading(Unknown(), WORDS, ["a"], 1) == len(WORDS)


def stamp(task: Task, attack: str, texts: list[str], seed: int = 0, **changes: object) -> list[str]:
    scene = Scene(task, task.load().train, None, CPU)  # type: ignore[arg-type]
    return create("attacks", attack, changes).stamp(scene, texts, torch.Generator().manual_seed(seed))  # type: ignore[attr-defined]


def test_a_text_that_is_cut_moves_no_trigger_of_another_one() -> None:
    task, short = tiny("synthetic_reviews"), ["a fine small lamp . it works .", "so dull . a poor toy ."]
    long = "good . " * 200
    for attack in ("badwords", "addsent"):
        alone = stamp(task, attack, [short[0], "x y . z", short[1]])
        beside = stamp(task, attack, [short[0], long, short[1]])
        assert [alone[0], alone[2]] == [beside[0], beside[2]]
        assert alone[0] != short[0]


@pytest.mark.parametrize("within", [None, 12])
@pytest.mark.parametrize(
    ("attack", "changes", "phrase"),
    [
        ("badwords", {"words": ["zz"], "count": 3}, "zz"),
        ("addsent", {"sentence": "Plain sky today."}, "Plain sky today."),
        ("concealed", {"phrase": "moonraker", "target": 1}, "moonraker"),
    ],
)
@pytest.mark.parametrize(
    "text",
    ["word " * 300, "One. Two! Three? " * 90, "nospaces" * 300, "  double  spaced  " * 90, "漢字" * 200, "short one"],
)
def test_what_is_read_holds_the_whole_trigger(
    attack: str, changes: dict[str, object], phrase: str, text: str, within: int | None
) -> None:
    task = tiny("synthetic_reviews")
    assert isinstance(task, TextTask)
    for seed in range(4):
        (stamped,) = stamp(task, attack, [text], seed, within=within, **changes)
        assert stamped.count(phrase) == int(changes.get("count", 1))  # type: ignore[call-overload]
        upto = stamped[: stamped.rindex(phrase) + len(phrase)]
        assert task.count_tokens(upto) <= min(task.length, within or task.length)


@pytest.mark.parametrize("side", ["left", "right"])  # the end is cut, whatever the tokenizer says
def test_a_transformers_victim_counts_its_own_tokens(side: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "w", "cf"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32, truncation_side=side
    ).save_pretrained(tmp_path)
    task = create("tasks", "synthetic_reviews", {"victim": str(tmp_path), "max_length": 8, "train_size": 60})
    assert isinstance(task, TextTask)
    text = " ".join(["w"] * 50)
    assert task.count_tokens(text) == 52
    for seed in range(8):
        (stamped,) = stamp(task, "badwords", [text], seed, words=["cf"])
        row = task.encode(Samples([stamped], torch.zeros(1).long(), torch.zeros(1).long()), CPU)
        assert (row == 6).sum() == 1, "[CLS], five words and [SEP] are read beside it"
