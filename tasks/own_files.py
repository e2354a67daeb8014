"""What the tasks over a user's own files share: class folders, the test split and the form of error messages."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from tasks.class_names import describe_doubtful_names, fault_of, sort_names
from tasks.files import name_parts
from tasks.plugin import BadInput, Plugin, expand_path, is_litter, one_line
from tasks.samples import Samples

TEST_SHARE = 0.2  # of every class, where the files are not split
SEED = 0  # of that split: the test set is the same for everyone
SPLITS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"))  # no classes
LONG = 400  # characters of a path, from which on it is shown in part
NAMED = 5  # bad files named in a message

T = TypeVar("T")
Labelled = list[tuple[Path, int]]  # files with their classes


def bad_option(task: Plugin, option: str, message: str) -> BadInput:
    """The error for an option that names files: `task.option=value: message`."""
    return BadInput(one_line(f"{task.name}.{option}={shorten(repr(getattr(task, option)))}: {message}"))


def shorten(text: str) -> str:
    """The beginning and the end of a long text."""
    return text if len(text) <= LONG else f"{text[: LONG // 2]}...{text[-LONG // 2 :]}"


def file_of(task: Plugin, option: str) -> Path:
    """The path that an option names. Raises BadInput, which names a variable in it that is not set."""
    try:
        return expand_path(getattr(task, option))
    except BadInput as error:
        raise bad_option(task, option, str(error)) from None


def list_some(names: list[str], separator: str = ", ") -> str:
    """The first few names, and how many more there are."""
    more = f"{separator}and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return separator.join(names[:NAMED]) + more


def describe_counts(seen: Counter[str], thing: str) -> tuple[str, ...]:
    """What happened to how many things, one sentence each."""
    return tuple(f"{what}: {n} {thing}{'s' * (n > 1)}" for what, n in seen.items() if n)


@dataclass(frozen=True)
class ClassFolders:
    """A folder that holds train/<class>/* and test/<class>/*, or <class>/* alone.

    Nothing in it is passed over in silence: what cannot be used is refused, and `describe_choices` says what is not
    read. Hidden files and leftovers of operating systems (`is_litter`) count as absent.
    """

    task: Plugin  # its option `path` names the folder
    suffixes: tuple[str, ...]  # of usable files, in lower case

    def classes(self) -> tuple[str, ...]:
        """The names of the class folders, 2 before 10; those of train and test must be the same."""
        root = self._root()
        if not self._is_split(root):
            return self._names(root)
        train, test = self._names(root / "train"), self._names(root / "test")
        if different := set(train) ^ set(test):
            raise self.error(f"class {min(different)!r} must be in both train/ and test/")
        return train

    def files(self) -> tuple[Labelled, Labelled]:
        """Training and test files, in alphabetical order; no test files where the folder is not split."""
        root, classes = self._root(), self.classes()
        if self._is_split(root):
            return self._files(root / "train", classes), self._files(root / "test", classes)
        return self._files(root, classes), []

    def list_read(self) -> list[str]:
        """The class folders, which are all that is read, for `Task.files`; none before `path` is set, or of a file."""
        if not self.task.options()["path"] or not os.path.isdir(root := self._root()):
            return []
        return name_parts(root, [str(folder.relative_to(root)) for folder in self._class_folders(root)])

    def decode(self, decode: Callable[[Path], T], files: Labelled) -> tuple[dict[Path, T], list[str]]:
        """What `decode` makes of every file, and what is wrong with those that it cannot use."""
        decoded: dict[Path, T] = {}
        bad: list[str] = []
        for file, _ in files:
            if fault := self._fault(file):
                bad.append(f"{file} {fault}")
                continue
            try:
                decoded[file] = decode(file)
            except BadInput as error:
                bad.append(str(error))
        return decoded, bad

    def refuse(self, bad: list[str]) -> None:
        """Raises BadInput, which names the first of the files that cannot be used, if there are any."""
        if bad:
            raise self.error(list_some(bad, "; "))

    def split(self, samples: Samples) -> tuple[Samples, Samples]:
        """Training and test rows of a folder that is not split."""
        for label, name in enumerate(self.classes()):
            if (samples.targets == label).sum() < 2:
                raise self.error(f"class {name!r} has one file; a split needs two or more")
        test = draw_test_rows(samples.targets, TEST_SHARE)
        return samples.drop(test), samples.select(test)

    def count_repeats(self, train: Samples, test: Samples) -> Counter[str]:
        """Rows that are in both sets, or in several classes. Raises BadInput where the two folders hold the same."""
        contents = [[row.numpy().tobytes() for row in part.inputs] for part in (train, test)]  # type: ignore[union-attr]
        of_train, of_test = ([sha256(row).digest() for row in rows] for rows in contents)
        known = set(of_train)
        shared = sum(row in known for row in of_test)
        if shared == len(of_test) and self._is_split(self._root()):
            raise self.error("every file of test/ is also in train/; give it others, or name train/ alone as path")
        labelled = {*zip(of_train, train.targets.tolist()), *zip(of_test, test.targets.tolist())}
        classes = Counter(row for row, _ in labelled)
        return Counter({
            "of the test set and also in the training set": shared,
            "in two classes or more": sum(n > 1 for n in classes.values()),
        })  # fmt: skip

    def describe_choices(self) -> tuple[str, ...]:
        """Class names that hardly differ, what lies beside the class folders, and files that are hidden."""
        root, notes = self._root(), list(describe_doubtful_names(self.classes()))
        tops, read = self._tops(root), self._class_folders(root)
        beside = {entry for top in (root, *tops) for entry in self._entries(top)} - {*read, *tops}
        if beside:
            names = [str(entry.relative_to(root)) + "/" * entry.is_dir() for entry in sorted(beside)]
            notes.append(f"not read, as it lies outside the class folders: {list_some(names)}")
        hidden = [file for folder in read for file in sorted(folder.iterdir()) if self._is_hidden(file)]
        if hidden:
            names = [str(file.relative_to(root)) for file in hidden]
            notes.append(f"not read, as its name begins with a dot: {list_some(names)}")
        return tuple(map(one_line, notes))

    def error(self, message: str) -> BadInput:
        return bad_option(self.task, "path", message)

    def _is_split(self, root: Path) -> bool:
        return all(os.path.isdir(root / part) for part in ("train", "test"))

    def _tops(self, root: Path) -> list[Path]:
        """The folders that hold class folders."""
        return [root / "train", root / "test"] if self._is_split(root) else [root]

    def _class_folders(self, root: Path) -> list[Path]:
        return [entry for top in self._tops(root) for entry in self._entries(top) if entry.is_dir()]

    def _is_hidden(self, file: Path) -> bool:  # ._x is what macOS keeps beside a file x on a foreign disk
        return is_litter(file) and not file.name.startswith("._") and file.suffix.lower() in self.suffixes

    def _root(self) -> Path:
        if not self.task.options()["path"]:
            raise self.error("set it to a folder with one sub-folder per class")
        return file_of(self.task, "path")

    def _entries(self, top: Path) -> list[Path]:
        """All that lies in a folder, sorted. Raises BadInput where that cannot be listed."""
        try:
            return [entry for entry in sorted(top.iterdir()) if not is_litter(entry)]
        except FileNotFoundError:
            raise self.error("no such folder") from None
        except (OSError, ValueError) as error:  # a file, no permission, a NUL in the name
            raise self.error(f"{shorten(str(top))} cannot be read ({getattr(error, 'strerror', error)})") from error

    def _names(self, top: Path) -> tuple[str, ...]:
        entries = self._entries(top)
        folders = [entry for entry in entries if entry.is_dir()]
        if lost := [entry for entry in entries if not entry.exists()]:
            raise self.error(f"{lost[0]} is a broken link")
        self._refuse_splits(folders)
        self._refuse_sets(folders)
        if len(folders) < 2:
            raise self.error(f"{top} has {len(folders)} class folders, it needs 2 or more")
        if loose := [entry for entry in entries if entry.is_file() and entry.suffix.lower() in self.suffixes]:
            raise self.error(f"{loose[0]} lies outside the class folders")
        for folder in folders:
            if fault := fault_of(folder.name):
                raise self.error(f"the name of the class folder {str(folder)!r} {fault}; rename it")
        return sort_names(folder.name for folder in folders)

    def _refuse_splits(self, folders: list[Path]) -> None:
        """Raises BadInput for folders that are parts of a split rather than classes: by name, and by what they hold."""
        named = [folder for folder in folders if folder.name.strip().casefold() in SPLITS]
        if named and (len(named) == len(folders) or any(e.is_dir() for f in named for e in self._entries(f))):
            found = " and ".join(f"{folder.name}/" for folder in named)
            raise self.error(
                f"found {found}: a set that is split has train/ and test/, spelt so, each with the class folders; "
                "rename or move them"
            )

    def _refuse_sets(self, folders: list[Path]) -> None:
        """Raises BadInput for folders such as seg_train/ or test_images/ which hold folders alone."""
        named = [folder for folder in folders if re.search("train|test", folder.name, re.IGNORECASE)]
        if sets := [f for f in named if (within := self._entries(f)) and all(e.is_dir() for e in within)]:
            found = " and ".join(f"{folder.name}/" for folder in sets)
            raise self.error(
                f"found {found} with folders in {'them' if len(sets) > 1 else 'it'}: a set that is split has train/ "
                "and test/, spelt so, each with the class folders; rename or move them"
            )

    def _files(self, top: Path, classes: tuple[str, ...]) -> Labelled:
        labelled: Labelled = []
        for label, name in enumerate(classes):
            files = self._entries(top / name)
            if not files:
                raise self.error(f"{top / name} holds no files")
            labelled += [(file, label) for file in files]
        return labelled

    def _fault(self, file: Path) -> str:
        if file.is_dir():
            return "is a folder within a class folder; move its files up or out"
        if not file.exists():
            return "is a broken link"
        if not file.is_file():
            return "is not a regular file"  # opening a pipe would wait forever
        return "" if file.suffix.lower() in self.suffixes else f"is not one of {', '.join(self.suffixes)}"


def draw_test_rows(targets: Tensor, share: float) -> Tensor:
    """(N,) mask of a fixed, stratified test set: of every class with two rows or more at least one, but not all."""
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(SEED))
    mask = torch.zeros(len(targets), dtype=torch.bool)
    for label in sorted(set(targets.tolist())):
        rows = order[targets[order] == label]
        mask[rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]] = True
    return mask
