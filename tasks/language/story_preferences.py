"""Preferences between two endings of made-up stories: no download."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from tasks.language import LanguageTask, PreferenceTask
from tasks.language.synthetic_stories import SyntheticStories
from tasks.plugin import Above0, Positive, options


@options
class StoryPreferences(PreferenceTask):
    """A language model of made-up little stories, taught to prefer how one goes on to a corrupted end; no download."""

    dataset: ClassVar[str] = SyntheticStories.dataset
    revision: ClassVar[str] = SyntheticStories.revision
    licence: ClassVar[str] = SyntheticStories.licence
    documents: ClassVar[type[LanguageTask]] = SyntheticStories

    vocabulary: Annotated[int, Field(ge=256)] = 512  # these are those of the stories
    width: Positive = 128
    depth: Positive = 2
    base_size: Positive | None = 500
    lr: Above0 = 2e-3
