"""What a process keeps of the data that it has read. All of it is forgotten at once when files change."""

from __future__ import annotations

from collections.abc import Callable
from functools import _lru_cache_wrapper, lru_cache
from typing import Any, TypeVar

T = TypeVar("T")

_kept: list[_lru_cache_wrapper[Any]] = []


def cached(maxsize: int) -> Callable[[Callable[..., T]], _lru_cache_wrapper[T]]:
    """`functools.lru_cache` for what comes of data, such as a task's splits or tokenizer: `forget` empties it.

    Equal arguments alone do not tell whether it is still right, since the files behind a task may have changed.
    """

    def keep(function: Callable[..., T]) -> _lru_cache_wrapper[T]:
        cache = lru_cache(maxsize=maxsize)(function)
        _kept.append(cache)
        return cache

    return keep


def forget() -> None:
    """Forget all that came of data: it is read again when it is next asked for."""
    for cache in _kept:
        cache.cache_clear()
