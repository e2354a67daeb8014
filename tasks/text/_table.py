"""A CSV file as rows of text and label: every record as it is written, or a refusal that names the row."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.class_names import fault_of, fold_name, sort_names

BEGINNINGS = {  # of files that are no CSV file in UTF-8, and what they are
    b"\xff\xfe": "UTF-16 or UTF-32 text", b"\xfe\xff": "UTF-16 or UTF-32 text", b"PK\x03\x04": "a zip or Excel file",
    b"\xd0\xcf\x11\xe0": "an Excel file", b"\x1f\x8b": "a gzip file", b"PAR1": "a Parquet file",
}  # fmt: skip
DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
LONGEST = 2**31 - 1  # characters of a field: what a C long holds everywhere
FEW = 10  # rows, from which on a label for every other row is no class


@dataclass(frozen=True)
class Table:
    """rows: text and label of every record, the label without spaces around it. labels: the distinct ones, in order.

    seen: what was found in how many rows, for the notes. sources: who delivered each row, () where no column says.
    """

    rows: tuple[tuple[str, str], ...]
    labels: tuple[str, ...]
    seen: tuple[tuple[str, int], ...]
    sources: tuple[str, ...] = ()


@contextmanager
def _long_fields() -> Iterator[None]:
    """Fields of up to LONGEST characters. The limit is one for the whole process, and others may count on theirs."""
    usual = csv.field_size_limit(LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(usual)


@_long_fields()
def read_table(path: Path, text: str, label: str, source: str = "") -> Table:
    """The columns named `text`, `label` and, where it is named, `source`.

    Raises OSError, or ValueError that says what is wrong, and in which row. The first row after the header is row 1;
    blank lines do not count.
    """
    records = _records(_as_text(path.read_bytes()))
    header = next(records, None)
    if header is None:
        raise ValueError("the file is empty")
    at_text, at_label, at_source = (_find(header, name) if name else -1 for name in (text, label, source))
    rows: list[tuple[str, str]] = []
    sources: list[str] = []
    seen: Counter[str] = Counter()
    for number, record in enumerate(records, 1):
        _check(record, header, number)
        rows.append((record[at_text], record[at_label].strip()))
        if not rows[-1][0].strip():
            raise ValueError(f"row {number} has no text in column {text!r}")
        if not rows[-1][1]:
            raise ValueError(f"row {number} has no label in column {label!r}")
        if fault := fault_of(rows[-1][1]):
            raise ValueError(f"row {number}: the label {rows[-1][1]!r} {fault}")
        if source:
            sources.append(record[at_source].strip())
            if not sources[-1]:
                raise ValueError(f"row {number} has no source in column {source!r}")
        seen["label has spaces around it, which are cut off"] += record[at_label] != rows[-1][1]
        seen["text has the sign \ufffd, which stands for letters lost in another program"] += "\ufffd" in rows[-1][0]
    if not rows:
        raise ValueError("there is a header, and no row after it")
    return Table(tuple(rows), sort_names(label for _, label in rows), tuple(seen.items()), tuple(sources))


def refuse_values(table: Table, column: str) -> None:
    """Raises ValueError where the labels found are no classes: numbers, names or ids of single rows."""
    rows, labels = len(table.rows), len(table.labels)
    if rows >= FEW and labels > rows / 2:
        raise ValueError(
            f"column {column!r} has {labels} different labels in {rows} rows, such as {table.labels[0][:40]!r}; "
            "that is no column of classes (if it is, list them in labels=)"
        )


def _as_text(data: bytes) -> str:
    for beginning, what in BEGINNINGS.items():
        if data.startswith(beginning):
            raise ValueError(f"this is {what}; save it as CSV in UTF-8")
    if (at := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise ValueError(f"line {line} holds a NUL byte: the file is damaged, or in another encoding than UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = f"byte {data[error.start]:#04x} in line {line}"
        raise ValueError(f"{byte} is not UTF-8: the file has another encoding; save it as UTF-8") from None


def _records(text: str) -> Iterator[list[str]]:
    """Every record but blank lines."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        yield from (record for record in reader if record)
    except csv.Error as error:
        hint = "" if "field limit" in str(error) else "; a quote within a quoted text is written twice"
        raise ValueError(f"line {reader.line_num}: {error}{hint}") from None


def _find(header: list[str], column: str) -> int:
    """The position of a column."""
    named = [name for name in header if name.strip()]
    if repeated := [name for name in named if named.count(name) > 1]:
        raise ValueError(f"the header has column {repeated[0]!r} twice")
    if column in header:
        return header.index(column)
    hint = ""
    for delimiter, what in DELIMITERS.items():
        if delimiter in "".join(header):
            hint = f"; the fields seem to be separated by {what}, where commas are needed"
    alike = [name for name in header if fold_name(name) == fold_name(column)]
    if alike and not hint:
        hint = f"; set the option to {alike[0]!r}"
    raise ValueError(f"column {column!r} is missing, it has {', '.join(header)}{hint}")


def _check(record: list[str], header: list[str], number: int) -> None:
    """Raises ValueError for a record that is the header again, or has more or fewer fields than that."""
    if [field.strip() for field in record] == [field.strip() for field in header]:
        raise ValueError(f"row {number} is the header again")
    counts = f"{len(record)} field{'s' * (len(record) > 1)} where the header has {len(header)}"
    if len(record) < len(header):
        raise ValueError(f"row {number} has no {header[len(record)]}: {counts}")
    if len(record) > len(header):
        raise ValueError(f"row {number} has {counts}; a text with a comma in it needs quotes around it")
