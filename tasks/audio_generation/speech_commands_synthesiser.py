"""A synthesiser of spoken commands."""

from __future__ import annotations

from typing import ClassVar

from tasks.audio.speech_commands import SpeechCommands
from tasks.audio_generation import AudioSynthesiser
from tasks.base import Task
from tasks.plugin import options


@options
class SpeechCommandsSynthesiser(AudioSynthesiser):
    """Synthesis of three spoken words (16 kHz, 1 s)."""

    published: ClassVar[type[Task]] = SpeechCommands
