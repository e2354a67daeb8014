"""Grids: what a user writes, what is refused and how, and what it expands to."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from harness.errors import BadGrid
from harness.grid.grid import expand, groups
from harness.grid.mapping import grid_from_mapping
from harness.grid.read import read_grid, read_mapping
from harness.plugins.registry import PRESETS

GOOD: dict[str, Any] = {
    "tasks": ["digits"],
    "attacks": ["badnets"],
    "doses": [0, 5],
    "defenses": ["none", "oracle"],
    "seeds": [0, 1],
}


def test_expands_to_the_product_grouped_by_victim() -> None:
    cells = expand(grid_from_mapping({**GOOD, "attacks": ["none", "badnets"]}))
    assert len(cells) == 2 * 2 + 2 * 2 * 2, "attack none has dose 0 only"
    assert len({c.key for c in cells}) == len(cells)
    assert [len(g) for g in groups(cells)] == [2] * 6
    assert cells[-1].label == "digits/badnets/5/oracle/1"


def test_keys_change_with_options_and_seed_and_nothing_else() -> None:
    def keys(**changes: Any) -> set[str]:
        return {c.key for c in expand(grid_from_mapping({**GOOD, **changes}))}

    base = keys()
    assert keys() == base
    assert keys(timeout=5, description="another word") == base
    assert keys(defenses=["oracle", "none"]) == base
    assert not keys(attacks=[{"name": "badnets", "size": 2}]) & base
    assert keys(attacks=[{"name": "badnets", "size": 3}]) == base, "a default, written out, is the same cell"
    assert len(keys(seeds=[0, 1, 2]) & base) == len(base)


def test_attacks_meet_only_tasks_of_their_modality() -> None:
    tree = {**GOOD, "tasks": ["digits", "synthetic_tones"], "attacks": ["badnets", "tone_clip"]}
    pairs = {(c.task.name, c.attack.name) for c in expand(grid_from_mapping(tree))}
    assert pairs == {("digits", "badnets"), ("synthetic_tones", "tone_clip")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ["digit"]}, r"tasks: unknown 'digit'; did you mean 'digits'\?.*valid: .*fashion_mnist"),
        ({"attacks": ["badnet"]}, r"attacks: unknown 'badnet'; did you mean 'badnets'\?"),
        ({"defenses": ["orcale"]}, r"did you mean 'oracle'\?"),
        ({"doses": [-1]}, r"doses: -1 is not a whole number of 0 or more"),
        ({"doses": [2.5]}, r"doses: 2\.5 is not a whole number"),
        ({"doses": [True]}, r"doses: True is not a whole number"),
        ({"doses": ["five"]}, r"doses: 'five' is not a whole number"),
        ({"seeds": [-3]}, r"seeds: -3"),
        ({"doses": []}, r"doses: is empty"),
        ({"tasks": []}, r"tasks: is empty"),
        ({"doses": [5, 5]}, r"doses: 5 is listed twice"),
        ({"tasks": ["digits", "digits"]}, r"tasks: digits is listed twice"),
        ({"attack": ["badnets"]}, r"grid: unknown 'attack'; did you mean 'attacks'\?"),
        ({"timeout": 0}, r"timeout: 0 is not a number of seconds above 0"),
        ({"timeout": "soon"}, r"timeout: 'soon'"),
        ({"attacks": [{"size": 3}]}, r"neither a name nor a mapping"),
        ({"attacks": [7]}, r"attacks: 7 is neither"),
        ({"attacks": [{"name": "badnets", "size": {"a": 1}}]}, r"badnets\.size: .* is a mapping"),
        ({"timeout": float("inf")}, r"timeout: inf is not a number of seconds above 0 and up to 2,592,000 \(30 days\)"),
        ({"timeout": float("nan")}, r"timeout: nan is not a number of seconds"),
        ({"timeout": 1e20}, r"timeout: 1e\+20 is not a number of seconds"),
        ({"timeout": True}, r"timeout: True is not"),
        ({"timeout": "1:30"}, r"timeout: '1:30' is not a number of seconds"),
        ({"timeout": None}, r"timeout: None is not"),
        ({"doses": [10**20]}, r"doses: 100000000000000000000 is beyond 9,007,199,254,740,991"),
        ({"seeds": [2**64]}, r"seeds: 18446744073709551616 is beyond"),
        ({"seeds": [10**5000]}, r"seeds: \(a int\) is beyond"),
        ({"doses": "0..50"}, r"doses: '0\.\.50' is not a whole number of 0 or more; write a list"),
        ({"doses": "0,5"}, r"doses: '0,5' is not a whole number"),
        ({"doses": [None]}, r"doses: None is not"),
        ({"doses": [[0, 5]]}, r"doses: \[0, 5\] is not"),
        ({"seeds": range(0)}, r"seeds: is empty"),
        ({"description": 2024}, r"description: 2024 is not a text; put it in quotes"),
        ({"description": ["a"]}, r"description: \['a'\] is not a text"),
        ({"description": "\ud800"}, r"description: '\\ud800' holds a character that is not in UTF-8"),
        ({"tasks": [{"digits": {"epochs": 1}}]}, r"tasks: .* is neither a name nor a mapping with `name`"),
        ({"tasks": [{"name": "digits", 1: 2}]}, r"tasks\.digits: 1 is not the name of an option"),
        ({"defenses": ["no"]}, r"defenses: unknown 'no'"),
        ({"defenses": [False]}, r"defenses: False is neither"),
        ({"defenses": [date(2024, 1, 1)]}, r"defenses: datetime\.date.* is neither"),
        ({"tasks": [{"name": "digits", "epochs": {1, 2}}]}, r"plain values or lists"),
        ({"also": 3}, r"also: 3 is not a list of mappings"),
        ({1: 2}, r"grid: unknown 1"),
        ({"attacks": ["badwords"]}, r"attacks: 'badwords' is for text and no such task is listed; valid: .*sst2"),
    ],
)
def test_bad_grids_are_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadGrid, match=message) as caught:
        grid_from_mapping({**GOOD, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attacks": [{"name": "badnets", "siz": 3}]}, r"attacks\.badnets: unknown 'siz'; did you mean 'size'\?"),
        ({"attacks": [{"name": "badnets", "size": "big"}]}, r"attacks\.badnets\.size='big'"),
        ({"attacks": [{"name": "badnets", "size": 0}]}, r"attacks\.badnets\.size=0: .*greater than 0"),
        ({"tasks": [{"name": "digits", "train_size": -5}]}, r"tasks\.digits\.train_size=-5"),
        ({"defenses": [{"name": "random_filter", "share": 2}]}, r"defenses\.random_filter\.share=2"),
        ({"tasks": [{"name": "digits", "epochs": True}]}, r"tasks\.digits\.epochs=True: .*valid integer"),
        ({"tasks": [{"name": "digits", "epochs": "5"}]}, r"epochs='5': .*valid integer; write it without quotes"),
        ({"tasks": [{"name": "digits", "epochs": 5.0}]}, r"epochs=5\.0: .*valid integer"),
        ({"tasks": [{"name": "digits", "epochs": 10**30}]}, r"epochs=1000.*: is beyond 9,223,372,036,854,775,807"),
        ({"tasks": [{"name": "digits", "epochs": None}]}, r"epochs=None: .*valid integer"),
        ({"tasks": [{"name": "digits", "epochs": date(2024, 1, 1)}]}, r"epochs=.*: is of type date"),
        ({"tasks": [{"name": "digits", "lr": float("inf")}]}, r"lr=inf: must be finite"),
        ({"tasks": [{"name": "digits", "lr": float("nan")}]}, r"lr=nan: must be finite"),
        ({"tasks": [{"name": "digits", "lr": True}]}, r"lr=True: .*valid number"),
        ({"tasks": [{"name": "digits", "lr": "1e-3"}]}, r"lr='1e-3': .*valid number"),
        ({"tasks": [{"name": "digits", "augmentation": False}]}, r"augmentation=False: .*'none'"),
        ({"attacks": [{"name": "badnets", "clean_label": 1}]}, r"clean_label=1: .*boolean; write true or false"),
        ({"attacks": [{"name": "badnets", "clean_label": "yes"}]}, r"clean_label='yes': .*write true or false"),
        ({"attacks": [{"name": "badnets", "target": -1}]}, r"target=-1: must be the number of a class"),
        ({"attacks": [{"name": "badnets", "target": True}]}, r"target=True: must be the number of a class"),
        (
            {"attacks": [{"name": "badnets", "target": "tree"}]},
            r"target='tree': digits has no class of that name",
        ),
        (
            {"attacks": [{"name": "badnets", "target": "12"}]},
            r"target='12': digits has no class of that name; valid",
        ),
        ({"defenses": [{"name": "none", "share": 2}]}, r"defenses\.none has no options"),
        (
            {"tasks": ["digits", "fashion_mnist"], "attacks": [{"name": "badnets", "target": 99}]},
            r"attacks\.badnets\.target=99: digits has classes 0 to 9, fashion_mnist has classes 0 to 9",
        ),
    ],
)
def test_bad_options_are_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadGrid, match=message) as caught:
        expand(grid_from_mapping({**GOOD, **change}))
    assert "\n" not in str(caught.value)


def test_reading_files(tmp_path: Path) -> None:
    file = tmp_path / "g.yaml"
    file.write_text("- just\n- a list\n")
    with pytest.raises(BadGrid, match="must be a mapping with tasks, attacks, doses, defenses, seeds; found list"):
        read_grid(str(file))
    file.write_text("tasks: [digits\n")
    with pytest.raises(BadGrid, match="not readable as YAML"):
        read_grid(str(file))
    file.write_text("tasks: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(BadGrid, match="not readable as YAML"):
        read_grid(str(file))
    with pytest.raises(BadGrid, match=r"GRID: unknown 'quickstar'; did you mean 'quickstart'\?"):
        read_grid("quickstar")
    with pytest.raises(BadGrid, match="tasks: missing"):
        grid_from_mapping({})


def test_a_class_that_some_task_has_is_no_mistake() -> None:
    tree = {**GOOD, "tasks": ["digits", "synthetic_reviews"], "attacks": [{"name": "label_flip", "target": 5}]}
    assert len(expand(grid_from_mapping(tree))) == 2 * 2 * 2 * 2


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "g.yaml"
    file.write_text(yaml.safe_dump({**GOOD, "attacks": [{"name": "badnets"}]}) + "doses: [1]\n")
    with pytest.raises(BadGrid, match=r"g\.yaml, line \d+: 'doses' is in line 6 already; say it once"):
        read_grid(str(file))
    file.write_text("base: &base {name: badnets, size: 2}\nattacks: [{<<: *base, size: 3}]\n")
    assert read_mapping(str(file))["attacks"] == [{"name": "badnets", "size": 3}], "a merge may be overridden"
    with pytest.raises(BadGrid, match="line 1: 'size' is in line 1 already"):
        read_grid("quickstart", ["attacks=[{name: badnets, size: 2, size: 3}]"])


def test_set_changes_fields_and_options() -> None:
    grid = read_grid("quickstart", ["doses=[0, 3]", "digits.epochs=2", "seeds=4"])
    assert grid.doses == (0, 3)
    assert grid.seeds == (4,)
    assert dict(next(s for s in grid.tasks if s.name == "digits").options)["epochs"] == 2
    for change, message in (
        ("doses", "write key=value"),
        ("dose=[1]", r"--set: unknown 'dose'; did you mean 'doses'\?"),
        ("digit.epochs=2", r"did you mean 'digits'\?"),
        ("doses=[1", "not readable as YAML"),
    ):
        with pytest.raises(BadGrid, match=message):
            read_grid("quickstart", [change])


def test_further_blocks_inherit_what_they_do_not_say_and_repeat_no_cell() -> None:
    block = {"tasks": ["synthetic_tones"], "attacks": ["tone_clip"], "defenses": ["none"]}
    grid = grid_from_mapping({**GOOD, "also": [block, {"seeds": GOOD["seeds"]}]})
    cells = expand(grid)
    plain = expand(grid_from_mapping(GOOD))
    assert cells[: len(plain)] == plain
    more = cells[len(plain) :]
    assert {(c.task.name, c.attack.name, c.defense.name) for c in more} == {("synthetic_tones", "tone_clip", "none")}
    assert {c.dose for c in more} == set(GOOD["doses"])
    with pytest.raises(BadGrid, match=r"also: unknown 'task'; did you mean 'tasks'"):
        grid_from_mapping({**GOOD, "also": [{"task": "digits"}]})
    with pytest.raises(BadGrid, match="also: 'digits' is not a list"):
        grid_from_mapping({**GOOD, "also": "digits"})


def test_an_option_is_set_in_further_blocks_too(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    block = {"tasks": ["synthetic_tones"], "attacks": ["tone_clip"]}
    file.write_text(yaml.safe_dump({**GOOD, "also": [block]}))
    grid = read_grid(str(file), ["synthetic_tones.epochs=2"])
    assert dict(grid.also[0].tasks[0].options) == {"epochs": 2}


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_expand(preset: str) -> None:
    assert expand(read_grid(preset))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": 2024}, r"path=2024: .*valid string; put it in quotes"),
        ({"path": "a\0b"}, r"path='a\\x00b': holds a character"),
        ({"path": "caf\udce9"}, r"path='caf\\udce9': holds a character that is not in UTF-8; rename the file"),
        ({"path": "x", "labels": [1, 0]}, r"labels\.0=1: .*valid string; put it in quotes"),
        ({"path": "x", "labels": [True, False]}, r"labels\.0=True: .*put it in quotes"),
        ({"path": "x", "labels": "spam"}, r"labels='spam': .*; write it as a list"),
        ({"path": "x", "labels": [["a"]]}, r"labels\.0="),
    ],
)
def test_texts_that_yaml_reads_as_something_else(options: dict[str, Any], message: str) -> None:
    tree = {**GOOD, "tasks": [{"name": "csv_text", **options}], "attacks": ["badwords"]}
    with pytest.raises(BadGrid, match=message) as caught:
        expand(grid_from_mapping(tree))
    assert "\n" not in str(caught.value)


def test_what_works_as_meant() -> None:
    axes = {"tasks": {"name": "digits"}, "attacks": "badnets", "doses": np.arange(2), "defenses": "none", "seeds": 3}
    one = grid_from_mapping({**axes, "description": None})
    assert (one.doses, one.seeds, one.description) == ((0, 1), (3,), "")
    assert grid_from_mapping({**GOOD, "attacks": [{"name": "badnets", "size": np.int64(2)}]}).attacks[0].label == (
        "badnets(size=2)"
    )
    many = grid_from_mapping({**GOOD, "seeds": list(range(20_000))})
    assert len(many.seeds) == 20_000, "and in no quadratic time"
    both = grid_from_mapping({**GOOD, "attacks": [{"name": "badnets", "target": t} for t in (1, "1")]})
    assert [spec.label for spec in both.attacks] == ["badnets(target=1)", "badnets(target='1')"]
    assert grid_from_mapping({**GOOD, "attacks": [{"name": "badnets", "target": "a\nb"}]}).attacks[0].label == (
        r"badnets(target='a\nb')"
    ), "a label is one line"
