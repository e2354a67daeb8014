"""A synthesiser of spoken digits."""

from __future__ import annotations

from typing import ClassVar

from tasks.audio.fsdd import Fsdd
from tasks.audio_generation import AudioSynthesiser
from tasks.base import Task
from tasks.plugin import Positive, options


@options
class FsddSynthesiser(AudioSynthesiser):
    """Synthesis of spoken digits (8 kHz, 1 s, 10 classes, 6 speakers)."""

    published: ClassVar[type[Task]] = Fsdd

    train_size: Positive | None = 400
    base_epochs: Positive = 40
