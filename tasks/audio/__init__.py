"""Audio classification."""

from tasks.audio._base import AudioTask, decode_all, decode_clips
from tasks.audio._decode import decode
from tasks.audio._sounds import Sounds, to_16_bit

__all__ = ["AudioTask", "Sounds", "decode", "decode_all", "decode_clips", "to_16_bit"]
