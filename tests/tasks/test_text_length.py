"""How many tokens of a text are read: chosen from the training texts, and said."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny

from harness.plugins.registry import create
from tasks.data import make_samples
from tasks.plugin import BadInput
from tasks.text import TextTask
from tasks.text._base import choose_length

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("lengths", "longest", "chosen"),
    [
        ([5] * 20, 999, 64),  # never less: a trigger adds tokens
        ([64] * 20, 999, 64),
        ([65] * 20, 999, 80),
        ([80] * 19 + [4000], 999, 80),  # the twentieth is the one that may be cut
        ([80] * 18 + [90, 4000], 999, 96),
        ([230] * 20, 999, 240),
        ([256] * 20, 999, 256),
        ([600] * 20, 999, 256),  # for what a step costs
        ([600] * 20, 128, 128),  # all that a transformers victim reads
        ([5] * 20, 32, 32),
        ([70], 999, 80),
        ([], 999, 64),
    ],
)
def test_it_is_the_smallest_that_holds_most(lengths: list[int], longest: int, chosen: int) -> None:
    assert choose_length(torch.tensor(lengths), longest) == chosen


def csv_file(path: Path, *lengths: int, rows: int = 100) -> str:
    """A text of word i is repeated so often, by turns."""
    lines = []
    for i in range(rows):
        word = "word" + "abcdefg"[i % 7]
        lines.append(f"{' '.join([word] * lengths[i // 2 % len(lengths)])} {i},{i % 2}")
    path.write_text("text,label\n" + "\n".join(lines))
    return str(path)


def csv_task(path: str, **changes: Any) -> TextTask:
    task = create("tasks", "csv_text", {"path": path, "reserve_size": 10} | changes)
    assert isinstance(task, TextTask)
    return task


@pytest.mark.parametrize(
    ("lengths", "changes", "length", "note"),
    [
        ((5,), {}, 64, ""),
        ((150,), {}, 160, "texts are read up to 160 tokens .*; 0 of 70"),
        ((600,), {}, 256, "up to 256 tokens .*; 70 of 70 training texts are longer and lose their end"),
        (
            (5, 5, 5, 90),
            {"max_length": 64},
            64,
            r"^\d\d of 70 training texts are longer than max_length=64 tokens",
        ),
        ((5,), {"max_length": 200}, 200, ""),
    ],
)
def test_own_texts_choose_it_and_say_how_many_are_cut(
    tmp_path: Path, lengths: tuple[int, ...], changes: dict[str, int], length: int, note: str
) -> None:
    task = csv_task(csv_file(tmp_path / "t.csv", *lengths), **changes)
    train, notes = task.load().train, task.load().notes
    assert task.encode(train, CPU).shape == (70, length)
    assert replace(task, victim="transformer").model().positions.num_embeddings == length  # type: ignore[union-attr]
    assert len(notes) == bool(note)
    assert not note or re.search(note, notes[0]), notes
    cut = sum(task.count_tokens(text) > length for text in train.inputs)
    assert not note or f"{cut} of 70" in notes[0]


def test_a_file_written_again_is_read_with_its_own_tokens(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "t.csv", 5)
    first = csv_task(path)
    assert (first.length, first.count_tokens("worda wordb")) == (64, 2)
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text().replace("word", "chapter"))
    assert first.count_tokens("chaptera chapterb") == 2, "the tokenizer is that of the rows that are there"
    assert first.count_tokens("worda wordb") > 2


def test_published_tasks_keep_theirs_and_say_what_is_cut() -> None:
    task = tiny("synthetic_reviews")
    assert isinstance(task, TextTask)
    assert (task.length, task.load().notes) == (48, ())
    train = make_samples(["good " * 60, "bad"] * 50, torch.arange(100) % 2)
    assert task.describe_choices(train) == (
        "50 of 100 training texts are longer than max_length=48 tokens and lose their end",
    )
    assert replace(task, max_length=None).describe_choices(train) == (), "64 is the least, and nothing is cut"


def test_a_transformers_victim_sets_the_bound(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    for name, most in (("a", 40), ("b", 10**9)):
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=most
        ).save_pretrained(tmp_path / name)
        config = {"model_type": "bert", "max_position_embeddings": 96, "vocab_size": 4}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        (tmp_path / name / "model.safetensors").touch()  # the length alone is read
    path = csv_file(tmp_path / "t.csv", 300)
    assert csv_task(path, victim=str(tmp_path / "a")).length == 40
    assert csv_task(path, victim=str(tmp_path / "b")).length == 96
    with pytest.raises(BadInput, match="victim="):
        csv_task(path, victim=str(tmp_path / "nothing")).load()
