"""Images as a medium: their raw format, and how far a poisoned image is from the clean one."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from tasks.modality import Modality

CAP = 100.0  # dB: the PSNR of identical images in place of infinity, and the limit either way


class Pictures(Modality):
    """uint8 (N, C, H, W)."""

    medium: ClassVar[str] = "image"
    raw_format: ClassVar[str] = "uint8 (N, C, H, W)"

    def is_raw(self, inputs: Tensor | list[str]) -> bool:
        return isinstance(inputs, Tensor) and inputs.dtype == torch.uint8 and inputs.ndim == 4

    def show(self, inputs: Tensor | list[str]) -> Tensor | list[str]:
        return inputs

    def fidelity(
        self, clean: Tensor | list[str], poison: Tensor | list[str], reference: Tensor | list[str]
    ) -> dict[str, Tensor]:
        assert isinstance(clean, Tensor)
        assert isinstance(poison, Tensor)
        return {"psnr": psnr(clean, poison), "ssim": ssim(clean, poison)}


def psnr(clean: Tensor, poison: Tensor) -> Tensor:
    """(N,) peak signal-to-noise ratio of uint8 images, dB."""
    error = (poison.double() - clean.double()).square().mean((1, 2, 3))
    return (10 * (255**2 / error).log10()).clamp(-CAP, CAP).float()


def ssim(clean: Tensor, poison: Tensor) -> Tensor:
    """(N,) structural similarity of uint8 images (Wang et al., 2004); 1 where they are identical.

    The Gaussian window of 11 pixels shrinks with images that are smaller than 12: to 7 pixels on 8 x 8.
    """
    from skimage.metrics import structural_similarity

    reach = (min(clean.shape[2:]) - 1) // 2  # of a window no wider than the image
    sigma = max(0.1, min(1.5, reach / 3.5))  # the window reaches int(3.5 sigma + 0.5) pixels
    compare = partial(
        structural_similarity, gaussian_weights=True, sigma=sigma, use_sample_covariance=False, data_range=255,
        channel_axis=0,
    )  # fmt: skip
    return torch.tensor([float(compare(c, p)) for c, p in zip(clean.cpu().numpy(), poison.cpu().numpy(), strict=True)])
