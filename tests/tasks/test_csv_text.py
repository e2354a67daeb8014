"""A CSV file of your own: every record as it is written, or a refusal that names the row."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from harness.plugins.registry import create
from tasks.plugin import BadInput
from tasks.text import _table
from tasks.text.csv_text import CsvText

ROWS = [f"text number {i} is here,{('neg', 'pos')[i % 2]}" for i in range(40)]


def task_of(path: Path | str, **options: object) -> CsvText:
    task = create("tasks", "csv_text", {"path": str(path), "reserve_size": 2, **options})
    assert isinstance(task, CsvText)
    return task


def write(path: Path, *rows: str, header: str = "text,label") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def complaint(task: CsvText, option: str = "path") -> str:
    with pytest.raises(BadInput) as caught:
        task.read()
    message = str(caught.value)
    assert message.startswith(f"csv_text.{option}=")
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*ROWS[:3], "text number 3 , well, here,pos", *ROWS[4:]],
         "row 4 has 4 fields where the header has 2; a text with a comma in it needs quotes around it"),
        ([*ROWS[:20], "text,label", *ROWS[20:]], "row 21 is the header again"),
        ([*ROWS[:20], " text , label", *ROWS[20:]], "row 21 is the header again"),
        ([*ROWS, "no label at all"], "row 41 has no label: 1 field where the header has 2"),
        ([*ROWS, "   "], "row 41 has no label: 1 field"),
        ([*ROWS, "a,pos,"], "row 41 has 3 fields"),
        ([*ROWS, '" ",pos'], "row 41 has no text in column 'text'"),
        ([*ROWS, "a, "], "row 41 has no label in column 'label'"),
        ([*ROWS, "a,\u200b"], "row 41: the label '\\u200b' is blank"),
        ([*ROWS, 'a,"po\ns"'], "row 41: the label 'po\\ns' holds a control character"),
        ([*ROWS, '"said "hi" to me",pos'], "line 42: ',' expected after '\"'; a quote within a quoted text is"),
        ([*ROWS, '"open,pos'], "unexpected end of data"),
        ([*ROWS, "a\0b,pos"], "line 42 holds a NUL byte"),
        ([f"text {i},{i / 7:.3f}" for i in range(60)], "column 'label' has 60 different labels in 60 rows, such as"),
        ([f"text {i},id{i // 2 * 2 + i % 3 % 2}" for i in range(30)], "that is no column of classes"),
        ([], "there is a header, and no row after it"),
        (["", "  "][:1], "there is a header, and no row after it"),
        (["a,1", "b,1"], "1 labels in 'label', at least 2 needed"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_right_are_named(tmp_path: Path, rows: list[str], said: str) -> None:
    assert said in complaint(task_of(write(tmp_path / "a.csv", *rows)))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("text,label,text", "the header has column 'text' twice"),
        ("review,label", "column 'text' is missing, it has review, label"),
        ("text;label", "the fields seem to be separated by semicolons, where commas are needed"),
        ("text\tlabel", "separated by tabs"),
        ("text|label", "separated by bars"),
        ("text, Label", "column 'label' is missing, it has text,  Label; set the option to ' Label'"),
    ],
)
def test_headers_that_cannot_be_right(tmp_path: Path, header: str, said: str) -> None:
    assert said in complaint(task_of(write(tmp_path / "a.csv", *ROWS, header=header)))


BODY = "text,label\n" + "\n".join(ROWS).replace("here", "caf\xe9")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"\n\n\n", "the file is empty"),
        (BODY.encode("latin-1"), "byte 0xe9 in line 2 is not UTF-8: the file has another encoding; save it as UTF-8"),
        (BODY.encode("cp1252"), "is not UTF-8"),
        (BODY.encode("utf-16"), "this is UTF-16 or UTF-32 text; save it as CSV in UTF-8"),
        (BODY.encode("utf-16-be"), "line 1 holds a NUL byte"),
        (BODY.encode("utf-32"), "this is UTF-16 or UTF-32 text"),
        (b"PK\x03\x04 and more", "this is a zip or Excel file"),
        (b"\x1f\x8b and more", "this is a gzip file"),
        (b"PAR1 and more", "this is a Parquet file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_are_no_csv_in_utf_8(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    assert said in complaint(task_of(tmp_path / "a.csv"))


def test_paths_that_are_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "this is a folder" in complaint(task_of(tmp_path))
    assert "No such file" in complaint(task_of(tmp_path / "none.csv"))
    with pytest.raises(BadInput, match="not in UTF-8"):
        task_of("a\0b")
    assert "the environment variable $NOWHERE_AT_ALL is not set" in complaint(task_of("$NOWHERE_AT_ALL/a.csv"))
    empty, good = write(tmp_path / "empty.csv"), write(tmp_path / "a.csv", *ROWS)
    assert "there is a header, and no row" in complaint(task_of(good, test_path=str(empty)), "test_path")
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "b.csv", *ROWS[:30])
    for home in ("~", "$HOME"):
        assert len(task_of(f"{home}/a.csv", test_path=f"{home}/b.csv").read()[1]) == 30


@pytest.mark.parametrize(
    ("labels", "said"),
    [(("pos", "neg", "pos"), "labels=.*'pos' is listed twice"), (("pos", "pos "), "'pos' is listed twice"),
     (("pos", "neg", " "), "labels=.*' ' is blank"), (("pos", "other"), "row 1 has label 'neg', valid: pos, other")],
)  # fmt: skip
def test_labels_that_cannot_be(tmp_path: Path, labels: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        task_of(write(tmp_path / "a.csv", *ROWS), labels=labels).read()


def test_one_column_cannot_be_both(tmp_path: Path) -> None:
    assert "the same as text_column" in complaint(
        task_of(write(tmp_path / "a.csv", *ROWS), label_column="text"), "label_column"
    )


def test_a_label_for_every_row_may_be_meant(tmp_path: Path) -> None:
    path, test = (write(tmp_path / f"{part}.csv", *(f"{part} {i},{i}" for i in range(12))) for part in "ab")
    assert len(task_of(path, labels=tuple(map(str, range(12))), test_path=str(test)).read()[0]) == 12


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ([str(i) for i in range(12)], [str(i) for i in range(12)]),
        (["1", "-1", "0"], ["-1", "0", "1"]),
        (["1.5", "1.25", "10"], ["1.25", "1.5", "10"]),
        (["b", "a10", "a2", "a"], ["a", "a2", "a10", "b"]),
    ],
)
def test_labels_are_in_the_order_of_their_numbers(tmp_path: Path, labels: list[str], order: list[str]) -> None:
    path = write(tmp_path / "a.csv", *(f"text {i} {label},{label}" for label in labels for i in range(4)))
    assert task_of(path).classes == tuple(order)


def test_texts_are_as_they_are_written(tmp_path: Path) -> None:
    texts = ["one, two", 'she said "hi"', "two\nlines", "\r\nspaces  ", "caf\xe9 \u732b", "=1+1", "NA", "null", "-1"]
    for name, column in (("a.csv", "id"), ("b.csv", "number")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file)
            writer.writerows([[column, "text", "label"], *([i, text, i % 2] for i, text in enumerate(texts))])
    train, test = task_of(tmp_path / "a.csv", test_path=str(tmp_path / "b.csv")).read()
    assert train.inputs == test.inputs == texts
    assert train.targets.tolist() == [i % 2 for i in range(9)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_blank_lines_and_line_ends_do_not_count(tmp_path: Path, end: str) -> None:
    lines = ["", "text,label", "", *ROWS[:20], "", "", *ROWS[20:], ""]
    (tmp_path / "a.csv").write_bytes(end.join(lines).encode())
    train, test = task_of(tmp_path / "a.csv").read()
    assert len(train) + len(test) == 40
    assert task_of(tmp_path / "a.csv").describe_choices(train) == ()


def test_what_was_decided_is_said(tmp_path: Path) -> None:
    rows = [*ROWS, "a, pos", "b,pos ", "c,Pos", "d\ufffd,neg", "e,nan"]
    task = task_of(write(tmp_path / "a.csv", *rows))
    assert task.describe_choices(task.read()[0]) == (
        "classes 'Pos', 'pos' differ in case, spaces, invisible characters or spelling of a number only",
        "class 'nan': other programs write this for a missing label",
        "label has spaces around it, which are cut off: 2 rows",
        "text has the sign \ufffd, which stands for letters lost in another program: 1 row",
    )


def test_test_texts_that_are_training_texts_are_counted(tmp_path: Path) -> None:
    test = write(tmp_path / "test.csv", "New one,pos", "Word  0,pos", "word 2,neg", "both,pos", "word 5,neg")
    path = write(tmp_path / "a.csv", *(f"word {i},{('pos', 'neg')[i % 2]}" for i in range(20)), "both,pos", "BOTH,neg")
    task = task_of(path, test_path=str(test))
    assert task.describe_choices(task.read()[0])[:2] == (
        "text of test_path is also in path (case and spaces aside): 4 rows",
        "text of test_path is in path with another label only: 1 row",
    )


def test_the_training_file_is_no_test_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", *ROWS)
    for name in ("a.csv", "copy.csv"):
        test = tmp_path / name
        test.write_bytes(path.read_bytes())
        said = complaint(task_of(path, test_path=str(test)), "test_path")
        assert "the same content as path; leave it out to hold out a fifth" in said


def test_a_text_may_be_of_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, long = csv.field_size_limit(), "word " * 40_000
    path = write(tmp_path / "a.csv", f'"{long}",pos', *ROWS)
    train, test = task_of(path).read()
    assert long in [*train.inputs, *test.inputs]
    assert csv.field_size_limit() == usual, "it is the whole process's"
    monkeypatch.setattr(_table, "LONGEST", 1000)
    said = complaint(task_of(write(tmp_path / "b.csv", *ROWS, f'"{long}",pos')))
    assert said.endswith("line 42: field larger than field limit (1000)"), "no hint at quotes"
    assert csv.field_size_limit() == usual


def test_the_header_is_looked_at_before_the_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text;label\n"one";pos\n')
    assert "separated by semicolons" in complaint(task_of(tmp_path / "a.csv"))
