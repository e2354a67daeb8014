"""Patches that lie wholly inside a picture, as every attack that stamps one wants them."""

from __future__ import annotations

from collections.abc import Sequence

from attacks.base import Attack
from tasks.plugin import BadInput


def check_patch(attack: Attack, size: int, picture: Sequence[int], margin: int = 0) -> None:
    """Raises BadInput where a square patch, `margin` pixels from the edges, does not fit pictures (..., H, W).

    A smaller or a cut patch would be another trigger than the one that was asked for.
    """
    h, w = picture[-2:]
    if size + margin > min(h, w):
        asked, words = (f"size={size}, margin={margin}", "size + margin") if margin else (f"size={size}", "size")
        raise BadInput(
            f"{attack.name}: {asked}: the patch does not fit pictures of {w}x{h} pixels, {words} is at most {min(h, w)}"
        )
