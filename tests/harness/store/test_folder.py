"""The store in a folder: what is damaged is made again, and no write leaves half a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.store.folder import Store, write_atomically

KEY = "0" * 31 + "a"


def test_tensors_are_made_once(store: Store) -> None:
    made = []

    def make() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"w": torch.arange(6.0).reshape(2, 3)}

    first, new = store.load_or_make_tensors(KEY, make)
    second, again = store.load_or_make_tensors(KEY, make)
    assert (new, again, len(made)) == (True, False, 1)
    assert torch.equal(first["w"], second["w"])


def test_tensors_that_share_memory_are_saved_each_whole(store: Store) -> None:
    """As those of a language model whose output layer is its embedding."""
    tied = torch.arange(6.0)
    store.save_tensors(KEY, {"a": tied, "b": tied, "half": tied[3:], "own": torch.ones(2)})
    found = store.load_tensors(KEY)
    assert found is not None
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "a": [0, 1, 2, 3, 4, 5], "b": [0, 1, 2, 3, 4, 5], "half": [3, 4, 5], "own": [1, 1],
    }  # fmt: skip


@pytest.mark.parametrize(
    "damage",
    [lambda data: b"", lambda data: b"junk", lambda data: data[:-7], lambda data: data[:-1] + bytes([data[-1] ^ 1])],
    ids=["empty", "junk", "cut", "a bit fell over"],
)
def test_a_damaged_artefact_is_made_again_with_a_warning(store: Store, damage: Callable[[bytes], bytes]) -> None:
    store.save_tensors(KEY, {"w": torch.ones(50)})
    path = store.artefact_path(KEY)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match="damaged artefact"):
        found, new = store.load_or_make_tensors(KEY, lambda: {"w": torch.zeros(2)})
    assert new
    assert torch.equal(found["w"], torch.zeros(2))


@pytest.mark.parametrize("key", ["../../etc/passwd", "a" * 31, "A" * 32, "0" * 31 + "/", ""])
def test_no_key_leaves_the_store(store: Store, key: str) -> None:
    for place in (store.artefact_path, store.record_path, store.findings_folder):
        with pytest.raises(ValueError, match="32 hex digits"):
            place(key)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "f.json"
    write_atomically(target, "old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.json"]


def test_files_are_for_whom_the_umask_lets_read(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "f.json", "all")
    finally:
        os.umask(before)
    assert (tmp_path / "f.json").stat().st_mode & 0o777 == 0o644
