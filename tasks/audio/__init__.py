"""Audio classification."""

from tasks.audio._base import AudioTask, clips, decode_all, to_16_bit

__all__ = ["AudioTask", "clips", "decode_all", "to_16_bit"]
