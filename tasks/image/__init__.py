"""Image classification."""

from tasks.image._base import ImageTask, decode, read_images, read_published, size_of, stack

__all__ = ["ImageTask", "decode", "read_images", "read_published", "size_of", "stack"]
