"""What the fuzz tests share: their settings, and values that no one expects.

TINYDROP_FUZZ=20000 tries that many of each (the default is a hundred).
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=12)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))

many = settings(
    max_examples=int(os.environ.get("TINYDROP_FUZZ", "100")), deadline=None, database=None,
    suppress_health_check=list(HealthCheck), derandomize="TINYDROP_FUZZ" not in os.environ,
)  # fmt: skip
