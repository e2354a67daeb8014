"""Image generators."""

from tasks.image_generation._base import ImageGenerator

__all__ = ["ImageGenerator"]
