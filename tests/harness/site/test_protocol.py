"""The frozen protocol: it expands, and a table that lacks a part of it is no entry."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from harness.cli.app import app
from harness.errors import BadSubmission
from harness.grid.grid import expand
from harness.grid.read import read_grid
from harness.site import protocol

V1 = "60d4799450fdea44"  # of its cells' labels: v1 is frozen


@pytest.fixture(scope="module")
def whole() -> pd.DataFrame:
    """A table with every cell of the protocol, of `none` and one defense."""
    cells = [(c.task.label, c.attack.label, c.dose, c.seed) for c in expand(read_grid(str(protocol.PROTOCOL)))]
    frame = pd.DataFrame(cells, columns=protocol.PLACE)
    return pd.concat([frame.assign(defense=name, status="done") for name in ("none", "mine")], ignore_index=True)


def test_v1_is_frozen(whole: pd.DataFrame) -> None:
    labels = "\n".join(sorted({str(row) for row in whole[protocol.PLACE].itertuples(index=False, name=None)}))
    assert hashlib.sha256(labels.encode()).hexdigest()[:16] == V1, (
        "a change of the protocol is v2, in a file of its own"
    )


def test_a_whole_table_lacks_nothing(whole: pd.DataFrame) -> None:
    assert protocol.missing_cells(whole).empty
    refused = whole.assign(status=["not applicable" if d == "mine" else "done" for d in whole.defense])
    assert protocol.missing_cells(refused).empty, "counted as undefended"


def test_what_is_left_out_is_told(whole: pd.DataFrame) -> None:
    late = whole.copy()
    late.loc[(late.defense == "mine") & (late.dose == 32) & (late.attack == "badnets"), "status"] = "timed out"
    lacking = protocol.missing_cells(late)
    assert (set(lacking.defense), set(lacking.attack), set(lacking.status), len(lacking)) == (
        {"mine"}, {"badnets"}, {"timed out"}, 5,
    )  # fmt: skip
    alone = protocol.missing_cells(whole[whole.defense == "mine"])
    assert set(alone.defense) == {"none"}, "without the undefended victim nothing can be graded"
    assert len(alone) == len(whole) // 2


def test_an_entry_is_a_defense_that_has_run_it_whole(whole: pd.DataFrame) -> None:
    more = whole[whole.defense == "mine"].assign(defense="half")[:-7]
    elsewhere = whole[:3].assign(attack="wanet(strength=9)")
    kept, lacks = protocol.keep_entries(pd.concat([whole, more, elsewhere], ignore_index=True))
    assert lacks == {"half": 7}
    assert set(kept.defense) == {"none", "mine"}
    assert len(kept) == len(whole), "cells beside the protocol do not count"
    with pytest.raises(BadSubmission, match="`none` lacks 1 of its cells"):
        protocol.keep_entries(whole[1:])


def test_a_leaderboard_by_the_protocol_refuses_what_lacks_its_victims(tmp_path: Path) -> None:
    published = Path(__file__).parents[3] / "results" / "adaptive" / "swept"
    done = CliRunner().invoke(app, ["leaderboard", str(published), "--protocol", "-o", str(tmp_path / "site")])
    assert isinstance(done.exception, BadSubmission)
    assert not (tmp_path / "site").exists()


def test_the_command_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["protocol", str(tmp_path)])
    assert protocol.main() == 2
    published = Path(__file__).parents[3] / "results" / "adaptive" / "swept"
    monkeypatch.setattr("sys.argv", ["protocol", str(published)])
    assert protocol.main() == 1
    assert "spectral_signatures on ag_news(test_size=1000, train_size=4000): 150 missing" in capsys.readouterr().out
