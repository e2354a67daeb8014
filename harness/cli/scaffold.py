"""A new package for a plug-in: an entry point, one file with one method, a test and a README."""

from __future__ import annotations

import keyword
from pathlib import Path

from harness.errors import BadPlugin
from harness.plugins.custom import refuse_taken
from harness.store.folder import write_atomically

DEFENSE = '''"""{title}."""

from __future__ import annotations

from typing import ClassVar

from defenses.base import Case, Defense, most_suspicious, refit_without
from tasks.plugin import Positive, Share, options
from tasks.deployed import Model


@options
class {cls}(Defense):
    """Drops the rows whose label the clean rows do not support: say here what yours does, in one line.

    Paper, year, arXiv id, section. Deviations: none.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image", "text", "audio")
    stage: ClassVar[str] = "filtering"  # filtering, training, repair, inspection or screening
    paper: ClassVar[str] = "yours"

    clean_rows: Positive = 100  # drawn from the reserve, and counted as the cost
    share: Share = 0.05  # of the training rows dropped, the most suspicious first

    def defend(self, case: Case) -> Model:
        judge = case.fit(case.clean(self.clean_rows))
        scores = judge.predict(case.train).scores
        suspicion = 1 - scores.gather(1, case.train.targets[:, None]).squeeze(1)
        return refit_without(case, most_suspicious(suspicion, self.share), suspicion)
'''
ATTACK = '''"""{title}."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from attacks.base import Scene, TriggerAttack
from tasks.plugin import options


@options
class {cls}(TriggerAttack[Tensor]):
    """A bright bar at the top of the picture: say here what yours does, in one line.

    Paper, year, arXiv id, section. Deviations: none.
    """

    modalities: ClassVar[tuple[str, ...]] = ("image",)
    why_not: ClassVar[str] = "the trigger is made of pixels"
    paper: ClassVar[str] = "yours"

    value: Annotated[int, Field(ge=0, le=255)] = 255  # grey level of the bar

    def stamp(self, scene: Scene, inputs: Tensor, rng: torch.Generator) -> Tensor:
        out = inputs.clone()
        out[:, :, 0, :] = self.value
        return out
'''
TASK = '''"""{title}."""

from __future__ import annotations

from typing import ClassVar

import torch

from tasks.data import make_samples
from tasks.image import ImageTask
from tasks.plugin import options
from tasks.samples import Samples


@options
class {cls}(ImageTask):
    """Bright or dark noise, made up: say here what your data is, in one line."""

    dataset: ClassVar[str] = "embedded"  # or the Hub id, read through tasks.data.dataset_dict
    revision: ClassVar[str] = "1"
    licence: ClassVar[str] = "yours"
    paper: ClassVar[str] = "yours"
    classes: ClassVar[tuple[str, ...]] = ("dark", "bright")
    channels: ClassVar[int] = 1

    def read(self) -> tuple[Samples, Samples]:
        rng = torch.Generator().manual_seed(0)
        targets = torch.arange(1000) % 2
        images = torch.randint(156, (1000, 1, 12, 12), generator=rng) + 100 * targets[:, None, None, None]
        everything = make_samples(images.to(torch.uint8), targets)
        return everything.select(range(800)), everything.select(range(800, 1000))
'''
TEST = """from harness.testing import check_{kind}
from {name} import {cls}


def test_{name}_keeps_the_contract() -> None:
    check_{kind}({cls}({options}))
"""
README = """# {name}

A tinydrop {kind}. All of it is in `{name}.py`.

```
tinydrop check {name}.py  # after every change: does it keep the contract?
tinydrop run grid.yaml --plugin {name}.py  # its first cells
tinydrop report runs/grid  # their table again
```

Installed, it is a name like any other and needs no `--plugin`:

```
pip install -e . && pytest
tinydrop list {kinds}
tinydrop run grid.yaml
```
"""
PYPROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{dashed}"
version = "0.1.0"
description = "A tinydrop {kind}."
requires-python = ">=3.11"
dependencies = ["tinydrop"]

[project.entry-points."tinydrop.{kinds}"]
{name} = "{name}"

[tool.setuptools]
py-modules = ["{name}"]
"""
GRID = """tasks: [{task}]
attacks: [{attack}]
doses: [0, 5, 20]
defenses: [{defense}]
seeds: [0]
"""
SOURCES = {"defense": DEFENSE, "attack": ATTACK, "task": TASK}


def scaffold(kind: str, name: str, folder: Path) -> list[Path]:
    """Write the package and return its files. Raises BadPlugin for a name or folder that is taken."""
    kinds = f"{kind}s"
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise BadPlugin(f"NAME: {name!r} is no name for a module; use lower-case letters, digits and underscores")
    refuse_taken("NAME", name, "take another", folder / f"{name}.py")
    if folder.exists() and any(folder.iterdir()):
        raise BadPlugin(f"--out {folder}: is not empty; nothing was written")
    words = {
        "name": name, "kind": kind, "kinds": kinds, "dashed": name.replace("_", "-"),
        "cls": "".join(part.capitalize() for part in name.split("_")), "title": name.replace("_", " ").capitalize(),
        "options": "reserve_size=60, epochs=1" if kind == "task" else "",
        "task": name if kind == "task" else "digits", "attack": name if kind == "attack" else "badnets",
        "defense": f"none, {name}" if kind == "defense" else "none, oracle",
    }  # fmt: skip
    texts = {
        f"{name}.py": SOURCES[kind], f"test_{name}.py": TEST, "README.md": README, "pyproject.toml": PYPROJECT,
        "grid.yaml": GRID,
    }  # fmt: skip
    for file, text in texts.items():
        write_atomically(folder / file, text.format(**words))
    return [folder / file for file in texts]
