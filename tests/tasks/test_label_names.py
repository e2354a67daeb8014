"""Names of classes: their order, names that cannot be, and names that look alike."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.class_names import describe_doubtful_names, fault_of, sort_names


@pytest.mark.parametrize(
    "ordered",
    [
        tuple(map(str, range(12))),
        ("-10", "-9", "0", "0.5", "3", "20", "1e3"),
        ("img1", "img2", "img10", "img10b"),
        ("1", "2", "10", "a"),
        ("A", "B", "a"),
        ("v1.2", "v1.10", "v2.0"),
        ("", "x" + "1" * 5000, "x" + "2" * 5000),  # more digits than int() takes
        ("9" * 5000, "1" + "0" * 5000),
        ("nan", "x"),
    ],
)
def test_names_are_in_the_order_of_their_numbers(ordered: tuple[str, ...]) -> None:
    assert sort_names(reversed(ordered)) == sort_names(ordered * 2) == ordered


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.lists(st.text("019.-eE+ab \u0663\xb2", max_size=6)))
def test_any_names_have_one_order(names: list[str]) -> None:
    assert sort_names(names) == sort_names(sorted(names, key=hash))
    assert sorted(sort_names(names)) == sorted(set(names))
    describe_doubtful_names(names)


@pytest.mark.parametrize(
    "pair",
    [
        ("spam", "Spam"), ("spam", " spam"), ("spam", "spam\xa0"), ("spam", "sp\u200bam"), ("spam", "\ufeffspam"),
        ("caf\xe9", "cafe\u0301"), ("new york", "newyork"), ("stra\xdfe", "STRASSE"), ("1", "1.0"), ("1", "01"),
        ("\uff41", "a"), ("\ufb01sh", "fish"), ("+1", "1"), ("10", "1e1"), ("a\u00adb", "ab"),
        ("\u2764", "\u2764\ufe0f"),
    ],
)  # fmt: skip
def test_names_that_look_alike_are_told_apart_in_a_note(pair: tuple[str, str]) -> None:
    (note,) = describe_doubtful_names(["other", *pair])
    first, second = note.removeprefix("classes ").split(" differ in ")[0].split(", ")
    assert first != second
    assert note.isprintable()


def test_names_that_differ_are_left_alone() -> None:
    names = ["a", "b", "\xe9", "e", "1", "1.5", "10", "C", "C++", "\u732b", "1" * 40, "1" * 39 + "2", "+", "-"]
    assert describe_doubtful_names(names) == ()


@pytest.mark.parametrize("name", ["nan", "NaN", "None", "null", "N/A"])
def test_a_name_for_nothing_is_said(name: str) -> None:
    assert describe_doubtful_names([name, "x"]) == (f"class {name!r}: other programs write this for a missing label",)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("spam", ""), ("\u732b", ""), ("0", ""), ("-", ""), ("", "is blank"), (" \t", "holds a control character"),
        ("\u3000", "is blank"), ("\u200b\ufeff", "is blank"), ("\u3164", "is blank"), ("a\nb", "holds a control"),
        ("\udce9", "is not valid UTF-8"), ("a\x7f", "holds a control"),
    ],
)  # fmt: skip
def test_names_that_cannot_be(name: str, fault: str) -> None:
    assert fault_of(name).startswith(fault)
    assert bool(fault_of(name)) == bool(fault)
