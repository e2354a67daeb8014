"""Files at a URL that fsspec knows: a bucket, a web folder, another machine's disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import fsspec

from harness.errors import Unreachable

T = TypeVar("T")


@dataclass(frozen=True)
class Storage:
    """Files under a URL, by their names relative to it.

    Every method raises FileNotFoundError where it applies, and Unreachable for any other trouble with the storage.
    """

    url: str

    def get(self, name: str) -> bytes:
        return self._ask(lambda files: bytes(files.cat_file(f"{self._top}/{name}")))

    def get_many(self, names: list[str]) -> dict[str, bytes]:
        """The contents of those of these files that exist."""
        top = self._top

        def fetch(files: Any) -> dict[str, bytes]:
            contents = files.cat([f"{top}/{name}" for name in names], on_error="return")
            for content in contents.values():
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
            return {_below(top, path): content for path, content in contents.items() if isinstance(content, bytes)}

        return self._ask(fetch)

    def put(self, name: str, data: bytes, mode: str = "wb") -> None:
        """Write a file, over one that is there."""
        path = f"{self._top}/{name}"

        def write(files: Any) -> None:
            with files.open(path, mode) as file:
                file.write(data)

        try:
            self._ask(write)
        except FileNotFoundError:  # a file system, which has folders, unlike an object store
            self._ask(lambda files: files.makedirs(path.rpartition("/")[0], exist_ok=True))
            self._ask(write)

    def create(self, name: str, data: bytes) -> None:
        """Write a file that must not exist yet: one of several competitors succeeds, the others get FileExistsError."""
        self.put(name, data, "xb")

    def exists(self, name: str) -> bool:
        return bool(self._ask(lambda files: files.exists(f"{self._top}/{name}")))

    def size(self, name: str) -> int:
        """The bytes of a file; 0 where the storage does not say."""
        return int(self._ask(lambda files: files.size(f"{self._top}/{name}")) or 0)

    def remove(self, name: str) -> None:
        self._ask(lambda files: files.rm_file(f"{self._top}/{name}"))

    def sizes(self, folder: str) -> dict[str, int]:
        """The bytes of every file below a folder, by name; none where there is no such folder."""
        top = self._top

        def find(files: Any) -> dict[str, int]:
            details = files.find(f"{top}/{folder}", detail=True)
            return {_below(top, path): int(about["size"] or 0) for path, about in details.items()}

        try:
            return self._ask(find)
        except FileNotFoundError:
            return {}

    @property
    def _top(self) -> str:
        return self._ask(lambda files: str(files._strip_protocol(self.url))).rstrip("/")

    def _ask(self, question: Callable[[Any], T]) -> T:
        """The answer of the URL's file system; any error but FileNotFoundError and FileExistsError is Unreachable."""
        try:
            files, _ = fsspec.url_to_fs(self.url)
            files.invalidate_cache()  # of listings: others write there too
            return question(files)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:  # every protocol has errors of its own
            why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise Unreachable(f"URL: {self.url!r}: {why}") from error


def _below(top: str, path: str) -> str:
    """A path relative to the top of the URL; some protocols put a slash before it and some do not."""
    return path.lstrip("/").removeprefix(top.lstrip("/")).lstrip("/")
