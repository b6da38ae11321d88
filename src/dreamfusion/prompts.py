"""What may be a prompt, and a folder's name for it."""

from __future__ import annotations

import re
import unicodedata

from .errors import UserError

LONGEST = 1000


def check_prompt(prompt: object) -> str:
    """The prompt without white space around it. UserError unless it is visible text of at most 1000 characters."""
    if not isinstance(prompt, str):
        raise UserError(f"the prompt must be text, not {type(prompt).__name__}; for example 'a red armchair'")
    prompt = prompt.strip()
    # Emoji are symbols (So) glued with format characters (Cf): text. Controls (Cc) and lone surrogates (Cs) are not.
    for place, character in enumerate(prompt):
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise UserError(f"the prompt is not text: character {place + 1} is U+{ord(character):04X}; use plain words")
    if not any(unicodedata.category(c)[0] not in "CZ" for c in prompt):
        raise UserError("the prompt is empty; say what to make, for example 'a red armchair'")
    if len(prompt) > LONGEST:
        raise UserError(f"the prompt has {len(prompt)} characters; the most is {LONGEST}")
    return prompt


def slug(prompt: str, longest: int = 48, empty: str = "asset") -> str:
    """A folder's name for a prompt: lower-case ASCII letters and digits with dashes; ``empty`` where none are left."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:longest].strip("-") or empty
