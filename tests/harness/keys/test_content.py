"""Digests: equal contents have one, different contents do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.keys.content import digest
from harness.keys.source import source_hash
from harness.plugins.registry import create


def test_digest_tells_contents_apart() -> None:
    same = [torch.arange(4), {"b": 2, "a": 1}, ("x", 1.0), None]
    assert digest(*same) == digest(torch.arange(4), {"a": 1, "b": 2}, ["x", 1.0], None)
    different = {
        digest(x)
        for x in (1, 1.0, "1", True, None, b"1", [1], {"1": 1}, torch.tensor(1), torch.tensor([1]), torch.tensor([1.0]))
    }
    assert len(different) == 11
    assert digest(["a", "b"], "c") != digest(["a"], "b", "c")
    with pytest.raises(TypeError, match="no stable content"):
        digest(lambda: 1)


def test_digest_of_a_plugin_sees_options_and_source() -> None:
    assert digest(create("attacks", "badnets")) == digest(create("attacks", "badnets", {"size": 3}))
    assert digest(create("attacks", "badnets")) != digest(create("attacks", "badnets", {"size": 4}))
    assert source_hash("attacks.image.badnets") != source_hash("attacks.image.blended")


def test_digest_of_a_plugin_sees_what_is_in_the_files_its_options_name(tmp_path: Path) -> None:
    def keys() -> tuple[str, str]:
        task = create("tasks", "csv_text", {"path": str(table), "labels": ("a", "b")})
        return digest(task), digest(create("tasks", "image_folder", {"path": str(tmp_path)}))

    (tmp_path / "train").mkdir()
    table = tmp_path / "train" / "rows.csv"
    table.write_text("text,label\nx,a\ny,b\n")
    before = keys()
    assert keys() == before
    table.write_text("text,label\nx,b\ny,a\n")
    changed = keys()
    assert changed[0] != before[0]
    assert changed[1] != before[1]
    table.rename(tmp_path / "rows.csv")
    table = tmp_path / "rows.csv"
    assert keys()[1] != changed[1]  # same bytes under another name
