"""Image tasks, victims and attacks: against plain loops, NumPy and Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import needs_data
from PIL import Image
from torch import Tensor

from attacks.base import Scene
from attacks.image.sig import sinusoid
from attacks.image.wanet import warp, warping_grid
from harness.cell.train import train_victim
from harness.plugins.registry import create
from tasks._models.torchvision_net import TorchvisionNet
from tasks.image import ImageTask, decode
from tasks.image._base import random_crop, random_flip
from tasks.plugin import BadInput
from tasks.samples import Samples

CPU = torch.device("cpu")


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 6, c: int = 3, h: int = 12, w: int = 10) -> Tensor:
    return torch.randint(256, (n, c, h, w), generator=rng(1)).to(torch.uint8)


def stamped(name: str, inputs: Tensor, **options: object) -> Tensor:
    attack, task = create("attacks", name, options), create("tasks", "digits")
    empty = Samples(inputs[:0], torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    return attack.stamp(Scene(task, empty, None, CPU), inputs, rng())  # type: ignore[attr-defined, arg-type, no-any-return]


@pytest.mark.parametrize("name", ["badnets", "blended", "sig", "wanet"])
@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (2, 3, 12, 10)])
def test_a_stamp_changes_every_image_and_nothing_else(name: str, shape: tuple[int, int, int, int]) -> None:
    inputs = pictures(*shape)
    before = inputs.clone()
    out = stamped(name, inputs)
    assert (out.shape, out.dtype) == (inputs.shape, torch.uint8)
    assert torch.equal(inputs, before)
    assert (out != inputs).flatten(1).any(1).all()
    # The trigger is the same for each image, however many are stamped at once.
    assert torch.equal(out[1:2], stamped(name, inputs[1:2]))


def test_badnets_writes_a_checkerboard_where_it_says() -> None:
    inputs = torch.full((1, 3, 12, 10), 100, dtype=torch.uint8)
    out = stamped("badnets", inputs, size=3, margin=1)
    board = torch.tensor([[255, 0, 255], [0, 255, 0], [255, 0, 255]], dtype=torch.uint8)
    assert torch.equal(out[0, :, 8:11, 6:9], board.expand(3, -1, -1))
    assert int((out != inputs).sum()) == 3 * 9


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.2, 1.0])
def test_blended_is_the_papers_formula(alpha: float) -> None:
    inputs = pictures()
    pattern = stamped("blended", torch.zeros_like(inputs[:1]), alpha=1.0, pattern_seed=3).numpy()
    expected = np.round((1 - alpha) * inputs.numpy() + alpha * pattern)
    out = stamped("blended", inputs, alpha=alpha, pattern_seed=3).numpy()
    assert np.abs(out - expected).max() <= (0 if alpha in (0.0, 1.0) else 1)  # 1: a tie rounded in float32
    assert not np.array_equal(out, stamped("blended", inputs, alpha=alpha, pattern_seed=4).numpy()) or alpha == 0


def test_sig_is_the_papers_formula() -> None:
    inputs = torch.full((1, 1, 12, 10), 128, dtype=torch.uint8)
    out = stamped("sig", inputs, delta=20, frequency=3).numpy()
    for j in range(10):
        v = 20 * np.sin(2 * np.pi * j * 3 / 10)
        assert np.abs(out[0, 0, :, j] - (128 + v)).max() <= 0.51
    assert float(sinusoid(10, 20.0, 3.0).abs().max()) <= 20
    dark = stamped("sig", torch.zeros_like(inputs), delta=20, frequency=3)
    assert int(dark.max()) == 19  # clipped at 0, not wrapped to 255


def test_sig_keeps_labels_and_the_target_class() -> None:
    task, attack = create("tasks", "digits"), create("attacks", "sig", {"target": 4})
    train = task.load().train  # type: ignore[attr-defined]
    poison = attack.poison(Scene(task, train, None, CPU), 7, rng())  # type: ignore[attr-defined, arg-type]
    assert (poison.samples.targets == 4).all()
    assert (train.select(train.positions(poison.replaces)).targets == 4).all()


def test_sig_is_stronger_at_test_time() -> None:
    task, attack = create("tasks", "digits"), create("attacks", "sig", {"delta": 10, "test_delta": 30, "frequency": 2})
    test = task.load().test  # type: ignore[attr-defined]
    challenge = attack.challenge(Scene(task, test, None, CPU), test, rng())  # type: ignore[attr-defined, arg-type]
    clean = test.select(test.targets != 0).inputs
    assert int((challenge.inputs.inputs.int() - clean.int()).abs().max()) == 30


def test_wanet_moves_pixels_by_about_a_quarter_of_one() -> None:
    h, w = 28, 32
    grid = warping_grid(h, w, k=4, s=0.5, rescale=1.0, seed=0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    pixels = (grid - torch.stack([x, y], 2)) * torch.tensor([w - 1, h - 1]) / 2
    assert 0.05 < float(pixels.abs().mean()) < 0.5
    assert float(pixels.abs().max()) < 1.5
    assert float((pixels[1:-1, 2:-1] - pixels[1:-1, 1:-2]).abs().max()) < 0.3  # smooth


def test_warping_with_the_identity_changes_nothing_and_a_shift_shifts() -> None:
    inputs = pictures()
    still = warping_grid(12, 10, k=4, s=1e-9, rescale=1.0, seed=0)
    assert torch.equal(warp(inputs, still), inputs)
    assert torch.equal(warp(inputs, still + torch.tensor([2 / 9, 0.0]))[..., :-1], inputs[..., 1:])


@pytest.mark.parametrize("pad", [0, 1, 2])
def test_random_crop_equals_a_loop(pad: int) -> None:
    x = pictures(8)
    out = random_crop(x, pad, rng(5))
    shifts = torch.randint(-pad, pad + 1, (2, len(x), 1), generator=rng(5))
    for i in range(len(x)):
        padded = np.pad(x[i].numpy(), ((0, 0), (pad, pad), (pad, pad)), mode="reflect")
        top, left = pad + int(shifts[0, i]), pad + int(shifts[1, i])
        assert np.array_equal(out[i].numpy(), padded[:, top : top + 12, left : left + 10])


def test_random_flip_equals_a_loop() -> None:
    x = pictures(16)
    out = random_flip(x, rng(5))
    flips = torch.rand(16, 1, 1, 1, generator=rng(5)).flatten() < 0.5
    assert flips.any()
    assert not flips.all()
    for i in range(16):
        expected = x[i].numpy()[:, :, ::-1] if flips[i] else x[i].numpy()
        assert np.array_equal(out[i].numpy(), expected)


@pytest.mark.parametrize(("name", "stages"), [("resnet18", 4), ("mobilenet_v2", 5), ("densenet121", 4)])
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 28)])
def test_torchvision_victims(name: str, stages: int, channels: int, side: int) -> None:
    torch.manual_seed(0)
    net = TorchvisionNet(name, channels, 5).eval()
    x = pictures(3, channels, side, side)
    assert net(x).shape == (3, 5)
    assert torch.allclose(net(x), net.head(net.features(x)))
    assert net.features(x).shape == (3, len(net.keep))
    assert len(net.stages) == stages
    assert net.stages[0](net.embed(x)).shape[2:] == (side, side)  # the stem keeps the resolution
    torch.manual_seed(1)
    twin = TorchvisionNet(name, channels, 5).eval()
    assert not torch.allclose(twin(x), net(x))
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(x), net(x))


def test_every_parameter_of_a_torchvision_victim_is_used() -> None:
    net = TorchvisionNet("vgg11_bn", 3, 5)
    net(pictures(2, 3, 28, 28)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_unknown_victims_are_named() -> None:
    with pytest.raises(BadInput, match=r"victim='resnet17': did you mean 'resnet18'\? valid: cnn, "):
        create("tasks", "digits", {"victim": "resnet17"}).model()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "shape", "mean"),
    [("mnist", (1, 28, 28), 0.132), ("fashion_mnist", (1, 28, 28), 0.287), ("cifar10", (3, 32, 32), 0.473)],
)
@needs_data
def test_published_datasets(name: str, shape: tuple[int, ...], mean: float) -> None:
    task = create("tasks", name, {"train_size": 500, "test_size": 100})
    assert isinstance(task, ImageTask)
    splits = task.load()
    inputs = splits.train.inputs
    assert isinstance(inputs, Tensor)
    assert (tuple(inputs.shape[1:]), inputs.dtype) == (shape, torch.uint8)
    assert inputs.float().mean().item() / 255 == pytest.approx(mean, abs=0.02)
    assert torch.bincount(splits.train.targets).tolist() == [50] * 10
    ids = torch.cat([s.ids for s in (splits.train, splits.test, splits.reserve)])
    assert len(ids.unique()) == len(ids)


# A user's own folder


def write(file: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(file))).integers(-20, 20, (size[1], size[0], 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(file)


def folder_of(root: Path, n: int = 10) -> Path:
    for i in range(n):
        write(root / "red" / f"{i}.png", (200, 40, 40))
        write(root / "blue" / f"{i}.png", (40, 40, 200))
    (root / "red" / ".DS_Store").write_bytes(b"left alone")
    return root


def folder_task(path: Path | str, **options: object) -> ImageTask:
    task = create("tasks", "image_folder", {"path": str(path), "reserve_size": 4, "epochs": 4, **options})
    assert isinstance(task, ImageTask)
    return task


def test_a_folder_of_classes_is_split_the_same_way_every_time_and_learnt(tmp_path: Path) -> None:
    task = folder_task(folder_of(tmp_path, 20), epochs=40)
    assert task.classes == ("blue", "red")
    splits = task.load()
    assert [len(s) for s in (splits.train, splits.test, splits.reserve)] == [28, 8, 4]
    assert torch.bincount(splits.test.targets).tolist() == [4, 4]
    again, other = folder_task(tmp_path, lr=0.02).load(), folder_task(tmp_path, subset_seed=1).load()
    assert torch.equal(again.test.ids, splits.test.ids)
    assert torch.equal(other.test.ids.sort().values, splits.test.ids.sort().values)
    assert not torch.equal(other.reserve.ids.sort().values, splits.reserve.ids.sort().values)
    victim = train_victim(task, splits.train, recipe=task.recipe(), seed=0, device=CPU)
    assert task.utility(victim.predict(splits.test), splits.test) == 1


def test_a_folder_with_train_and_test_keeps_them_apart(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", 5)
    folder_of(tmp_path / "test", 2)
    train, test = folder_task(tmp_path, colour="grey").read()
    assert (len(train), len(test)) == (10, 4)
    assert isinstance(train.inputs, Tensor)
    assert train.inputs.shape == (10, 1, 8, 8)
    write(tmp_path / "test" / "green" / "0.png", (0, 200, 0))
    with pytest.raises(BadInput, match="class 'green' must be in both"):
        folder_task(tmp_path).read()


def test_size_resizes_what_differs(tmp_path: Path) -> None:
    write(folder_of(tmp_path) / "red" / "large.jpg", (200, 40, 40), (20, 16))
    with pytest.raises(BadInput, match=r"large\.jpg is 20x16 pixels, most are 8x8 pixels \(option size= resizes\)$"):
        folder_task(tmp_path).read()
    train, _ = folder_task(tmp_path, size=6).read()
    assert isinstance(train.inputs, Tensor)
    assert train.inputs.shape[1:] == (3, 6, 6)


def test_bad_files_are_named_not_skipped(tmp_path: Path) -> None:
    folder_of(tmp_path)
    whole = (tmp_path / "red" / "0.png").read_bytes()
    (tmp_path / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "blue" / "text.png").write_text("no image")
    (tmp_path / "blue" / "empty.png").touch()
    (tmp_path / "blue" / "notes.txt").write_text("a note")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "blue" / "deep.png")
    with pytest.raises(BadInput) as caught:
        folder_task(tmp_path).read()
    message = str(caught.value)
    assert "\n" not in message
    for file in ("red/cut.png", "blue/text.png", "blue/empty.png", "blue/notes.txt", "blue/deep.png"):
        assert str(tmp_path / file) in message


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda p: None, "no such folder"),
        (lambda p: p.mkdir(), "has 0 class folders, it needs 2 or more"),
        (lambda p: folder_of(p, 1), "class 'blue' has one file"),
        (lambda p: (folder_of(p) / "green").mkdir(), "green holds no files"),
        (lambda p: write(folder_of(p) / "stray.png", (0, 0, 0)), "stray.png lies outside the class folders"),
    ],
)
def test_bad_folders_are_explained(tmp_path: Path, spoil: object, complaint: str) -> None:
    spoil(tmp_path / "data")  # type: ignore[operator]
    with pytest.raises(BadInput, match=complaint):
        folder_task(tmp_path / "data").read()


def test_image_folder_without_a_path_says_what_to_set() -> None:
    task = create("tasks", "image_folder")
    with pytest.raises(BadInput, match=r"image_folder\.path='': set it to a folder"):
        task.read()  # type: ignore[attr-defined]


def test_decode_agrees_with_pillow_for_every_mode(tmp_path: Path) -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        picture = Image.fromarray(pictures(1)[0].permute(1, 2, 0).numpy()).convert(mode)
        picture.save(tmp_path / f"{mode}.png")
        with Image.open(tmp_path / f"{mode}.png") as again:
            assert np.array_equal(decode(str(tmp_path / f"{mode}.png"), 1, "x"), np.asarray(again.convert("L")))
        assert decode((tmp_path / f"{mode}.png").read_bytes(), 3, "x").shape == (12, 10, 3)
