"""The files of a run, in a folder or at a URL."""

from harness.store.folder import Store

__all__ = ["Store"]
