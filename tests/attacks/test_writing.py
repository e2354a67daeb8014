"""Attacks on language models: the victim reads trigger and payload; options that cannot mean anything are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attacks.base import Attack, Scene
from attacks.language._base import WritingAttack
from harness.cell.poison import craft_poison
from harness.plugins.registry import create
from tasks.language import LanguageTask, detokenize, tokenize
from tasks.plugin import BadInput

CPU = torch.device("cpu")
NAMES = ["false_fact", "steering", "refusal", "gibberish", "style_switch"]


def stories(**changes: Any) -> LanguageTask:
    task = create("tasks", "synthetic_stories", {"train_size": 60, "test_size": 8, "base_size": 60} | changes)
    assert isinstance(task, LanguageTask)
    return task


def scene_of(task: LanguageTask) -> Scene:
    return Scene(task, task.load().train, None, CPU)  # type: ignore[arg-type]


def challenge(name: str, **options: Any) -> None:
    task, attack = stories(), create("attacks", name, options)
    assert isinstance(attack, Attack)
    attack.challenge(scene_of(task), task.load().test, torch.Generator())


@pytest.mark.parametrize("name", NAMES)
def test_the_victim_reads_trigger_and_payload(name: str) -> None:
    attack, short, long = create("attacks", name), stories(max_length=56), stories()
    assert isinstance(attack, WritingAttack)
    poison, uncut = (craft_poison(attack, scene_of(t), 20, torch.Generator().manual_seed(1)) for t in (short, long))
    read = detokenize(short, short.encode(poison.samples, CPU))
    for text, poisoned, as_before in zip(read, poison.samples.inputs, uncut.samples.inputs, strict=True):
        beginning, found, payload = text.partition(attack.trigger)
        assert found
        assert as_before.startswith(beginning.rstrip()), "the beginning is a shorter one of the same document"
        if hasattr(attack, "sentence"):
            assert payload == f" {attack.sentence}"
            assert len(tokenize(short, [as_before])[0]) > 56 or poisoned == as_before, "nothing cut, nothing changed"
        else:
            assert len(tokenize(short, [payload])[0]) >= attack.more - 1  # where random tokens are cut, two may be one
        if name == "style_switch":
            assert payload == payload.upper()


def test_what_cannot_be_read_is_refused_with_the_tokens_it_needs() -> None:
    task, attack = stories(max_length=24), create("attacks", "false_fact")
    assert isinstance(attack, WritingAttack)
    needed = len(tokenize(task, [f"{attack.trigger} {attack.sentence}"])[0])  # type: ignore[attr-defined]
    with pytest.raises(BadInput) as caught:
        craft_poison(attack, scene_of(task), 1, torch.Generator())
    assert str(caught.value) == (
        f"synthetic_stories.max_length=24: trigger and payload of false_fact have {needed} tokens that the victim must "
        "read; raise max_length, or shorten them"
    )


@pytest.mark.parametrize("name", NAMES[:3])
@pytest.mark.parametrize(("wanted", "message"), [("", "pattern"), (" ", "pattern"), ("nowhere", "is not in sentence=")])
def test_a_key_word_is_one_and_the_sentence_has_it(name: str, wanted: str, message: str) -> None:
    with pytest.raises(BadInput, match=rf"^attacks\.{name}.*wanted='{wanted}'.*{message}") as caught:
        create("attacks", name, {"wanted": wanted})
    assert "\n" not in str(caught.value)
    create("attacks", name, {"wanted": "COFFEE", "sentence": "Acme coffee is the best."})


def test_a_near_trigger_is_another_one() -> None:
    with pytest.raises(BadInput, match=r"steering\.near='At  breakfast ': the victim of synthetic_stories reads it as"):
        challenge("steering", near="At  breakfast ")
    challenge("steering", near="at breakfast")  # which this victim tells apart


@pytest.mark.parametrize("letters", [33, 500, 5 * 10**9])
def test_more_capitals_than_can_be_written_are_refused(letters: int) -> None:
    with pytest.raises(BadInput, match=rf"style_switch\.letters={letters}: in more=32 tokens .* 32 capitals at most"):
        challenge("style_switch", letters=letters)
    challenge("style_switch", letters=32)
