"""The command: a backdoored network is called suspicious, a clean one is not, and what it writes can be read."""

from __future__ import annotations

import json
import warnings
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import invoke, tinydrop
from PIL import Image
from safetensors.torch import load_file, save_file

from attacks.base import Scene
from attacks.image.badnets import Badnets
from harness.audit import steps, write
from harness.audit.behaviour import Plan
from harness.audit.cells import find_cell
from harness.audit.data import open_data
from harness.audit.detectors import Effort
from harness.audit.graphs import compare
from harness.audit.models import load_model
from harness.audit.nulls import estimate_seconds, train_null
from harness.audit.steps import Request, choose
from harness.audit.subject import CPU
from harness.cell.train import train_victim
from harness.store.folder import Store
from harness.store.records import load_all
from tasks.plugin import BadInput

QUICK = ("--architecture", "tinydrop-cnn", "--data", "digits", "--quick")


def digits(folder: Path, dose: int) -> Path:
    """A victim of digits as a file; badnets with so many rows, class 3."""
    task = open_data("digits", None, False)
    train = task.load().train
    if dose:
        scene = Scene(task, train, None, CPU)  # type: ignore[arg-type]
        poison = Badnets(target=3).poison(scene, dose, torch.Generator().manual_seed(0))
        train = train.replace(train.positions(poison.replaces), poison.samples)  # type: ignore[arg-type]
    victim = train_victim(task, train, recipe=task.recipe(), seed=0, device=CPU)
    path = folder / "model.safetensors"
    save_file({name: value.contiguous() for name, value in victim.module.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits(tmp_path_factory.mktemp("clean"), 0)


@pytest.fixture(scope="module")
def backdoored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits(tmp_path_factory.mktemp("backdoored"), 50)


def test_a_backdoored_network_is_suspicious_and_its_class_is_named(backdoored: Path, tmp_path: Path) -> None:
    done = invoke("audit", backdoored, *QUICK, "-o", tmp_path)
    assert done.exit_code == 3, done.output
    assert "Suspicious: class '3' is believed to be the attacker's." in done.stdout
    found = json.loads((tmp_path / "audit.json").read_text())
    assert found["verdict"]["class"] == "3"
    (badnets,) = [t for t in found["behaviour"]["triggers"] if t["trigger"] == "badnets" and t["strength"] == 1]
    assert badnets["share"] > 0.9
    assert badnets["adjusted"] <= 0.05
    page = (tmp_path / "audit.html").read_text()
    assert "the same rows with badnets" in page
    assert page.count("data:image/png;base64,") == 3


def test_a_clean_network_is_not(clean: Path, tmp_path: Path) -> None:
    done = invoke("audit", clean, *QUICK, "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert "Nothing found." in done.stdout
    assert "a weaker" not in done.stdout
    assert "It is right only where the classes of a clean model are alike" in done.stdout
    assert json.loads((tmp_path / "audit.json").read_text())["verdict"] == {
        "suspicious": False, "class": None, "because": []
    }  # fmt: skip


@pytest.mark.parametrize("dynamo", [True, False])
def test_an_onnx_file_gets_the_verdict_of_the_network_that_it_was_exported_from(
    backdoored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dynamo: bool
) -> None:
    """By either exporter of torch, with the operations of today."""
    for needed in ("onnx2torch", "onnxscript"):
        pytest.importorskip(needed)
    small(monkeypatch)
    monkeypatch.setattr(steps, "QUICK", Plan(rows=32, strengths=(1.0,), draws=199, stop_at_first=True))
    net = open_data("digits", None, False).model().eval()
    net.load_state_dict(load_file(backdoored))
    export(net, tmp_path / "model.onnx", dynamo)
    found = run(tmp_path / "model.onnx", data="digits", prepare="raw")
    known = run(backdoored, data="digits", architecture="tinydrop-cnn")
    assert found.kind == "an ONNX graph"
    assert found.accuracy == pytest.approx(known.accuracy, abs=0.02)  # a graph is not rounded to bfloat16
    assert found.target == known.target == 3
    assert found.called[0].trigger == known.called[0].trigger
    assert found.called[0].share == pytest.approx(known.called[0].share, abs=0.1)


def export(net: torch.nn.Module, path: Path, dynamo: bool, rows: int | None = None) -> None:
    """To ONNX, for any number of rows or for so many."""
    x = torch.zeros(rows or 4, 1, 8, 8)
    free = {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},)} if dynamo else {"dynamic_axes": {"x": {0: "n"}}}
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")  # of an exporter that torch will drop, whose files exist
        torch.onnx.export(net, (x,), path, dynamo=dynamo, input_names=["x"], **({} if rows else free))


def test_a_graph_that_is_read_as_something_else_is_refused(tmp_path: Path) -> None:
    for needed in ("onnx2torch", "onnxscript"):
        pytest.importorskip(needed)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()
    task = open_data("digits", None, False)
    export(net, tmp_path / "one.onnx", True, rows=2)
    with pytest.raises(BadInput, match="its graph reads 2 rows at a time; export it with a dynamic first dimension"):
        load_model(str(tmp_path / "one.onnx"), "", task)
    export(net, tmp_path / "free.onnx", True)
    loaded = load_model(str(tmp_path / "free.onnx"), "", task).net
    x = torch.rand(3, 1, 8, 8)
    assert torch.allclose(loaded(x), net(x), atol=1e-4)
    torch.nn.init.zeros_(net[1].weight)
    with pytest.raises(BadInput, match=r"its answers differ by .* from those of the graph"):
        compare(net, onnx_model(tmp_path / "free.onnx"), "MODEL")


def onnx_model(path: Path) -> Any:
    import onnx  # imported late: of an optional extra

    return onnx.load(path)


def test_unusable_input_ends_before_the_long_steps(clean: Path, tmp_path: Path) -> None:
    for words, said in [
        (["--data", "digits"], "add --architecture"),
        (["--data", "fashion"], "no such file, and no task of the suite"),
        ([*QUICK, "--prepare", "unit"], "is not above chance"),
        ([*QUICK, "--null-models", "1"], "one clean model has no spread"),
    ]:
        with pytest.raises(BadInput, match=said):
            invoke("audit", clean, *words, "-o", tmp_path)
    assert not list(tmp_path.iterdir())


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches and draws so short that only the steps around them are tested."""
    detectors = Effort().detectors
    monkeypatch.setattr(steps.detectors, "QUICK", Effort((type(detectors[1])(starts=1, steps=2),)))
    monkeypatch.setattr(steps, "QUICK", Plan(rows=20, strengths=(1.0,), draws=20))


def run(model: Path | str, said: list[str] | None = None, **options: object) -> steps.Audit:
    from contextlib import nullcontext

    request = Request(str(model), quick=True, **options)  # type: ignore[arg-type]
    quiet = nullcontext(lambda: None)
    return steps.audit(
        request, find_cell(str(model)), lambda title, n: quiet, (said if said is not None else []).append
    )


def test_equal_audits_write_equal_json(backdoored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    first, again, other = (
        write.as_json(run(backdoored, data="digits", architecture="tinydrop-cnn", seed=seed)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert str(backdoored.parent) not in first


def test_clean_models_are_trained_and_their_number_and_time_said_before(
    clean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    task = open_data("digits", None, False)
    object.__setattr__(task, "epochs", 1)
    monkeypatch.setattr(steps, "open_data", lambda *_: task)
    said: list[str] = []
    found = run(clean, said, data="digits", architecture="tinydrop-cnn", null_models=2)
    assert "2 clean models are trained on 1,237 rows: about " in said[1]
    assert "their smallest p value is 0.333, and to call a model by one of 2 tests takes 39 of them" in said[1]
    assert len(found.null_accuracy) == 2
    assert {d.detector for d in found.detected} == {"mm_bd", steps.TRIGGERS}
    assert {d.nulls for d in found.detected} == {2}
    assert all(d.p in (1 / 3, 2 / 3, 1) for d in found.detected)
    assert "Beside 2 clean models of this architecture" in write.as_page(found)


def test_every_clean_model_has_weights_of_its_own(clean: Path) -> None:
    task = open_data("digits", None, False)
    loaded = steps.load_model(str(clean), "tinydrop-cnn", task)
    rows = task.load().train.select(range(60))
    audited = steps.wrap(loaded, task, "raw", None, rows)
    before = {key: value.clone() for key, value in audited.victim.module.state_dict().items()}
    first, again, other = (train_null(audited, rows, seed, epochs=1).module.state_dict() for seed in (0, 0, 1))
    assert torch.equal(first["net.head.weight"], again["net.head.weight"])
    assert not torch.equal(first["net.head.weight"], other["net.head.weight"])
    assert estimate_seconds(audited, rows) > 0
    assert all(torch.equal(value, before[key]) for key, value in audited.victim.module.state_dict().items())


MODULE = """
import torch
from torch import nn

def load():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    net.load_state_dict(torch.load({weights!r}))
    return net
"""


def test_a_folder_of_pictures_and_a_function_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the names of classes, which may be anything, are escaped in the page."""
    small(monkeypatch)
    names = ["<b>zero", "it's one", "two & more"]
    rows = open_data("digits", None, False).load().train
    for label, name in enumerate(names):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i, picture in enumerate(rows.inputs[rows.targets == label][:40]):  # type: ignore[call-overload]
            Image.fromarray(picture[0].numpy()).save(tmp_path / "pictures" / name / f"{i}.png")  # type: ignore[union-attr]
    order = sorted(range(3), key=lambda label: names[label])
    kept = rows.targets < 3
    x, y = rows.inputs[kept].flatten(1).float() / 127.5 - 1, rows.targets[kept]  # type: ignore[index, union-attr]
    fitted = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), torch.eye(3)[y]).solution[:, order]
    torch.save({"1.weight": fitted[:-1].T.contiguous(), "1.bias": fitted[-1].clone()}, tmp_path / "weights.pt")
    (tmp_path / "my_linear.py").write_text(MODULE.format(weights=str(tmp_path / "weights.pt")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = run("my_linear:load", data="pictures", grey=True)
    assert found.accuracy > 0.9
    assert found.detected == []
    assert "Not run: 3 classes are too few to say which one is unusual" in write.as_page(found)
    page = write.as_page(found)
    assert "&lt;b&gt;zero" in page
    assert "<b>zero" not in page
    assert "Content-Security-Policy" in page


def test_the_victim_of_a_cell_is_audited_on_the_data_of_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    task = {"name": "digits", "train_size": 300, "epochs": 8, "subset_seed": 5}
    grid = {"tasks": [task], "attacks": ["badnets"], "doses": [5], "defenses": ["none", "oracle"], "seeds": [0]}
    (tmp_path / "grid.yaml").write_text(json.dumps(grid))
    tinydrop("run", tmp_path / "grid.yaml", "--jobs", 0, "--out", tmp_path / "mine", check=True)
    labels = {record.label: record for record in load_all(Store(tmp_path / "mine")).values()}
    (undefended,) = [label for label in labels if "/none/" in label]
    found = run(tmp_path / "mine" / undefended)
    assert found.accuracy == pytest.approx(labels[undefended].metrics["utility"].value, abs=0.06)
    assert found.digest
    (defended,) = [label for label in labels if "/oracle/" in label]
    with pytest.raises(BadInput, match="only done cells of the defense none"):
        find_cell(str(tmp_path / "mine" / defended))
    with pytest.raises(BadInput, match="has no such cell; did you mean"):
        find_cell(str(tmp_path / "mine" / undefended[:-1]))
    assert find_cell(str(tmp_path / "elsewhere" / undefended)) is None
    Store(tmp_path / "mine").artefact_path(labels[undefended].fits[0]["key"]).unlink()
    with pytest.raises(BadInput, match="its victim is not kept"):
        find_cell(str(tmp_path / "mine" / undefended))


def test_a_lower_level_takes_more_random_changes() -> None:
    for quick, tests in ((False, 24), (True, 16)):
        for level in (0.05, 0.01):
            plan = steps.plan_for(Request("m", quick=quick, level=level))
            assert tests / (plan.draws + 1) <= level


def test_a_search_that_would_not_fit_into_memory_is_left_out(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    monkeypatch.setattr(steps.detectors, "LARGEST_STEP", 600)
    found = run(clean, data="digits", architecture="tinydrop-cnn")
    assert found.unsearched == "one step would hold 640 numbers, for every class a batch; the most is 600"
    assert found.detected == []


def test_rows_are_drawn_since_files_are_sorted_by_class() -> None:
    rows = open_data("digits", None, False).load().test
    chosen = choose(rows, 50, 0)
    assert len(set(chosen.ids.tolist())) == 50
    assert torch.equal(chosen.ids, choose(rows, 50, 0).ids)
    assert not torch.equal(chosen.ids, rows.ids[:50])
