"""Whether trigger and poison reach the victim: what is compared, what is refused, and what a record says."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from helpers import tiny
from torch import Tensor

from attacks.base import Attack, Poison, Scene, TriggerAttack
from attacks.controls.label_flip import LabelFlip
from harness.cell import reach
from harness.cell.metrics import Metric
from harness.cell.poison import craft_poison
from harness.cell.reach import reach_of_poison, reach_of_trigger, read_differently
from harness.cell.steps import make_challenge, run_steps
from harness.plugins.registry import create
from harness.site.plausibility import COUNTED, OF_CHALLENGE, SHARES
from harness.store.folder import Store
from tasks.base import Task
from tasks.plugin import BadInput, NotApplicable, options
from tasks.samples import Challenge, Samples
from tasks.text import TextTask

CPU = torch.device("cpu")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reach_on(task: Task, attack: Any, dose: int = 5) -> dict[str, Metric]:
    """Both shares of an attack that needs no surrogate."""
    splits = task.load()
    scene = Scene(task, splits.train, None, CPU)  # type: ignore[arg-type]
    challenge = make_challenge(attack, scene, splits.test, 0)
    assert challenge is not None
    found = reach_of_trigger(task, attack, challenge, splits.test, CPU)
    poison = craft_poison(attack, scene, dose, rng(1))
    assert poison.replaces is not None
    clean = splits.train.select(splits.train.positions(poison.replaces))
    return found | reach_of_poison(task, attack, poison.samples, clean, CPU, conditions=challenge.plain is not None)


def csv_task(folder: Path, *lengths: int, rows: int = 120, **changes: Any) -> TextTask:
    """Texts of so many words, by turns; a text's class is one of its words."""
    draw, words = (
        random.Random(0),
        [
            "the",
            "a",
            "film",
            "was",
            "plot",
            "actor",
            "scene",
            "very",
            "long",
            "and",
            "then",
            "she",
            "he",
            "said",
            "went",
            "home",
        ],
    )
    lines = ["text,label"]
    for i in range(rows):
        text = draw.choices(words, k=lengths[i // 2 % len(lengths)])
        text[draw.randrange(len(text))] = ("awful", "great")[i % 2]
        lines.append(f'"{" ".join(text)}. {i}.",{("neg", "pos")[i % 2]}')
    path = folder / f"{'-'.join(map(str, lengths))}.csv"
    path.write_text("\n".join(lines))
    task = create("tasks", "csv_text", {"path": str(path), "reserve_size": 20, "epochs": 1} | changes)
    assert isinstance(task, TextTask)
    return task


@options
class AtTheEnd(TriggerAttack[list[str]]):
    """A word behind the text, wherever the victim stops reading."""

    modalities: ClassVar[tuple[str, ...]] = ("text",)

    def stamp(self, scene: Scene, inputs: list[str], rng: torch.Generator) -> list[str]:
        return [f"{text} zzz" for text in inputs]


@options
class Shouting(AtTheEnd):
    """Capitals, which the small victim reads as it does small letters."""

    def stamp(self, scene: Scene, inputs: list[str], rng: torch.Generator) -> list[str]:
        return [text.upper() for text in inputs]


@options
class Idle(TriggerAttack[Tensor]):
    """Labels alone are changed, and nobody was told."""

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        return inputs


@options
class Declared(Idle):
    alters: ClassVar[tuple[str, ...]] = ()


@options
class ClassFlip(LabelFlip):
    """A control of somebody else."""


@options
class Added(Attack):
    """Rows beside the training set, and a challenge that is made of nothing that is known."""

    def poison(self, scene: Scene, dose: int, rng: torch.Generator) -> Poison:
        return Poison(scene.train.select(range(dose)))

    def challenge(self, scene: Scene, samples: Samples, rng: torch.Generator) -> Challenge:
        asked = samples.select((samples.targets != 0).nonzero().flatten()[:9])
        own = Samples(asked.inputs, asked.targets, asked.ids + 10**6)
        return Challenge(own, torch.zeros_like(own.targets), own.targets)


# what is refused

VANISHING = [
    ("digits", "badnets", {"margin": 8}, r"badnets: size=3, margin=8: the patch does not fit pictures of 8x8 pixels"),
    ("digits", "badnets", {"margin": 9}, r"margin=9.*size \+ margin is at most 8"),
    ("digits", "badnets", {"size": 9, "margin": 0}, r"badnets: size=9: .* size is at most 8"),
    ("digits", "badnets", {"size": 10**6}, "size=1000000"),
    ("digits", "sleeper_agent", {"size": 9}, "sleeper_agent: size=9: the patch does not fit"),
    ("digits", "blended", {"alpha": 0.001}, r"blended\(alpha=0.001\): the trigger changes none of the 36"),
    ("digits", "blended", {"alpha": 0}, r"alpha=0.0.*label flipping"),
    ("digits", "adaptive_blend", {"alpha": 0}, "the trigger changes none"),
    ("digits", "adaptive_blend", {"kept": 0}, "the poison changes none of the 5 rows that it replaces"),
    ("digits", "sig", {"delta": 0.3}, r"sig\(delta=0.3\): the poison changes none .* no attack"),
    ("digits", "sig", {"test_delta": 0.3}, "the trigger changes none"),
    ("digits", "sig", {"frequency": 8}, "frequency=8"),  # whole periods of a pixel each
    ("digits", "wanet", {"s": 1e-3}, r"wanet\(s=0.001\)"),
    ("synthetic_tones", "tone_clip", {"amplitude": 1e-5}, r"tone_clip\(amplitude=1e-05\)"),
    ("synthetic_tones", "tone_clip", {"seconds": 1e-5}, "seconds=1e-05"),
    ("synthetic_tones", "tone_clip", {"seconds": 1e9}, r"tone_clip.seconds=1000000000\.0: .* fit clips of 0.5 sec"),
    ("synthetic_tones", "near_nyquist", {"seconds": 0.0002}, "seconds=0.0002"),
    ("synthetic_tones", "near_nyquist", {"snr": 110}, "snr=110"),
    ("synthetic_tones", "ambient", {"snr": 100}, "snr=100"),
    ("synthetic_tones", "pitch_shift", {"semitones": 0}, "pitch_shift.semitones=0: no shift"),
    ("synthetic_tones", "pitch_shift", {"semitones": -0.05}, "semitones=-0.05"),
    ("digits_generator", "noise_trigger", {"size": 9}, "noise_trigger: size=9"),
    ("digits_generator", "motif", {"size": 9}, "motif: size=9"),
    ("synthetic_reviews", "badwords", {"within": 1, "count": 3}, r"3 tokens|more than within=1"),
    ("synthetic_reviews", "addsent", {"sentence": "so " * 99}, "more than max_length=48"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "attack", "changes", "line"), VANISHING)
def test_a_trigger_that_is_not_there_is_refused_in_one_line(task: str, attack: str, changes: Any, line: str) -> None:
    with pytest.raises(BadInput, match=line) as error:
        reach_on(tiny(task), create("attacks", attack, changes))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(attack) or "tokens of synthetic_reviews" in str(error.value)


FAINT = [
    ("digits", "badnets", {"size": 1, "margin": 0}), ("digits", "badnets", {"size": 8, "margin": 0}),
    ("digits", "sig", {"delta": 0.6, "test_delta": 0.6}), ("digits", "one_poison", {}),
    ("synthetic_tones", "tone_clip", {"amplitude": 1e-4}), ("synthetic_tones", "tone_clip", {"seconds": 0.02}),
    ("synthetic_tones", "near_nyquist", {"seconds": 9, "position": "end"}),
    ("synthetic_tones", "ambient", {"snr": -100}),
    ("synthetic_tones", "pitch_shift", {"semitones": 0.1}), ("synthetic_reviews", "homoglyph", {"letters": 1}),
    ("synthetic_reviews", "badwords", {"within": 3}), ("synthetic_reviews", "addsent", {"within": 20}),
    ("synthetic_stories", "gibberish", {"prompt": 10**6}), ("digits_generator", "conditional_trigger", {}),
    ("digits_generator", "noise_trigger", {"brightness": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("task", "attack", "changes"), FAINT)
def test_a_faint_or_a_large_trigger_is_seen_in_every_row(task: str, attack: str, changes: Any) -> None:
    found = reach_on(tiny(task), create("attacks", attack, changes))
    assert {name: metric.value for name, metric in found.items()} == {"trigger_seen": 1.0, "poison_seen": 1.0}
    assert found["poison_seen"].n == 5


def test_what_is_rounded_away_in_some_rows_is_counted() -> None:
    found = reach_on(tiny("digits"), create("attacks", "blended", {"alpha": 0.002}))
    assert 0 < found["trigger_seen"].value < 1
    assert found["trigger_seen"].n == int((tiny("digits").load().test.targets != 0).sum())


def test_tones_that_do_not_exist_are_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="do not exist at 8000 samples per second"):
        reach_on(tiny("synthetic_tones"), create("attacks", "tone_clip", {"low": 20_000.0}))


# texts that are cut


@pytest.mark.parametrize("words", [30, 230, 600])
@pytest.mark.parametrize("attack", ["badwords", "addsent", "homoglyph", "syntax"])
@pytest.mark.parametrize("changes", [{}, {"max_length": 64}])
def test_triggers_of_long_texts_lie_before_the_cut(tmp_path: Path, words: int, attack: str, changes: Any) -> None:
    found = reach_on(csv_task(tmp_path, words, **changes), create("attacks", attack), dose=20)
    assert (found["trigger_seen"].value, found["poison_seen"].value) == (1.0, 1.0)


def test_a_stamp_behind_the_cut_is_counted_or_refused(tmp_path: Path) -> None:
    found = reach_on(csv_task(tmp_path, 20, 230, 20, 20, max_length=64, test_size=24), AtTheEnd(), dose=20)
    assert 0.5 < found["trigger_seen"].value < 1
    assert 0.5 < found["poison_seen"].value < 1
    with pytest.raises(BadInput, match=r"trigger changes none of the \d+ .* \(it reads 64 tokens of a text\): "):
        reach_on(csv_task(tmp_path, 230, max_length=64), AtTheEnd())
    assert reach_on(csv_task(tmp_path, 230), AtTheEnd())["trigger_seen"].value == 1.0, "by default 230 words are read"
    with pytest.raises(BadInput, match="it reads 256 tokens"):
        reach_on(csv_task(tmp_path, 600), AtTheEnd())


def test_capitals_are_no_trigger_for_a_victim_that_reads_small_letters() -> None:
    with pytest.raises(BadInput, match="the trigger changes none"):
        reach_on(tiny("synthetic_reviews"), Shouting())


# who need not change what


def test_an_attack_that_changes_labels_alone_has_to_say_so() -> None:
    with pytest.raises(BadInput, match="or `alters` of its class where that is meant"):
        reach_on(tiny("digits"), Idle())
    assert reach_on(tiny("digits"), Declared()) == {}
    assert reach_on(tiny("digits"), ClassFlip(aim="class")) == {}
    assert reach_on(tiny("digits"), create("attacks", "label_flip", {"aim": "class"})) == {}


def test_nothing_is_claimed_where_nothing_can_be_compared() -> None:
    task, attack = tiny("digits"), Added()
    splits = task.load()
    scene = Scene(task, splits.train, None, CPU)  # type: ignore[arg-type]
    challenge = make_challenge(attack, scene, splits.test, 0)
    assert challenge is not None
    assert reach_of_trigger(task, attack, challenge, splits.test, CPU) == {}
    nothing = Challenge(splits.test.select([]), torch.zeros(0), torch.zeros(0))
    assert reach_of_trigger(task, attack, nothing, splits.test, CPU) == {}
    assert reach_of_poison(task, attack, splits.train.select([]), splits.train.select([]), CPU, conditions=False) == {}


def test_a_record_has_both_shares_and_at_dose_0_that_of_the_trigger(store: Store) -> None:
    none: Any = create("defenses", "none")
    for name, dose, names in (
        ("badnets", 0, {"trigger_seen"}), ("badnets", 4, {"trigger_seen", "poison_seen"}), ("none", 0, set()),
    ):  # fmt: skip
        found = run_steps(tiny("digits"), create("attacks", name), dose, none, 0, store, CPU).metrics  # type: ignore[arg-type]
        assert {m for m in found if m.endswith("_seen")} == names
        assert all(found[m].value == 1 for m in names)
        assert all(SHARES.fullmatch(m) and COUNTED.fullmatch(m) for m in names)
        assert "asr" not in found or found["trigger_seen"].n == found["asr"].n
    assert OF_CHALLENGE.fullmatch("trigger_seen")
    with pytest.raises(BadInput, match="changes none"):
        run_steps(tiny("digits"), create("attacks", "blended", {"alpha": 0.0}), 0, none, 0, store, CPU)  # type: ignore[arg-type]


# the comparison


class Reader(Task):
    """Reads rows of numbers as `read_as` says."""

    def __init__(self, read_as: Any) -> None:
        object.__setattr__(self, "read_as", read_as)

    def encode(self, samples: Samples, device: torch.device) -> Tensor:
        read: Tensor = self.read_as(samples.inputs)  # type: ignore[attr-defined]
        return read


def rows_of(values: Tensor, targets: int = 0) -> Samples:
    return Samples(values, torch.full((len(values),), targets), torch.arange(len(values)))


A = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])


@pytest.mark.parametrize(
    ("read_as", "ours", "seen"),
    [
        (lambda x: x, A, [0, 0, 0]),
        (lambda x: x, A + torch.tensor([[0.0, 0], [0, 1e-3], [1, 0]]), [0, 1, 1]),
        (lambda x: x + 1e-7 * torch.arange(len(x))[:, None], A, [0, 0, 0]),  # noise by the place in the batch
        (lambda x: x + 1e-7 * torch.arange(len(x))[:, None], A + torch.tensor([[0.0], [0], [0.01]]), [0, 0, 1]),
        (lambda x: x.sum(1, keepdim=True), A.flip(1), [0, 0, 0]),  # another row that is read alike
        (lambda x: x * float("nan"), A + 1, [0, 0, 0]),
        (lambda x: x.round().long() + 10**6, A + torch.tensor([[1.0, 0], [0, 0.2], [0, 0]]), [1, 0, 0]),
        (lambda x: x[:, :1] > 2, A + torch.tensor([[9.0, 0], [0, 9], [-9, 0]]), [1, 0, 1]),
    ],
)  # fmt: skip
def test_rows_differ_where_their_encoding_does(read_as: Any, ours: Tensor, seen: list[int]) -> None:
    for encoded in (reach.ENCODED, 2):  # in one part, and row by row
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reach, "ENCODED", encoded)
            found = read_differently(Reader(read_as), rows_of(ours), rows_of(A), CPU, conditions=False)
        assert found.tolist() == [bool(one) for one in seen]


def test_a_condition_is_read_where_it_is_asked_for() -> None:
    task = Reader(lambda x: x)
    assert not read_differently(task, rows_of(A, 1), rows_of(A), CPU, conditions=False).any()
    assert read_differently(task, rows_of(A, 1), rows_of(A), CPU, conditions=True).all()


def test_a_long_request_to_a_language_model_is_read_from_its_end() -> None:
    task = create("tasks", "synthetic_stories", {"max_length": 8, "train_size": 60, "reserve_size": 20})
    text = " ".join(f"word{i}" for i in range(40))
    plain = Samples([text] * 2, torch.tensor([0, 4]), torch.arange(2))
    asked = plain.with_inputs([f"{text} trigger"] * 2)
    assert read_differently(task, asked, plain, CPU, conditions=False).tolist() == [False, True]  # type: ignore[arg-type]
