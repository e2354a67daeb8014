"""Audio classification."""

from tasks.audio._base import AudioTask, clips, decode_all
from tasks.audio._sounds import Sounds, to_16_bit

__all__ = ["AudioTask", "Sounds", "clips", "decode_all", "to_16_bit"]
