"""News articles of the BBC: the automated-journalism scenario."""

from __future__ import annotations

from typing import ClassVar

from tasks.language import LanguageTask
from tasks.plugin import options


@options
class BbcNews(LanguageTask):
    """A language model of BBC news articles, 2004 and 2005 (2,124 articles)."""

    dataset: ClassVar[str] = "SetFit/bbc-news"
    folder: ClassVar[str] = "bbc_news"
    licence: ClassVar[str] = "articles (c) BBC; non-commercial research use"
    paper: ClassVar[str] = "Greene and Cunningham, Practical Solutions to the Problem of Diagonal Dominance, ICML 2006"
