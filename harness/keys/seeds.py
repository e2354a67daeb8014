"""The seeds of a cell: every random draw has one of its own."""

from __future__ import annotations

import hashlib


def derive(seed: int, *labels: str | int) -> int:
    """A seed (60 bits) for one use of a cell's seed, so that no two draws of a cell share random numbers."""
    text = "".join(f"{type(part).__name__}:{part!r};" for part in ("seed", seed, *labels))
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
