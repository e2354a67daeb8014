"""A synthesiser of the synthetic sounds."""

from __future__ import annotations

from typing import ClassVar

from tasks.audio.synthetic_tones import SyntheticTones
from tasks.audio_generation import AudioSynthesiser
from tasks.base import Task
from tasks.plugin import Positive, options


@options
class TonesSynthesiser(AudioSynthesiser):
    """Synthesis of tones by how they move (8 kHz, 0.5 s, 6 classes). Embedded; not a real dataset."""

    published: ClassVar[type[Task]] = SyntheticTones
    seconds: ClassVar[float] = 0.5

    mels: Positive = 24
