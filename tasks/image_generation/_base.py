"""Shared by all image generators: pixels in and out, and how a template is found in them."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tasks.diffusion import DiffusionTask, best_match
from tasks.image import Pictures
from tasks.plugin import options
from tasks.samples import Samples


@options
class ImageGenerator(Pictures, DiffusionTask):
    """Class-conditional generation of the pictures of a published classification task, uint8 (N, C, H, W)."""

    modality: ClassVar[str] = "image_generation"
    example: ClassVar[str] = "digits_generator"
    plain_attack: ClassVar[str] = "conditional_trigger"
    hue: ClassVar[str] = "#E69F00"

    def picture(self, samples: Samples, device: torch.device) -> Tensor:
        assert isinstance(samples.inputs, Tensor)
        return samples.inputs.to(device).float() / 127.5 - 1

    def media(self, pictures: Tensor) -> Tensor:
        return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()

    def correlation(self, content: Tensor, template: Tensor) -> Tensor:
        return best_match(content, template)
