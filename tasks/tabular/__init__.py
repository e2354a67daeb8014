"""Classification of rows of a table."""

from tasks.tabular._base import TabularTask

__all__ = ["TabularTask"]
