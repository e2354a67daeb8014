"""What the tasks over a user's own files share: class folders, the test split and the form of error messages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tasks.plugin import BadInput, Plugin, expand_path
from tasks.samples import Samples

TEST_SHARE = 0.2  # of every class, where the files are not split
SEED = 0  # of that split: the test set is the same for everyone

Labelled = list[tuple[Path, int]]  # files with their classes


def bad_option(task: Plugin, option: str, message: str) -> BadInput:
    """The error for an option that names files: `task.option=value: message`."""
    return BadInput(f"{task.name}.{option}={getattr(task, option)!r}: {message}")


@dataclass(frozen=True)
class ClassFolders:
    """A folder that holds train/<class>/* and test/<class>/*, or <class>/* alone. Hidden files are left alone."""

    task: Plugin  # its option `path` names the folder
    suffixes: tuple[str, ...]  # of usable files, in lower case

    def classes(self) -> tuple[str, ...]:
        """The names of the class folders, sorted; those of train and test must be the same."""
        root = self._root()
        if not self._is_split():
            return self._names(root)
        train, test = self._names(root / "train"), self._names(root / "test")
        if different := set(train) ^ set(test):
            raise self.error(f"class {min(different)!r} must be in both train/ and test/")
        return train

    def files(self) -> tuple[Labelled, Labelled]:
        """Training and test files, in alphabetical order; no test files where the folder is not split."""
        root = self._root()
        if self._is_split():
            return self._files(root / "train"), self._files(root / "test")
        return self._files(root), []

    def check_suffix(self, file: Path) -> None:
        if file.suffix.lower() not in self.suffixes:
            raise BadInput(f"{file} is not one of {', '.join(self.suffixes)}")

    def split(self, samples: Samples) -> tuple[Samples, Samples]:
        """Training and test rows of a folder that is not split."""
        for label, name in enumerate(self.classes()):
            if (samples.targets == label).sum() < 2:
                raise self.error(f"class {name!r} has one file; a split needs two or more")
        test = draw_test_rows(samples.targets, TEST_SHARE)
        return samples.drop(test), samples.select(test)

    def error(self, message: str) -> BadInput:
        return bad_option(self.task, "path", message)

    def _is_split(self) -> bool:
        return all((self._root() / part).is_dir() for part in ("train", "test"))

    def _root(self) -> Path:
        path = self.task.options()["path"]
        if not path:
            raise self.error("set it to a folder with one sub-folder per class")
        return expand_path(path)

    def _names(self, top: Path) -> tuple[str, ...]:
        if not top.is_dir():
            raise self.error("no such folder")
        entries = [entry for entry in sorted(top.iterdir()) if not entry.name.startswith(".")]
        names = tuple(entry.name for entry in entries if entry.is_dir())
        if len(names) < 2:
            raise self.error(f"{top} has {len(names)} class folders, it needs 2 or more")
        if loose := [entry for entry in entries if entry.is_file() and entry.suffix.lower() in self.suffixes]:
            raise self.error(f"{loose[0]} lies outside the class folders")
        return names

    def _files(self, top: Path) -> Labelled:
        labelled: Labelled = []
        for label, name in enumerate(self.classes()):
            files = [file for file in sorted((top / name).iterdir()) if not file.name.startswith(".")]
            if not files:
                raise self.error(f"{top / name} holds no files")
            labelled += [(file, label) for file in files]
        return labelled


def draw_test_rows(targets: Tensor, share: float) -> Tensor:
    """(N,) mask of a fixed, stratified test set: of every class with two rows or more at least one, but not all."""
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(SEED))
    mask = torch.zeros(len(targets), dtype=torch.bool)
    for label in sorted(set(targets.tolist())):
        rows = order[targets[order] == label]
        mask[rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]] = True
    return mask
