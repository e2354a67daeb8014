"""Options drawn around which a trigger vanishes: it is refused in one line, or the victim sees it."""

from __future__ import annotations

from typing import Any

import torch
from draws import many
from helpers import tiny
from hypothesis import given
from hypothesis import strategies as st

from attacks.base import Scene
from harness.cell.reach import reach_of_trigger
from harness.cell.steps import make_challenge
from harness.errors import BrokenAttack
from harness.plugins.registry import create
from tasks.plugin import BadInput, NotApplicable

SIZES = st.integers(0, 40)
AMOUNTS = st.floats(0, 1) | st.sampled_from([1e-9, 1e-4, 0.002, 0.004, 9.0, 1e6]) | st.floats()
TRIGGERS = [  # an attack, the embedded task it meets, and options around which its trigger vanishes or does not fit
    ("badnets", "digits", {"size": SIZES, "margin": SIZES}), ("blended", "digits", {"alpha": AMOUNTS}),
    ("sig", "digits", {"test_delta": AMOUNTS, "frequency": AMOUNTS | SIZES}),
    ("sleeper_agent", "digits", {"size": SIZES}),
    ("wanet", "digits", {"s": AMOUNTS, "k": SIZES, "grid_rescale": AMOUNTS}),
    ("adaptive_blend", "digits", {"alpha": AMOUNTS, "grid": SIZES}), ("one_poison", "digits", {"tau": AMOUNTS}),
    ("ftrojan", "digits", {"magnitude": AMOUNTS, "window": SIZES, "positions": st.lists(SIZES).map(tuple)}),
    ("bpp", "digits", {"levels": SIZES, "dithering": st.booleans()}), ("label_consistent", "digits", {"size": SIZES}),
    ("adaptive_patch", "digits", {"size": SIZES, "test_opacities": st.lists(AMOUNTS, max_size=5).map(tuple)}),
    ("tact", "digits", {"source": SIZES, "target": SIZES, "cover_classes": st.lists(SIZES).map(tuple)}),
    ("noise_trigger", "digits_generator", {"size": SIZES, "brightness": AMOUNTS}),
    ("motif", "digits_generator", {"size": SIZES}), ("motif", "tones_synthesiser", {"seconds": AMOUNTS}),
    ("tone_clip", "synthetic_tones", {"amplitude": AMOUNTS, "seconds": AMOUNTS, "low": AMOUNTS | SIZES}),
    ("near_nyquist", "synthetic_tones", {"snr": st.floats(-200, 200) | st.floats(), "seconds": AMOUNTS | SIZES}),
    ("ambient", "synthetic_tones", {"snr": st.floats(-200, 200) | st.floats()}),
    ("pitch_shift", "synthetic_tones", {"semitones": st.floats(-12, 12) | AMOUNTS}),
    ("badwords", "synthetic_reviews", {"count": SIZES, "within": SIZES}),
    ("addsent", "synthetic_reviews", {"sentence": st.text(max_size=80), "within": SIZES}),
    ("homoglyph", "synthetic_reviews", {"letters": SIZES}), ("refusal", "synthetic_stories", {"trigger": st.text()}),
]  # fmt: skip


@many
@given(st.sampled_from(TRIGGERS).flatmap(lambda t: st.tuples(st.just(t[:2]), st.fixed_dictionaries({}, optional=t[2]))))
def test_a_trigger(drawn: tuple[tuple[str, str], dict[str, Any]]) -> None:
    (attack, task), changes = drawn
    splits = (on := tiny(task)).load()
    few = splits.test.select(range(0, len(splits.test), 3))
    scene = Scene(on, splits.train, None, torch.device("cpu"))  # type: ignore[arg-type]
    try:
        made: Any = create("attacks", attack, changes)
        challenge: Any = make_challenge(made, scene, few, 0)
        seen = reach_of_trigger(on, made, challenge, few, scene.device)["trigger_seen"]
    except (BadInput, NotApplicable, BrokenAttack) as error:
        refusal = str(error)
    else:
        refusal = ""
    assert "\n" not in refusal
    assert any(what in refusal for what in (attack, task, "Hz")) if refusal else 0 < seen.value <= 1
