"""WaNet against its formula by NumPy and SciPy: the field by a plain cubic convolution, the warp by map_coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from attacks.image.wanet import warp, warping_grid


def cubic(control: np.ndarray, size: int) -> np.ndarray:
    """Numbers (k, ...) read at `size` places, corners on corners, by Keys' kernel of a = -0.75 with repeated edges."""
    k, a = len(control), -0.75
    out = np.zeros((size, *control.shape[1:]))
    for i in range(size):
        place = i * (k - 1) / (size - 1)
        for j in range(int(place) - 1, int(place) + 3):
            d = abs(place - j)
            inner = (a + 2) * d**3 - (a + 3) * d**2 + 1
            weight = inner if d <= 1 else a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0
            out[i] += weight * control[min(max(j, 0), k - 1)]
    return out


@pytest.mark.parametrize(("h", "w", "rescale"), [(16, 16, 1.0), (16, 16, 0.98), (12, 9, 1.0)])
def test_pictures_are_read_where_the_published_formula_says(h: int, w: int, rescale: float) -> None:
    """To a grey level, and in most pixels exactly; a picture that is no square counts shifts in pixels of each side."""
    k, s, seed = 4, 0.5, 3
    control = torch.rand(1, 2, k, k, generator=torch.Generator().manual_seed(seed))[0].double().numpy() * 2 - 1
    control = control / np.abs(control).mean()
    field = np.stack([cubic(cubic(part, h).T, w).T for part in control], 2)  # (H, W, 2), x first
    y, x = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    wanted = np.clip((np.stack([x, y], 2) + s * field / np.array([w, h])) * rescale, -1, 1)
    grid = warping_grid(h, w, k, s, rescale, seed)
    np.testing.assert_allclose(grid.numpy(), wanted, atol=1e-5)
    pictures = torch.randint(0, 256, (3, 2, h, w), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    places = np.stack([(wanted[..., 1] + 1) / 2 * (h - 1), (wanted[..., 0] + 1) / 2 * (w - 1)])
    theirs = np.stack([[map_coordinates(c.astype(float), places, order=1) for c in p] for p in pictures.numpy()])
    ours = warp(pictures, grid).numpy()
    assert np.abs(ours - theirs).max() <= 0.51, "rounded to whole grey levels"
    assert (ours != pictures.numpy()).mean() > 0.5
