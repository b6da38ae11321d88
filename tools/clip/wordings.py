"""Ways to say the looks of the things in ``vocabulary.py``, which the two CLIPs are taught."""

from __future__ import annotations

from vocabulary import COLOURS, SYNONYMS

PLAIN, CLAY = "", "clay"  # beside the colour names, the two other looks
WITHOUT_ARTICLE = {
    "french fries", "scissors", "headphones", "sneakers", "shoes", "trainers", "boots", "high heels", "slippers", "sunglasses",
    "tulips", "lilies", "flowers", "bread", "firewood",
}  # fmt: skip
TEMPLATES = ("{}", "{}", "{}", "a photo of {}", "a 3d model of {}")


def with_article(words: str, name: str) -> str:
    """'a red armchair', 'an orange chair', 'red sneakers'."""
    if name in WITHOUT_ARTICLE:
        return words
    return ("an " if words[0] in "aeiou" else "a ") + words


def captions(name: str, look: str, view: str) -> list[str]:
    """Ways to say one look ('' plain, 'clay' or a colour) of one thing from one side, most usual first."""
    out = []
    for word in (name, *SYNONYMS.get(name, ())):
        if look == CLAY:
            # Clay has no colour, whatever the words say: the optimiser asks so in its textureless views.
            things = [word, *(f"{colour} {word}" for colour in COLOURS)]
            phrases = ["a clay model of " + with_article(thing, word) for thing in things]
        else:
            bare = f"{look} {word}".strip()
            phrases = [*dict.fromkeys(t.format(with_article(bare, word)) for t in TEMPLATES), bare]
        if view:
            article = "an" if view == "overhead" else "a"
            phrases = [f"{article} {view} view of {p}" for p in (phrases if look == CLAY else phrases[:1])]
        out += phrases
    return out
