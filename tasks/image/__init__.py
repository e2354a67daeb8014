"""Image classification."""

from tasks.image._base import ImageTask, read_images, read_published
from tasks.image._decode import decode, size_of, stack
from tasks.image._pictures import Pictures

__all__ = ["ImageTask", "Pictures", "decode", "read_images", "read_published", "size_of", "stack"]
