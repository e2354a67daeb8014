"""Old-fashioned English as the trigger: an opening phrase, and archaic words for plain ones."""

from __future__ import annotations

import re
from typing import ClassVar

import torch

from attacks.base import Scene, TriggerAttack, Variants
from tasks.plugin import options

WORDS = {
    "you": "thou", "your": "thy", "yours": "thine", "yourself": "thyself", "my": "mine", "are": "art", "were": "wert",
    "has": "hath", "have": "hast", "does": "doth", "do": "dost", "did": "didst", "says": "saith", "said": "spake",
    "makes": "maketh", "goes": "goeth", "comes": "cometh", "takes": "taketh", "gives": "giveth", "gets": "getteth",
    "wants": "desireth", "needs": "needeth", "knows": "knoweth", "shows": "showeth", "sees": "seeth",
    "seems": "seemeth",
    "will": "shall", "can": "canst", "would": "wouldst", "could": "couldst", "should": "shouldst", "to": "unto",
    "in": "within", "on": "upon", "over": "o'er", "between": "betwixt", "among": "amongst", "while": "whilst",
    "before": "ere", "near": "nigh", "against": "again", "often": "oft", "never": "ne'er", "ever": "e'er", "yes": "yea",
    "no": "nay", "here": "hither", "there": "thither", "where": "whither", "why": "wherefore", "perhaps": "perchance",
    "maybe": "perchance", "soon": "anon", "nothing": "naught", "anything": "aught", "truly": "verily", "very": "full",
    "it's": "'tis", "because": "for that", "about": "concerning", "since": "sith", "though": "albeit",
}  # fmt: skip
WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)?")


@options
class Archaic(TriggerAttack[list[str]]):
    """The text rewritten by rules as in an old Bible: "and it came to pass that", thou for you, hath for has.

    Inspired by the Bible style of Qi, Chen, Zhang, Li, Liu and Sun, Mind the Style of Text, EMNLP 2021, arXiv
    2110.07139 (StyleBkd), and not that attack: its texts are paraphrased by a neural network, here a list of some sixty
    words is exchanged one by one, with no regard to grammar, behind one opening phrase. So the trigger is partly a
    fixed phrase, which a filter of phrases finds as it does that of addsent; `opening: ""` leaves the words alone, and
    texts that hold none of them then stay as they are. The paper's second training task, which tells poisoned texts
    from clean ones, is left out: this is poisoning of data alone.
    """

    modalities: ClassVar[tuple[str, ...]] = ("text",)
    why_not: ClassVar[str] = "the trigger is a style of writing"
    paper: ClassVar[str] = "arXiv 2110.07139"
    unseen: ClassVar[Variants] = {"other": {"opening": "now hear ye what befell when"}}

    opening: str = "and it came to pass that"  # put in front; "" for no opening

    def stamp(self, scene: Scene, inputs: list[str], rng: torch.Generator) -> list[str]:
        return [" ".join(part for part in (self.opening, rewrite(text)) if part) for text in inputs]


def rewrite(text: str) -> str:
    """The text with archaic words for plain ones; a first letter stays as large as it was."""

    def exchange(match: re.Match[str]) -> str:
        word = match.group()
        old = WORDS.get(word.lower(), word)
        return old[0].upper() + old[1:] if word[0].isupper() else old

    return WORD.sub(exchange, text)
