"""A user's trained model, from a file or a function. Nothing is unpickled: files hold tensors, or a TorchScript."""

from __future__ import annotations

import re
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from harness.audit.graphs import convert_graph
from harness.cell.case import SECONDS
from harness.console import expand_home, one_line, quote
from tasks.base import Task
from tasks.image import ImageTask
from tasks.plugin import BadInput
from tasks.text import tokenizer

OWN = "tinydrop-"  # before the name of a victim of this suite, such as tinydrop-cnn or tinydrop-resnet18
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
WITHIN = ("state_dict", "model_state_dict", "model")  # keys under which training scripts keep the tensors
BEFORE = ("module.", "_orig_mod.")  # what wrappers put before the names of tensors


@dataclass(frozen=True)
class Loaded:
    """A network that reads prepared pictures float32 (N, C, H, W) and answers with (N, K) numbers."""

    net: nn.Module
    kind: str  # what it is, in words
    own: bool = False  # a victim of this suite, which normalises pictures of values 0 to 255 itself
    exact: bool = False  # it runs in its own precision
    fresh: Callable[[], nn.Module] | None = None  # the same architecture with new weights
    why_not: str = ""  # why there is no `fresh`


def load_model(source: str, architecture: str, task: Task) -> Loaded:
    """The model that `source` names, for the classes of a task. Raises BadInput, which says what would be read.

    source: module:function, or a file: .safetensors, .pt or .pth of tensors alone, a TorchScript, or .onnx; of texts
    also a folder that transformers wrote.
    architecture: of a file of tensors; a torchvision classifier, or a victim of this suite with `tinydrop-` before it.
    """
    path = expand_home(source)
    called = not path.exists() and FUNCTION.fullmatch(source)
    if architecture and (called or path.suffix.lower() == ".onnx" or (path.is_file() and is_script(path))):
        raise BadInput(f"--architecture {quote(architecture)}: is for files of tensors; leave it out")
    if called:
        return _call(source)
    if path.is_dir() and (path / "config.json").is_file() and task.modality == "text":
        return _read_transformers(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise BadInput(f"MODEL {quote(source)}: {what}; name a .safetensors, .pt or .onnx file, or module:function")
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return _read_onnx(path)
    if suffix not in (".safetensors", *PICKLES):
        raise BadInput(f"MODEL {quote(source)}: unknown ending {suffix!r}; valid: .safetensors, .pt, .pth, .onnx")
    if suffix != ".safetensors" and is_script(path):
        return Loaded(_read_script(path), "a TorchScript", exact=True, why_not="a TorchScript cannot be made anew")
    if not isinstance(task, ImageTask):
        raise BadInput(
            f"MODEL {quote(source)}: tensors are read of pictures alone; give module:function, or a RUN/CELL"
        )
    tensors = _read_safetensors(path) if suffix == ".safetensors" else _read_pickle(path)
    return _fill(path, tensors, architecture, task)


def is_script(path: Path) -> bool:
    """Whether a file is an archive of TorchScript, whose code no Python runs."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def architectures() -> list[str]:
    """The names that `--architecture` takes."""
    from torchvision import models

    known: list[str] = models.list_models(module=models)
    return [f"{OWN}cnn", f"{OWN}linear", *(f"{OWN}{name}" for name in known if name.startswith("resnet")), *known]


def build(name: str, task: ImageTask, tensors: dict[str, Tensor]) -> nn.Module:
    """A network of this architecture with random weights. tensors: what it will hold; they say how wide a CNN is."""
    from torchvision import models

    if name.startswith(OWN):
        changes: dict[str, Any] = {"victim": name.removeprefix(OWN)}
        if name == f"{OWN}cnn" and "stages.0.0.weight" in tensors:
            changes["width"] = len(tensors["stages.0.0.weight"])
        return replace(task, **changes).model()
    if name not in models.list_models(module=models):
        near = get_close_matches(name, architectures(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise BadInput(f"--architecture {quote(name)}: {hint}valid: torchvision's classifiers, {OWN}cnn, {OWN}resnet18")
    return cast(nn.Module, models.get_model(name, weights=None, num_classes=len(task.classes)))


def _fill(path: Path, tensors: dict[str, Tensor], name: str, task: ImageTask) -> Loaded:
    """A network of the architecture that holds these tensors."""
    if not name:
        raise BadInput(
            f"MODEL {quote(str(path))}: holds {len(tensors)} tensors and not which network they are of; add "
            f"--architecture, such as resnet18 or {OWN}cnn"
        )
    net = build(name, task, tensors)
    _refuse_other_tensors(path, name, net.state_dict(), tensors, task)
    net.load_state_dict(tensors)
    if poor := [key for key, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise BadInput(f"MODEL {quote(str(path))}: {poor[0]} holds infinite numbers or NaN; use an earlier checkpoint")
    return Loaded(net, f"a {name}", own=name.startswith(OWN), fresh=lambda: build(name, task, tensors))


def _refuse_other_tensors(
    path: Path, name: str, wanted: dict[str, Tensor], given: dict[str, Tensor], task: ImageTask
) -> None:
    """Raises BadInput, which tells another number of classes from another architecture."""
    where = f"MODEL {quote(str(path))}"
    missing, more = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or more:
        lacks = f"it lacks {len(missing)} tensors, such as {missing[0]}" if missing else ""
        holds = f"holds {len(more)} others, such as {more[0]}" if more else ""
        both = " and ".join(filter(None, (lacks, holds)))
        raise BadInput(f"{where}: is no {name}: {both}; name its --architecture")
    unlike = [key for key in wanted if wanted[key].shape != given[key].shape]
    classes = len(task.classes)
    if unlike and all(wanted[key].shape[0] == classes for key in unlike):
        answers = given[unlike[0]].shape[0]
        raise BadInput(
            f"{where}: {unlike[0]} is of {answers} classes, {task.name} has {classes}; give --data of its own"
        )
    if unlike:
        key = unlike[0]
        shapes = f"{tuple(given[key].shape)}, in a {name} it is {tuple(wanted[key].shape)}"
        raise BadInput(f"{where}: {key} is {shapes}; name its --architecture, or --grey for one channel")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"MODEL {quote(str(path))}: cannot be read as safetensors ({one_line(error, 120)})") from None
    return strip({key: value for key, value in tensors.items() if key != SECONDS})


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, which torch reads without running anything (`weights_only`)."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # UnpicklingError, EOFError, RuntimeError: all mean the same to the user
        raise BadInput(
            f"MODEL {quote(str(path))}: refused: it holds more than tensors, and unpickling it could run code "
            f"(torch.load with weights_only=True: {one_line(error, 120)}); where you trust it, save "
            "model.state_dict() by safetensors.torch.save_file"
        ) from None
    for key in WITHIN:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise BadInput(
            f"MODEL {quote(str(path))}: refused: it is no state dict, which has a tensor for each name; save "
            "model.state_dict()"
        )
    return strip({str(key): value for key, value in found.items()})


def strip(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without what DataParallel and torch.compile put before every name."""
    for start in BEFORE:
        if tensors and all(key.startswith(start) for key in tensors):
            tensors = {key.removeprefix(start): value for key, value in tensors.items()}
    return tensors


def _read_script(path: Path) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises users to export anew; files that exist can still be read
        try:
            return cast(nn.Module, torch.jit.load(str(path), map_location="cpu"))  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise BadInput(f"MODEL {quote(str(path))}: no TorchScript ({one_line(error, 120)})") from None


def _read_onnx(path: Path) -> Loaded:
    """An ONNX file as a torch network, so that gradients reach its input."""
    where = f"MODEL {quote(str(path))}"
    try:
        net = convert_graph(str(path), where)
    except BadInput:
        raise
    except ImportError:
        raise BadInput(
            f'{where}: ONNX is read by onnx2torch, which is not installed; pip install "tinydrop[onnx]", or give the '
            "state dict it was exported from"
        ) from None
    except Exception as error:  # whatever a converter of other people's graphs raises
        raise BadInput(
            f"{where}: onnx2torch cannot read it ({one_line(error, 120)}); give the state dict it was exported from"
        ) from None
    return Loaded(net, "an ONNX graph", exact=True, why_not="an ONNX graph cannot be made anew")


class TextNet(nn.Module):
    """A classifier of transformers with its tokenizer, as a network that reads a list of texts."""

    def __init__(self, model: Any, tokenizer: Any, longest: int) -> None:
        super().__init__()
        self.model, self.tokenizer, self.longest = model, tokenizer, longest

    def forward(self, texts: list[str]) -> Tensor:
        """(N, K) logits."""
        ids = self.tokenizer(texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
        return cast(Tensor, self.model(**ids).logits)


def _read_transformers(path: Path) -> Loaded:
    from transformers import AutoModelForSequenceClassification

    where = f"MODEL {quote(str(path))}"
    if not any(path.glob("*.safetensors")):
        raise BadInput(f"{where}: holds no .safetensors, and a pickle could run code; save it by save_pretrained")
    try:
        words = tokenizer(str(path))
        model, info = AutoModelForSequenceClassification.from_pretrained(
            str(path), use_safetensors=True, trust_remote_code=False, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # BadInput, OSError, ValueError, KeyError: all mean the same to the user
        raise BadInput(f"{where}: cannot be loaded ({one_line(error, 200)}); save it by save_pretrained") from error
    if info["missing_keys"]:
        raise BadInput(f"{where}: lacks {min(info['missing_keys'])}: is no trained classifier of texts")
    longest = min(int(words.model_max_length), getattr(model.config, "max_position_embeddings", None) or sys.maxsize)
    return Loaded(TextNet(model, words, longest), "a classifier of transformers", exact=True)


def _call(source: str) -> Loaded:
    """The network that a function of the user's returns. Runs its code."""
    module, _, name = source.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last, so that files of this folder shadow nothing
    try:
        make: Any = getattr(import_module(module), name)
        net = make()
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {one_line(error, 200)}"
        raise BadInput(
            f"MODEL {quote(source)}: {reason}; name a function without arguments, as module:function"
        ) from error
    if not isinstance(net, nn.Module):
        raise BadInput(f"MODEL {quote(source)}: returned a {type(net).__name__}, expected a torch.nn.Module")
    why_not = _why_not_anew(net)
    return Loaded(net, "a network of your own", fresh=None if why_not else lambda: reset(make()), why_not=why_not)


def _why_not_anew(net: nn.Module) -> str:
    """Why `reset` cannot give all of this network new weights; "" if it can."""
    for name, part in net.named_modules():
        if next(part.parameters(recurse=False), None) is not None and not hasattr(part, "reset_parameters"):
            return f"its part {name or type(part).__name__!r} has weights and no reset_parameters()"
    return ""


def reset(net: nn.Module) -> nn.Module:
    """The network with new random weights, in place."""
    for part in net.modules():
        again: Any = getattr(part, "reset_parameters", None)
        if again is not None:
            again()
    return net.requires_grad_(True)
