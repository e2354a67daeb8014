"""What raw rows of a modality look like, see tasks.samples.Samples."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from tasks.samples import Samples

PICTURES, SOUNDS, TEXTS = "uint8 (N, C, H, W)", "float32 (N, T) in [-1, 1]", "a list of str"
RAW = {
    "image": PICTURES, "image_generation": PICTURES, "audio": SOUNDS, "audio_generation": SOUNDS,
    "text": TEXTS, "language": TEXTS, "tabular": "float32 (N, D)",
}  # fmt: skip


def raw(modality: str, inputs: Tensor | list[str]) -> bool:
    """Are these inputs what `RAW` says of the modality? Of one that it does not know, anything is."""
    wanted = RAW.get(modality)
    if wanted is None:
        return True
    if wanted == TEXTS or not isinstance(inputs, Tensor):
        return wanted == TEXTS and isinstance(inputs, list) and all(isinstance(text, str) for text in inputs)
    if wanted == PICTURES:
        return inputs.dtype == torch.uint8 and inputs.ndim == 4
    loud = wanted == SOUNDS and len(inputs) > 0 and inputs.abs().max() > 1
    return inputs.dtype == torch.float32 and inputs.ndim == 2 and not loud


def described(inputs: object) -> str:
    """What they are instead."""
    if isinstance(inputs, Tensor):
        spread = f" in [{inputs.min().item():.3g}, {inputs.max().item():.3g}]" if inputs.numel() else ""
        return f"{str(inputs.dtype).removeprefix('torch.')} {tuple(inputs.shape)}{spread}"
    return f"a {type(inputs).__name__}"


def row_hashes(samples: Samples) -> list[bytes]:
    """One hash of every row's input."""
    inputs = samples.inputs
    rows = [t.encode("utf-8", "surrogatepass") for t in inputs] if isinstance(inputs, list) else [
        row.contiguous().numpy().tobytes() for row in inputs
    ]  # fmt: skip
    return [hashlib.sha256(row).digest() for row in rows]
