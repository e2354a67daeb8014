"""Files: their content counts, through links, and nothing else; and a process forgets what it has read of others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from helpers import task_names

from harness.keys.content import digest
from harness.plugins.registry import create, load_class
from tasks import base
from tasks.base import Task
from tasks.caches import cached, forget
from tasks.data import dataset_dict, make_samples, read_once
from tasks.files import files_hash, fingerprint, read_from
from tasks.plugin import BadInput, FileName, NamesFiles, Plugin, expand_path, is_litter, options
from tasks.samples import Samples


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """data/a is a folder, data/b a link to one, data/a/2.txt a link to a file; beside them lies what they lead to."""
    data, real = tmp_path / "data", tmp_path / "real"
    (data / "a").mkdir(parents=True)
    (real / "b").mkdir(parents=True)
    for file in (data / "a" / "1.txt", real / "two", real / "b" / "3.txt"):
        file.write_text(file.name)
    (data / "a" / "2.txt").symlink_to(real / "two")
    (data / "b").symlink_to(real / "b")
    return tmp_path


def rewrite_unseen(file: Path, text: str) -> None:
    """Other content of the same size, with the times that the file had."""
    before = file.stat()
    assert len(file.read_text()) == len(text)
    file.write_text(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a file": lambda p: (p / "data/a/1.txt").write_text("x"),
    "behind a linked file": lambda p: (p / "real/two").write_text("x"),
    "behind a linked folder": lambda p: (p / "real/b/3.txt").write_text("x"),
    "of the same size and time": lambda p: rewrite_unseen(p / "data/a/1.txt", "9.txt"),
    "the same behind a link": lambda p: rewrite_unseen(p / "real/b/3.txt", "9.txt"),
    "a new file behind a link": lambda p: (p / "real/b/4.txt").write_text("x"),
    "an empty file": lambda p: (p / "data/a/0.txt").touch(),
    "a file's name": lambda p: (p / "data/a/1.txt").rename(p / "data/a/9.txt"),
    "a link's name": lambda p: (p / "data/b").rename(p / "data/c"),
    "a file gone": lambda p: (p / "data/a/1.txt").unlink(),
    "a link that leads nowhere": lambda p: (p / "data/a/5.txt").symlink_to(p / "gone"),
    "where a link leads": lambda p: (
        (p / "data/a/2.txt").unlink(),
        (p / "data/a/2.txt").symlink_to(p / "real/b/3.txt"),
    ),
    "a file replaced": lambda p: ((p / "new").write_text("9.txt"), os.replace(p / "new", p / "data/a/1.txt")),
}
NOTHING: dict[str, Callable[[Path], Any]] = {
    "a touched file": lambda p: os.utime(p / "data/a/1.txt", (1, 1)),
    "the same content again": lambda p: (p / "data/a/1.txt").write_text("1.txt"),
    ".DS_Store": lambda p: (p / "data/.DS_Store").write_bytes(b"\0"),
    "._1.txt": lambda p: (p / "data/a/._1.txt").write_bytes(b"\0"),
    "Thumbs.db": lambda p: (p / "data/a/Thumbs.db").write_bytes(b"\0"),
    "desktop.ini": lambda p: (p / "real/b/Desktop.ini").write_bytes(b"\0"),
    "__MACOSX": lambda p: ((p / "data/__MACOSX").mkdir(), (p / "data/__MACOSX/1.txt").write_text("x")),
    "a hidden folder": lambda p: ((p / "data/.cache").mkdir(), (p / "data/.cache/1.txt").write_text("x")),
    "an empty folder": lambda p: (p / "data/c").mkdir(),
    "a pipe": lambda p: os.mkfifo(p / "data/a/pipe"),
    "what lies beside it": lambda p: (p / "data.txt").write_text("x"),
    "a link in place of what it leads to": lambda p: (
        (p / "data/a/1.txt").rename(p / "real/1"), (p / "data/a/1.txt").symlink_to(p / "real/1")
    ),
    "a hard link in place of a file": lambda p: (
        os.link(p / "data/a/1.txt", p / "hard"), (p / "data/a/1.txt").unlink(), os.link(p / "hard", p / "data/a/1.txt")
    ),
    "a folder moved": lambda p: ((p / "data").rename(p / "moved"), (p / "data").symlink_to(p / "moved")),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_folder(classes: Path, change: str) -> None:
    before = files_hash(str(classes / "data"))
    CHANGES[change](classes)
    assert files_hash(str(classes / "data")) != before


@pytest.mark.parametrize("change", NOTHING)
def test_what_does_not(classes: Path, change: str) -> None:
    before = files_hash(str(classes / "data"))
    NOTHING[change](classes)
    assert files_hash(str(classes / "data")) == before


def test_links_that_lead_back_end(classes: Path) -> None:
    before = files_hash(str(classes / "data"))
    (classes / "data" / "a" / "up").symlink_to(classes / "data")
    (classes / "data" / "self").symlink_to("self")
    (classes / "real" / "b" / "here").symlink_to(classes / "real" / "b")
    found = files_hash(str(classes / "data"))
    assert found != before, "the linked folder has the files of b once more"
    rewrite_unseen(classes / "real" / "b" / "3.txt", "9.txt")
    assert files_hash(str(classes / "data")) != found


def test_a_file_that_cannot_be_read_is_named(classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: str, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(BadInput, match=r"1\.txt: cannot be read \(Permission denied\)"):
        files_hash(str(classes / "data"))


@pytest.mark.parametrize("path", ["nowhere", "x" * 5000, ""])
def test_what_is_no_path_names_no_file(path: str) -> None:
    assert create("tasks", "csv_text", {"path": path}).files() == []


def test_only_options_that_say_so_name_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plugins = [
        create("tasks", "csv_text", {"path": "rows.csv"}), create("tasks", "digits"), create("defenses", "onion"),
        create("tasks", "synthetic_reviews"), create("attacks", "addsent"), create("attacks", "badwords"),
        create("tasks", "synthetic_stories"), create("attacks", "steering"),
    ]  # fmt: skip
    Path("rows.csv").write_text("text,label\nx,a\ny,b\n")
    before = [digest(plugin) for plugin in plugins]
    for name in ("text", "label", "cnn", "digits", "transformer", "llama", "ngram", "standard", "cf", "drop", "none"):
        Path(name).mkdir()
        (Path(name) / "config.json").write_text("{}")
    Path("I watched this 3D movie last weekend.").write_text("x")
    assert [digest(plugin) for plugin in plugins] == before
    Path("rows.csv").write_text("text,label\nx,b\ny,a\n")
    assert [digest(plugin) == old for plugin, old in zip(plugins, before)] == [False, *[True] * 7]


@pytest.mark.parametrize(
    ("kind", "name", "option"),
    [
        ("tasks", "synthetic_reviews", "victim"), ("tasks", "synthetic_stories", "victim"),
        ("defenses", "onion", "lm"), ("defenses", "onion_input", "lm"),
    ],
)  # fmt: skip
def test_a_model_counts_by_content_where_its_folder_is(
    kind: str, name: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    here, home = create(kind, name, {option: "me/model"}), create(kind, name, {option: "~/me/model"})
    assert here.files() == [], "a name of the Hub"
    (tmp_path / "me" / "model").mkdir(parents=True)
    weights = tmp_path / "me" / "model" / "weights"
    weights.write_text("1")
    before = digest(here), digest(home)
    weights.write_text("2")
    assert digest(here) != before[0]
    assert digest(home) != before[1]


@options
class Nested(Plugin):
    """Names files in every way that a type allows."""

    one: FileName = ""
    some: tuple[FileName, ...] = ()
    perhaps: FileName | None = None
    model: Annotated[str, NamesFiles(besides=("small",))] = "small"
    words: str = ""


def test_names_in_tuples_and_options_that_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c", "small", "word"):
        Path(name).write_text(name)
    assert Nested().files() == []
    named = Nested(one="a", some=("b", "gone", "c"), perhaps="a", words="word")
    assert named.files() == ["a", "b", "c", "a"]
    assert Nested(model="small", words="small").files() == []
    with pytest.raises(BadInput, match=r"test_files\.some='\$NOWHERE_AT_ALL/x': the .* \$NOWHERE_AT_ALL is not set"):
        Nested(some=("a", "$NOWHERE_AT_ALL/x")).files()


def test_a_path_as_users_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("PICTURES", "/media/pictures")
    assert expand_path("~/x") == Path("/home/me/x")
    assert expand_path("$PICTURES/a") == expand_path("${PICTURES}/a") == Path("/media/pictures/a")
    assert expand_path("a/b") == Path("a/b")
    with pytest.raises(BadInput, match=r"^the environment variable \$GONE is not set"):
        expand_path("${GONE}/x")
    Path("cost$us.csv").touch()
    assert expand_path("cost$us.csv") == Path("cost$us.csv"), "a file may have such a name"


def test_litter_is_what_no_reader_looks_at() -> None:
    assert all(is_litter(Path(name)) for name in (".DS_Store", "a/._b.png", "Thumbs.db", "Desktop.ini", "__MACOSX"))
    assert not any(is_litter(Path(name)) for name in ("a.png", ".hidden/a.png", "thumbs.db.png", "_a"))


def films(*words: str) -> str:
    """A CSV file with twenty texts for each word, and a class for each: a, b, ..."""
    rows = [f"{word} film {i:02d},{label}" for i in range(20) for word, label in zip(words, "abc")]
    return "\n".join(["text,label", *rows])


def test_one_process_reads_a_rewritten_file_again(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text(films("good", "bad"))
    task: Any = create("tasks", "csv_text", {"path": str(table), "reserve_size": 4})
    before = task.load()
    assert task.load() is before
    rewrite_unseen(table, films("bad", "good"))
    after = task.load()
    assert {(t[:4], int(y)) for t, y in zip(after.train.inputs, after.train.targets)} == {("bad ", 0), ("good", 1)}
    table.write_text(films("good", "bad", "no"))
    assert task.classes == ("a", "b", "c")
    assert len(task.load().train) > len(after.train)
    table.unlink()
    with pytest.raises(BadInput, match="No such file"):
        task.load()


def test_another_folder_of_the_same_name_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, words in {"one": "good", "two": "fine"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.csv").write_text(films(words, "bad"))
    task: Any = create("tasks", "csv_text", {"path": "rows.csv", "reserve_size": 4})
    found = []
    for folder in ("one", "two"):
        monkeypatch.chdir(tmp_path / folder)
        found.append({text[:4] for text in task.load().train.inputs})
    assert found == [{"good", "bad "}, {"fine", "bad "}]


def test_what_is_kept_is_forgotten_at_once() -> None:
    calls: list[int] = []

    @cached(maxsize=2)
    def double(x: int) -> int:
        calls.append(x)
        return 2 * x

    assert [double(1), double(1)] == [2, 2]
    forget()
    assert double(1) == 2
    assert calls == [1, 1]


def published() -> list[str]:
    return [name for name in task_names() if load_class("tasks", name).dataset != "embedded"]  # type: ignore[attr-defined]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A TINYDROP_DATA with SMS messages and news, and a cache of `datasets` of its own."""
    import datasets

    monkeypatch.setenv("TINYDROP_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_messages(tmp_path / "data", "sms_spam", "hello")
    write_messages(tmp_path / "data", "ag_news", "hello")
    return tmp_path / "data"


def write_messages(root: Path, folder: str, word: str) -> Path:
    from datasets import Dataset

    (root / folder).mkdir(parents=True, exist_ok=True)
    rows = {"sms": [f"{word} {i:03d}" for i in range(600)], "label": [i % 2 for i in range(600)]}
    file = root / folder / "train-0.parquet"
    Dataset.from_dict(rows).to_parquet(str(file))
    return file


def test_published_data_counts_and_is_read_again(data: Path) -> None:
    task: Any = create("tasks", "sms_spam")
    before, rows = digest(task), task.load().train
    assert rows.inputs[0].startswith("hello")
    write_messages(data, "ag_news", "other")
    assert digest(task) == before, "another data set"
    file = data / "sms_spam" / "train-0.parquet"
    stat = file.stat()
    write_messages(data, "sms_spam", "howdy")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digest(task) != before
    assert task.load().train.inputs[0].startswith("howdy"), "not what `datasets` keeps of a file of this time"
    write_messages(data, "sms_spam", "hello")
    assert digest(task) == before
    assert task.load().train.fingerprint == rows.fingerprint


@pytest.mark.parametrize("name", published())
def test_a_published_task_names_the_folder_that_it_reads(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Also the tasks that are made of one."""
    from tasks import data as readers

    read: list[str] = []

    def local_folder(folder: str) -> None:
        read.append(folder)
        raise BadInput("enough")

    monkeypatch.setattr(readers, "local_folder", local_folder)
    monkeypatch.setenv("TINYDROP_DATA", str(tmp_path))
    forget()
    task: Any = create("tasks", name)
    with pytest.raises(BadInput, match="enough"):
        task.read()
    for folder in read:
        (tmp_path / folder).mkdir()
    assert read
    assert {Path(file).name for file in task.files()} == set(read) == {task.folder}
    forget()


@options
class Undeclared(Task):
    """Reads a folder that it does not name."""

    classes = ("a", "b")
    reserve_size: int = 2

    def read(self) -> tuple[Samples, Samples]:
        split = dataset_dict("nobody/nothing", "sms_spam")["train"]
        import torch

        samples = make_samples(list(split["sms"]), torch.tensor(split["label"]))
        return samples, samples


def test_a_folder_that_a_task_does_not_name_is_refused(data: Path) -> None:
    task = Undeclared()
    with pytest.raises(
        BadInput, match="reads the folder 'sms_spam' of TINYDROP_DATA; set folder: ClassVar = 'sms_spam'"
    ):
        task.load()
    assert data / "sms_spam" in read_from


def test_files_that_change_while_they_are_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "rows.csv"
    table.write_text(films("good", "bad"))
    task: Any = create("tasks", "csv_text", {"path": str(table), "reserve_size": 4})
    read = base._read_declared

    def read_slowly(task: Task) -> tuple[Samples, Samples]:
        found = read(task)
        table.write_text("text,label\n" + "good film,b\nbad film,a\n" * 20)
        return found

    monkeypatch.setattr(base, "_read_declared", read_slowly)
    with pytest.raises(BadInput, match="csv_text: its files changed while they were read"):
        task.load()


def test_the_order_of_files_counts(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("a")
    b.write_text("b")
    assert fingerprint([str(a), str(b)]) != fingerprint([str(b), str(a)])
    assert fingerprint([str(a)]) != fingerprint([])


def test_what_comes_of_published_data_is_kept(data: Path) -> None:
    task: Any = create("tasks", "sms_spam")
    assert read_once(task) is read_once(create("tasks", "sms_spam"))
