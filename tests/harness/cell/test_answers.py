"""What a model, a judge or a measure hands back: accepted and graded, or refused in one line that names who gave it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from helpers import tiny
from torch import Tensor

from defenses.base import Case, Defense
from defenses.controls.none import None_
from harness.cell.answers import ask
from harness.cell.metrics import grade_attack, grade_clean
from harness.cell.steps import run_steps
from harness.errors import Broken, BrokenDefense, BrokenTask, Diverged
from harness.plugins.registry import create
from harness.store.folder import Store
from harness.testing.checks import CPU, check_defense, check_task
from tasks.base import Task
from tasks.deployed import Ensemble, Guarded
from tasks.image.digits import Digits
from tasks.plugin import BadInput, options
from tasks.samples import Challenge, Outputs, Samples

N, K = 6, 10
NAN = float("nan")


@options
class Wrapper(Defense):
    """Its models answer what a test says."""

    modalities: ClassVar[tuple[str, ...]] = ("any",)


@options
class Spoiler(Wrapper):
    """Deploys the victim with one change to what it answers."""

    how: str = ""

    def defend(self, case: Case) -> Any:
        victim, train = case.fit(case.train), case.train
        if self.how == "scribble late":
            return Changed(victim, lambda _, outputs: scribble(train, outputs))
        return Changed(victim, CHANGES[self.how])


class Changed:
    def __init__(self, model: Any, change: Callable[[Samples, Outputs], Any]) -> None:
        self.model, self.change = model, change

    def predict(self, samples: Samples) -> Any:
        return self.change(samples, self.model.predict(samples))


def scribble(samples: Samples, outputs: Outputs) -> Outputs:
    samples.inputs[:] = 0  # type: ignore[index, call-overload]
    return outputs


def stumble(samples: Samples, outputs: Outputs) -> Outputs:
    raise KeyError("no such\nlayer")


CHANGES: dict[str, Callable[[Samples, Outputs], Any]] = {
    "scribble": scribble,
    "nan": lambda _, o: replace(o, scores=o.scores * NAN),
    "one row": lambda _, o: Outputs(o.scores[-1:], o.abstained[-1:]),
    "stumble": stumble,
}


def six(task: Task | None = None) -> Samples:
    return (task or tiny("digits")).load().test.select(range(N))


def good(**changes: Any) -> Outputs:
    scores = torch.eye(K)[:N].clone()
    return replace(Outputs(scores, torch.zeros(N, dtype=torch.bool)), **changes)


class Fixed:
    def __init__(self, outputs: Any) -> None:
        self.outputs = outputs

    def predict(self, samples: Samples) -> Any:
        return self.outputs


def answer(outputs: Any, defense: Defense | None, task: Task | None = None, samples: Samples | None = None) -> Outputs:
    return ask(task or tiny("digits"), Fixed(outputs), samples or six(), "six inputs", defense)


def nan_at(*rows: int) -> Tensor:
    scores = torch.eye(K)[:N].clone()
    scores[list(rows), -1] = NAN
    return scores


WRONG = [
    (None, "returned nothing; return a tasks.samples.Outputs"),
    ([good()], "returned a list"),
    (torch.eye(K)[:N], r"returned float32 \(6, 10\) in \[0, 1\]"),
    (good(scores=torch.ones(1, K)), r"scores are float32 \(1, 10\) in \[1, 1\], expected float32 \(6, 10\)"),
    (good(scores=torch.ones(0, K)), r"scores are float32 \(0, 10\), expected float32 \(6, 10\)"),
    (good(scores=torch.ones(N + 1, K)), r"scores are float32 \(7, 10\)"),
    (good(scores=torch.ones(N, K + 1)), r"\(6, 11\).*one column for each class"),
    (good(scores=torch.ones(N, K - 1)), r"scores are float32 \(6, 9\)"),
    (good(scores=torch.ones(N, 1)), r"scores are float32 \(6, 1\)"),
    (good(scores=torch.ones(N)), r"scores are float32 \(6,\)"),
    (good(scores=torch.tensor(0.5)), r"scores are float32 \(\)"),
    (good(scores=torch.ones(N, K, dtype=torch.int64)), r"scores are int64 \(6, 10\)"),
    (good(scores=torch.ones(N, K).double()), r"scores are float64 \(6, 10\)"),
    (good(scores=torch.ones(N, K).half()), r"scores are float16 \(6, 10\)"),
    (good(scores=torch.ones(N, K, dtype=torch.complex64)), r"scores are complex64 \(6, 10\)"),
    (good(scores=torch.ones(N, K).bool()), r"scores are bool \(6, 10\)"),
    (good(scores=torch.ones(N, K, device="meta")), r"scores are float32 \(6, 10\) on meta, expected .* on the CPU"),
    (good(scores=torch.ones(N, K).to_sparse()), r"scores are float32 \(6, 10\) on cpu, torch.sparse_coo"),
    (good(scores=torch.ones(N, K).numpy()), "scores are a ndarray"),
    (good(scores=[[1.0] * K] * N), "scores are a list"),
    (good(scores=None), "scores are nothing"),
    (good(scores=nan_at(2)), r"answers NaN for 1 of 6 inputs \(six inputs\)"),
    (good(scores=nan_at(*range(N))), "answers NaN for 6 of 6 inputs"),
    (good(scores=nan_at(0, 3) * 0 + nan_at(1)), "answers NaN for 3 of 6 inputs"),
    (good(scores=torch.full((N, K), float("inf"))), "answers infinity for 6 of 6 inputs"),
    (good(scores=nan_at(2), abstained=torch.ones(N, dtype=torch.bool)), "answers NaN for 1 of 6 inputs"),
    (good(abstained=torch.zeros(N)), r"abstained is float32 \(6,\) in \[0, 0\], expected bool \(6,\)"),
    (good(abstained=torch.zeros(N, dtype=torch.int64)), "abstained is int64"),
    (good(abstained=torch.zeros(N, 1, dtype=torch.bool)), r"abstained is bool \(6, 1\)"),
    (good(abstained=torch.zeros(1, dtype=torch.bool)), r"abstained is bool \(1,\)"),
    (good(abstained=False), "abstained is a bool"),
    (good(suspicion=torch.tensor([0.0, NAN, 1, 2, 3, NAN])), "suspicion is NaN for 2 of 6 inputs"),
    (good(suspicion=torch.zeros(N - 1)), r"suspicion is float32 \(5,\)"),
    (good(suspicion=torch.zeros(N, dtype=torch.bool)), "suspicion is bool"),
    (good(suspicion=[0.0] * N), "suspicion is a list"),
    (good(radius=torch.zeros(N)), r"radius is float32 \(6,\) in \[0, 0\], expected int64"),
    (good(radius=torch.tensor([1, 2, -1, 0, 0, 0])), "radius is -1 at its lowest"),
    (good(radius=torch.zeros(N + 1, dtype=torch.int64)), r"radius is int64 \(7,\)"),
]


@pytest.mark.parametrize(("outputs", "complaint"), WRONG)
def test_wrong_answers_name_the_defense(outputs: Any, complaint: str) -> None:
    with pytest.raises(BrokenDefense, match=rf"^test_answers[ :][^\n]*{complaint}[^\n]*$"):
        answer(outputs, Wrapper())


@pytest.mark.parametrize(
    "outputs",
    [
        good(),
        good(scores=torch.full((N, K), -3.0)),
        good(scores=torch.ones(N, K, requires_grad=True)),
        good(abstained=torch.ones(N, dtype=torch.bool)),
        good(suspicion=torch.tensor([0, 1, 2, float("inf"), -float("inf"), 3])),
        good(suspicion=torch.zeros(N, dtype=torch.float64)),
        good(radius=torch.arange(N)),
    ],
)
def test_right_answers_are_given_on_without_gradients(outputs: Outputs) -> None:
    found = answer(outputs, Wrapper())
    assert torch.equal(found.scores, outputs.scores)
    assert not any(value.requires_grad for value in vars(found).values() if isinstance(value, Tensor))


@pytest.mark.parametrize("defense", [None, None_()])
def test_a_victim_that_nobody_defends_is_named_with_its_recipe(defense: Defense | None) -> None:
    victim = r"^the victim of digits \(lr=0.01, epochs=1\)"
    with pytest.raises(Diverged, match=victim + r" answers NaN for 2 of 6 inputs \(six inputs\): training diverged"):
        answer(good(scores=nan_at(1, 4)), defense)
    with pytest.raises(BrokenTask, match=victim + r": predict\(six inputs, 6 inputs\): scores are float32 \(6, 9\)"):
        answer(good(scores=torch.ones(N, 9)), defense)


def test_a_model_that_raises_is_named_and_errors_that_mean_something_stay() -> None:
    class Raises(Fixed):
        def predict(self, samples: Samples) -> Any:
            raise self.outputs

    def asking(error: Exception) -> Outputs:
        return ask(tiny("digits"), Raises(error), six(), "six inputs", Wrapper())

    with pytest.raises(BrokenDefense, match=r"^test_answers: predict\(six inputs, 6 inputs\) raised KeyError: 'x'$"):
        asking(KeyError("x"))
    with pytest.raises(BadInput, match=r"^test_answers: predict\(six inputs, 6 inputs\): no threshold$"):
        asking(BadInput("no threshold"))
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), OSError(28, "")):
        with pytest.raises(type(error)) as found:
            asking(error)
        assert found.value is error


def test_a_model_may_not_load_the_test_set_to_answer() -> None:
    class Peeks:
        def predict(self, samples: Samples) -> Outputs:
            tiny("digits").load()
            return good()

    with pytest.raises(PermissionError, match="may not load data"):
        ask(tiny("digits"), Peeks(), six(), "six inputs", Wrapper())


def voting(*members: Any, **more: Any) -> Outputs:
    return ask(tiny("digits"), Ensemble([Fixed(member) for member in members], **more), six(), "six inputs", Wrapper())


@pytest.mark.parametrize(
    ("member", "complaint"),
    [
        (good(scores=nan_at(3)), r"model 1 of the 3 that vote answers float32 \(6, 10\) in \[nan, nan\]"),
        (good(scores=torch.full((N, K), float("inf"))), r"answers float32 \(6, 10\) in \[inf, inf\]"),
        (good(scores=torch.ones(N, K + 1)), r"answers float32 \(6, 11\)"),
        (Outputs(torch.ones(1, K), torch.zeros(1, dtype=torch.bool)), r"answers float32 \(1, 10\)"),
    ],
)
def test_a_vote_does_not_hide_what_is_no_answer(member: Outputs, complaint: str) -> None:
    with pytest.raises(BadInput, match=rf"^test_answers: predict\(six inputs, 6 inputs\): .*{complaint}"):
        voting(good(), member, good())


def test_where_nobody_votes_an_ensemble_abstains() -> None:
    silent = good(abstained=torch.tensor([True] * 2 + [False] * 4))
    found = voting(silent, silent, turned=2)
    assert found.abstained.tolist() == [True, True, False, False, False, False]
    assert found.answers.tolist() == [-1, -1, 2, 3, 4, 5]
    assert not voting(silent, good()).abstained.any()


@pytest.mark.parametrize(
    ("guard", "complaint"),
    [
        ({"screen": lambda s: torch.zeros(N), "threshold": NAN}, "threshold=nan: a guard with this threshold"),
        ({"screen": lambda s: torch.zeros(1)}, r"suspicion is float32 \(1,\)"),
        ({"screen": lambda s: torch.zeros(N, 1)}, r"abstained is bool \(6, 6\)"),
        ({"screen": lambda s: torch.full((N,), NAN)}, "suspicion is NaN for 6 of 6 inputs"),
        ({"screen": lambda s: None}, "raised TypeError"),
        ({"purify": lambda s: None}, "raised TypeError"),
        ({"purify": lambda s: s.select([0])}, "scores are"),
    ],
)
def test_a_guard_that_guards_nothing_is_named(guard: dict[str, Any], complaint: str) -> None:
    class Counts:
        def predict(self, samples: Samples) -> Outputs:
            return Outputs(torch.ones(len(samples), K), torch.zeros(len(samples), dtype=torch.bool))

    with pytest.raises((BrokenDefense, BadInput), match=rf"^test_answers: predict.*{complaint}"):
        ask(tiny("digits"), Guarded(Counts(), **guard), six(), "six inputs", Wrapper())


def test_a_generator_without_numbers_does_not_draw_black_pictures() -> None:
    task = tiny("digits_generator")
    network: Any = task.model()
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(NAN)
    with pytest.raises(BadInput, match=r"^the victim of digits_generator \(.*makes NaN or infinity of 2 of 2 requests"):
        ask(task, task.deploy(network, CPU), task.requests(task.load().test.select([0, 1])), "two requests")


def story(task: Task, content: Any, columns: int = 3) -> Outputs:
    return Outputs(torch.ones(2, columns), torch.zeros(2, dtype=torch.bool), content)


@pytest.mark.parametrize(
    ("content", "columns", "complaint"),
    [
        (["a", "b"], 2, r"scores are float32 \(2, 2\) in \[1, 1\], expected float32 \(2, 3\)"),
        (["a"], 3, "content is a list of 1, expected 2"),
        (None, 3, "content is nothing, expected 2"),
        (["a", None], 3, "inputs of content: row 1 is nothing, expected a str"),
        (torch.zeros(2, 4), 3, "inputs of content are float32"),
        ("ab", 3, "content is a str"),
    ],
)
def test_what_a_language_model_writes_is_checked(content: Any, columns: int, complaint: str) -> None:
    task = tiny("synthetic_stories")
    test = task.load().test.select([0, 1])
    answer(story(task, ["a", "b"]), Wrapper(), task, test)
    with pytest.raises(BrokenDefense, match=complaint):
        answer(story(task, content, columns), Wrapper(), task, test)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda x: x[:1], r"content is uint8 \(1, 1, 8, 8\)"),
        (lambda x: x.float() / 255, "a task for image_generation has uint8"),
        (lambda x: x[..., :4], "expected the shape of the requests"),
        (lambda x: x.float() * NAN, "NaN or infinite in 2 of 2 rows, the first is row 0"),
    ],
)
def test_what_a_generator_draws_is_checked(change: Callable[[Any], Any], complaint: str) -> None:
    task = tiny("digits_generator")
    test = task.load().test.select([0, 1])
    answer(story(task, test.inputs, 0), Wrapper(), task, test)
    with pytest.raises(BrokenDefense, match=complaint):
        answer(story(task, change(test.inputs), 0), Wrapper(), task, test)


# --- a task's judge and measures -----------------------------------------------------------------------------------


@options
class Judging(Digits):
    """Digits with a judge and measures of its own."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "gives", {})

    def judge(self, outputs: Outputs, challenge: Challenge, referee: Any = None) -> Any:
        return self.gives["judge"] if "judge" in self.gives else super().judge(outputs, challenge)  # type: ignore[attr-defined]

    def utility(self, outputs: Outputs, test: Samples, referee: Any = None) -> Any:
        return self.gives["utility"] if "utility" in self.gives else super().utility(outputs, test)  # type: ignore[attr-defined]

    def extra_metrics(self, outputs: Outputs, test: Samples, referee: Any = None) -> Any:
        return self.gives.get("extra", {})  # type: ignore[attr-defined]


def judging(**gives: Any) -> Judging:
    task = Judging(train_size=60, test_size=40, reserve_size=40, epochs=1)
    task.gives.update(gives)  # type: ignore[attr-defined]
    return task


BAD_MEASURES = [
    ({"utility": NAN}, "utility is nan; a measure must be a finite number"),
    ({"utility": float("inf")}, "utility is inf"),
    ({"utility": 1.5}, "utility returned 1.5, and accuracy lies in 0 to 1; name in `clean_metric`"),
    ({"utility": -0.1}, "utility returned -0.1"),
    ({"utility": 93}, "utility returned 93"),
    ({"utility": None}, "utility is nothing"),
    ({"utility": torch.tensor(0.5)}, r"utility is float32 \(\) in \[0.5, 0.5\]; give a float"),
    ({"utility": True}, "utility is a bool"),
    ({"utility": "0.5"}, "utility is a str"),
    ({"judge": torch.ones(N)}, r"judge returned float32 \(6,\) in \[1, 1\], expected bool \(6,\)"),
    ({"judge": torch.full((N,), NAN)}, "judge returned float32"),
    ({"judge": torch.ones(1, dtype=torch.bool)}, r"judge returned bool \(1,\)"),
    ({"judge": torch.ones(N, 1, dtype=torch.bool)}, r"judge returned bool \(6, 1\)"),
    ({"judge": [True] * N}, "judge returned a list"),
    ({"judge": True}, "judge returned a bool"),
    ({"extra": {"f1": NAN}}, "extra_metrics: f1 is nan"),
    ({"extra": {"f1": None}}, "extra_metrics: f1 is nothing"),
    ({"extra": {"asr": 0.0}}, "extra_metrics: 'asr' is the name of another metric"),
    ({"extra": {"utility": 1.0}}, "extra_metrics: 'utility' is the name"),
    ({"extra": {3: 1.0}}, "extra_metrics: 3 is the name"),
    ({"extra": [1.0]}, "extra_metrics returned a list"),
]


@pytest.mark.parametrize(("gives", "complaint"), BAD_MEASURES)
def test_a_measure_or_judge_that_means_nothing_names_the_task(gives: dict[str, Any], complaint: str) -> None:
    task, samples = judging(**gives), six()
    challenge = Challenge(samples, (samples.targets + 1) % K, samples.targets)
    grade = {"judge": grade_attack, "utility": grade_clean, "extra": grade_clean}[next(iter(gives))]
    with pytest.raises(BrokenTask, match=rf"^test_answers\.[^\n]*{complaint}[^\n]*$"):
        grade(task, good(), challenge if grade is grade_attack else samples)  # type: ignore[operator]


def test_check_finds_what_a_run_refuses(store: Store) -> None:
    check_task(judging())
    with pytest.raises(Broken, match="utility returned 7, and accuracy lies in 0 to 1"):
        check_task(judging(utility=7.0))
    with pytest.raises(Broken, match="extra_metrics: f1 is nan"):
        check_task(judging(extra={"f1": NAN}))
    with pytest.raises(Broken, match=r"judge returned a list"):
        check_task(judging(judge=[True] * 40))


def test_writing_on_the_training_set_while_answering_is_not_left_to_the_next_cell(store: Store) -> None:
    task, attack = tiny("digits"), create("attacks", "badnets")
    with pytest.raises(BrokenDefense, match=r"test_answers changed case\.train in place"):
        run_steps(task, attack, 2, Spoiler(how="scribble late"), 0, store, CPU)  # type: ignore[arg-type]
    run_steps(task, attack, 2, create("defenses", "oracle"), 0, store, CPU)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("nan", "answers NaN for 40 of 40 inputs"),
        ("one row", r"scores are float32 \(1, 10\)"),
        ("stumble", r"raised KeyError: 'no such\\nlayer'"),
        ("scribble", "changed the test set in place"),
    ],
)
def test_run_and_check_say_the_same(how: str, complaint: str, store: Store) -> None:
    task, attack = tiny("digits"), create("attacks", "badnets")
    before = task.load().test.fingerprint
    with pytest.raises(BrokenDefense, match=complaint):
        run_steps(task, attack, 2, Spoiler(how=how), 0, store, CPU)  # type: ignore[arg-type]
    with pytest.raises(Broken, match=rf"^test_answers[: ].*{complaint}"):
        check_defense(Spoiler(how=how), task)
    fresh = task.load().test
    assert Samples(fresh.inputs, fresh.targets, fresh.ids).fingerprint == before, "the next cell gets clean data again"
