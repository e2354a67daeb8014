"""Audio synthesisers."""

from tasks.audio_generation._base import AudioSynthesiser

__all__ = ["AudioSynthesiser"]
