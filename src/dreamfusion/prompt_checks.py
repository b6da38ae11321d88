"""What a prior will not make of a prompt: words that it does not know, a second thing, an end that it does not read."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from .distillation.rule_settings import GuidedSettings
from .priors.phrases import named, words_of
from .priors.prior import Frozen, Unknown
from .settings.config import Config
from .view.view_words import VIEWS, with_clay, with_view

MOST = 5
"""Unknown words that are named; a long prompt may have many."""
LONGEST_TAIL = 60
"""Characters of an unread end that are shown."""


def things_of(prompt: str, names: Collection[str]) -> list[str]:
    """The known things that a prompt names, each once (``phrases.named``)."""
    return list(dict.fromkeys(found.name for found in named(words_of(prompt), names)))


def readable(word: str) -> bool:
    """Whether a word has Latin letters, which is all that the bundled prior's captions have."""
    return bool(re.search("[a-z]", word.lower()))


def prompt_notes(prior: Frozen, prompt: str) -> list[str]:
    """A line for whatever of a prompt is not what the bundled prior can draw; none for priors without a list of names."""
    unknown, names = prior.unknown_words(prompt), prior.names
    if not names and not unknown:
        return []
    notes, asked, ignored = [], prior.familiar(prompt), prior.ignored(prompt)
    things = things_of(asked if ignored else prompt, names)
    unheard = {word for phrase in ignored for word in words_of(phrase)}
    unknown = [u for u in unknown if u.word not in unheard]  # of a part that is ignored anyway
    instead = f"; it will be asked for {asked!r}" if asked != prompt else ""
    if names and not things and not any(readable(u.word) for u in unknown):
        guess = f"{instead}, which is a guess" if instead else ", so it draws something of its own choice"
        notes.append(f"the prompt names no thing that the bundled prior can read (it reads English words){guess}")
    elif unknown:
        notes.append(f"the bundled prior was never taught {_listed(unknown)}{instead}")
    if len(things) > 1:
        notes.append(
            f"the prompt names {len(things)} things ({', '.join(things)}), and the bundled prior draws one; "
            "make them one by one"
        )
    if ignored:
        notes.append(
            f"the bundled prior draws whole things in one look; it ignores {', '.join(map(repr, ignored))}"
            + (instead if not unknown else "")
        )
    if side := re.search(rf"\b({'|'.join(VIEWS)}) view\b", prompt.lower()):
        notes.append(f"the prompt asks for {side[0]!r}, but a run looks from all sides; leave the side out")
    return notes


def _listed(unknown: Sequence[Unknown]) -> str:
    said = [f"{u.word!r} (nearest: {u.nearest!r}, similarity {u.similarity:.2f})" for u in unknown[:MOST]]
    more = [f"and {len(unknown) - MOST} more words"] if len(unknown) > MOST else []
    return ", ".join(said + more)


def unread_notes(prior: Frozen, config: Config) -> list[str]:
    """A line for the prompt, and one for the negative prompt, if the prior does not read it to its end."""
    prompt = config.prompt
    clay = config.shading.textureless > 0 and config.shading.textureless_words
    caption = with_clay(prompt) if clay else prompt
    texts = {"the prompt": with_view(caption, "overhead") if config.view.words else caption}
    if isinstance(config.distillation, GuidedSettings) and config.distillation.negative_prompt:
        texts["distillation.negative_prompt"] = config.distillation.negative_prompt
    found = {what: prior.unread(text) for what, text in texts.items()}
    return [
        f"{what} is too long for {prior.id!r}, which does not read its end: {_short(tail)!r}"
        for what, tail in found.items()
        if tail
    ]


def _short(tail: str) -> str:
    return tail if len(tail) <= LONGEST_TAIL else f"{tail[:LONGEST_TAIL]}…"


def asked_notes(prior: Frozen, config: Config) -> list[str]:
    """A line if the prior is to be told the camera, and reads words only."""
    if config.prior.asks != "camera" or prior.reads_camera:
        return []
    rest = "it is told the side in words" if config.view.words else "nothing tells it the side (view.words is false)"
    return [f"{prior.id!r} reads words only, so prior.asks = camera has no effect: {rest}; set prior.asks to words"]
