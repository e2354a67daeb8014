"""The model of an audit: from which files it is read, and what is refused in one line."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.audit.data import open_data
from harness.audit.models import Loaded, load_model, reset
from harness.audit.subject import (
    CPU,
    Subject,
    above_chance,
    read_order,
    read_preparation,
    require_skill,
    wrap,
)
from harness.cell.train import isolate_seed
from tasks.image import ImageTask
from tasks.plugin import BadInput
from tasks.samples import Samples

MODULE = """
import torch
from torch import nn

def load():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def loose():
    net = load()
    net.scale = nn.Parameter(torch.ones(1))
    return net

def number():
    return 7

def breaks():
    raise RuntimeError("no weights\\nhere")
"""


@pytest.fixture
def digits() -> ImageTask:
    return open_data("digits", None, False)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_audited.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_audited", raising=False)
    return "my_audited"


def tensors(task: ImageTask, seed: int = 0) -> dict[str, Tensor]:
    with isolate_seed(seed, CPU):
        return dict(task.model().state_dict())


def test_tensors_are_read_from_safetensors_and_from_torch_alike(tmp_path: Path, digits: ImageTask) -> None:
    kept = tensors(digits)
    save_file(kept, tmp_path / "a.safetensors")
    torch.save(kept, tmp_path / "b.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in kept.items()}}, tmp_path / "c.pth"
    )
    for name in ("a.safetensors", "b.pt", "c.pth"):
        loaded = load_model(str(tmp_path / name), "tinydrop-cnn", digits)
        assert loaded.own
        assert all(torch.equal(value, kept[key]) for key, value in loaded.net.state_dict().items())
    assert loaded.fresh is not None
    assert not torch.equal(loaded.fresh().state_dict()["head.weight"], kept["head.weight"])


def test_the_width_of_a_cnn_is_read_from_its_tensors(tmp_path: Path, digits: ImageTask) -> None:
    wide = open_data("digits", None, False)
    object.__setattr__(wide, "width", 8)
    save_file(tensors(wide), tmp_path / "a.safetensors")
    assert load_model(str(tmp_path / "a.safetensors"), "tinydrop-cnn", digits).net.head.in_features == 32


class Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)


def test_a_pickle_that_holds_more_than_tensors_is_refused_and_not_run(
    tmp_path: Path, digits: ImageTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Runs()}, "a.pt")
    torch.save(nn.Linear(2, 2), "b.pt")
    for name in ("a.pt", "b.pt"):
        with pytest.raises(BadInput, match=r"refused: it holds more than tensors.*weights_only=True"):
            load_model(name, "tinydrop-cnn", digits)
    assert not Path("ran").exists()
    torch.save([torch.ones(1)], "c.pt")
    with pytest.raises(BadInput, match="it is no state dict"):
        load_model("c.pt", "tinydrop-cnn", digits)


def test_what_cannot_be_a_model_is_named(tmp_path: Path, digits: ImageTask, module: str) -> None:
    save_file(tensors(digits), tmp_path / "a.safetensors")
    other = {**tensors(digits), "head.weight": torch.zeros(7, 64), "head.bias": torch.zeros(7)}
    save_file(other, tmp_path / "seven.safetensors")
    save_file({**tensors(digits), "head.bias": torch.full((10,), torch.nan)}, tmp_path / "nan.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    (tmp_path / "a.onnx").write_bytes(b"no")
    (tmp_path / "a.h5").write_bytes(b"no")
    for source, architecture, said in [
        ("nowhere.pt", "", "no such file; name a .safetensors"),
        (".", "", "is a folder"),
        ("a.h5", "", "unknown ending '.h5'"),
        ("a.onnx", "", "onnx2torch"),
        ("a.safetensors", "", r"holds \d+ tensors and not which network they are of; add --architecture"),
        ("a.safetensors", "resnet181", "did you mean 'resnet18'"),
        ("a.safetensors", "resnet18", r"is no resnet18: it lacks \d+ tensors, such as .* and holds \d+ others"),
        ("seven.safetensors", "tinydrop-cnn", "is of 7 classes, digits has 10"),
        ("nan.safetensors", "tinydrop-cnn", "holds infinite numbers or NaN"),
        ("broken.safetensors", "tinydrop-cnn", "cannot be read as safetensors"),
        (f"{module}:load", "resnet18", "--architecture 'resnet18': is for files of tensors; leave it out"),
        (f"{module}:number", "", "returned a int, expected a torch.nn.Module"),
        (f"{module}:breaks", "", "RuntimeError: no weights here"),
        (f"{module}:absent", "", "AttributeError"),
        ("no_such_module:load", "", "ModuleNotFoundError"),
    ]:
        with pytest.raises(BadInput, match=said) as caught:
            load_model(source, architecture, digits)
        assert str(caught.value).startswith(("MODEL ", "--architecture "))
        assert "\n" not in str(caught.value)


def test_a_function_gives_a_network_and_a_new_one_unless_weights_would_stay(digits: ImageTask, module: str) -> None:
    loaded = load_model(f"{module}:load", "", digits)
    assert loaded.fresh is not None
    assert not torch.equal(loaded.fresh()[1].weight, loaded.net[1].weight)  # type: ignore[index]
    assert load_model(f"{module}:loose", "", digits).fresh is None
    assert "Sequential" in load_model(f"{module}:loose", "", digits).why_not


def test_reset_changes_every_weight() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    net[1].weight.data.fill_(5)
    net[1].running_mean.fill_(5)  # type: ignore[union-attr, operator]
    before = net[0].weight.clone()
    reset(net)
    assert not torch.equal(before, net[0].weight)
    assert net[1].weight.unique().tolist() == [1]
    assert net[1].running_mean.unique().tolist() == [0]  # type: ignore[union-attr, operator]


def test_a_torchscript_answers_as_the_network_it_was_made_of(tmp_path: Path, digits: ImageTask) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    rows = digits.load().test.select(range(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises another format for new files
        torch.jit.save(torch.jit.trace(net, torch.zeros(1, 1, 8, 8)), tmp_path / "a.pt")
    loaded = load_model(str(tmp_path / "a.pt"), "", digits)
    assert loaded.fresh is None
    audited = wrap(loaded, digits, "unit", None, rows)
    found = audited.victim.logits(next(audited.victim.batches(rows)))
    assert torch.allclose(found, net(rows.inputs / 255), atol=1e-5)  # type: ignore[operator, arg-type]


def test_pictures_are_prepared_as_asked() -> None:
    x = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 3, 1, 1)
    assert torch.allclose(read_preparation("half", 3)(x)[:, 0, 0, 0], torch.tensor([-1.0, 1.0]))
    assert torch.allclose(read_preparation("raw", 3)(x)[:, 0, 0, 0], torch.tensor([0.0, 255.0]))
    own = read_preparation("0.1,0.2,0.3/0.5,0.5,0.5", 3)(x)[1, :, 0, 0]
    assert torch.allclose(own, torch.tensor([1.8, 1.6, 1.4]))
    for text in ("imagnet", "0.5", "0.1,0.2/0.5", "0.5/0", "a/b", "1,,2/1"):
        with pytest.raises(BadInput, match="--prepare"):
            read_preparation(text, 3)


class Right(nn.Module):
    """Answers with the class that a picture's first pixel names, or another one; wants values of 0 to 1."""

    def __init__(self, order: list[int], classes: int = 10) -> None:
        super().__init__()
        self.order, self.classes = order, classes

    def forward(self, x: Tensor) -> Tensor:
        label = (x[:, 0, 0, 0] * 255).round().long()
        label = torch.where((label >= 0) & (label < self.classes), label, 0)
        return torch.nn.functional.one_hot(torch.tensor(self.order)[label], self.classes).float()


def labelled(n: int = 200) -> Samples:
    targets = torch.arange(n) % 10
    return Samples(targets[:, None, None, None].expand(n, 1, 8, 8).to(torch.uint8), targets, torch.arange(n))


def test_a_wrong_order_of_classes_and_a_wrong_preparation_are_recognised(digits: ImageTask) -> None:
    rows, order = labelled(), [*range(1, 10), 0]
    right = wrap(Loaded(Right(list(range(10))), "net"), digits, "unit", None, rows)
    assert require_skill(right, digits, rows, "unit") == 1
    shifted = wrap(Loaded(Right(order), "net"), digits, "unit", None, rows)
    with pytest.raises(
        BadInput, match=r"0.00 on 200 .* another order of classes it would be 1.00: name it by --classes"
    ):
        require_skill(shifted, digits, rows, "unit")
    names = ",".join(str(order.index(c)) for c in range(10))  # the model's first answer is the class '9'
    mended = wrap(Loaded(Right(order), "net"), digits, "unit", read_order(names, digits), rows)
    assert require_skill(mended, digits, rows, "unit") == 1
    raw = wrap(Loaded(Right(list(range(10))), "net"), digits, "raw", None, rows)
    with pytest.raises(BadInput, match=r"with --prepare unit it would be 1\.00"):
        require_skill(raw, digits, rows, "raw")
    constant = wrap(Loaded(Right([3] * 10), "net"), digits, "unit", None, rows)
    with pytest.raises(BadInput, match="usual causes are the order of classes"):
        require_skill(constant, digits, rows, "unit")


def test_the_order_of_classes_names_each_once(digits: ImageTask) -> None:
    for text in ("0,1,2", "0,1,2,3,4,5,6,7,8,8", "a,1,2,3,4,5,6,7,8,9"):
        with pytest.raises(BadInput, match="--classes: "):
            read_order(text, digits)


def test_chance_is_the_most_frequent_class() -> None:
    targets = torch.tensor([0] * 90 + [1] * 10)
    assert not above_chance(0.9, targets)
    assert above_chance(1.0, targets)


def test_a_model_that_cannot_read_the_pictures_or_has_other_classes_is_refused(digits: ImageTask) -> None:
    rows = labelled()
    with pytest.raises(BadInput, match=r"cannot read pictures of 8x8 pixels and 1 channel \(RuntimeError"):
        wrap(Loaded(nn.Conv2d(3, 10, 3), "net"), digits, "unit", None, rows)
    with pytest.raises(BadInput, match="answers 7 classes, digits has 10"):
        wrap(Loaded(nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), "net"), digits, "unit", None, rows)
    with pytest.raises(BadInput, match="expected one number for each row and class"):
        wrap(Loaded(nn.Conv2d(1, 10, 3), "net"), digits, "unit", None, rows)


def test_half_precision_and_the_own_precision_of_a_script(digits: ImageTask) -> None:
    net = nn.Linear(1, 1)
    for exact, dtype in ((False, torch.bfloat16), (True, torch.float32)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert Subject(net, read_preparation("unit", 1), exact=exact)(torch.zeros(1, 1, 1, 1)).dtype == dtype


def test_data_is_a_folder_or_a_task_of_pictures(tmp_path: Path) -> None:
    for source, said in [
        ("nowhere", "no such file"),
        ("synthetic_stories", "an audit is of classifiers of image, audio, text"),
    ]:
        with pytest.raises(BadInput, match=said):
            open_data(source, None, False)
    with pytest.raises(BadInput, match="--size and --grey are for a folder of pictures"):
        open_data("digits", 32, False)
    assert open_data(str(tmp_path), 32, True).channels == 1
