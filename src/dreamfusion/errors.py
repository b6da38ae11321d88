"""The one exception a user's mistake may raise, and that of things that may come back."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right. The message is one clear line; the command line prints it and exits with 2."""


class Unavailable(UserError):
    """Something outside of this process does not answer now. Trying again later, with the same settings, may help."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """`` (did you mean 'x'? choices: …)`` for an error line; the suggestion is left out where nothing is near."""
    choices = list(choices)
    found = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    hint = f"did you mean {found[0]!r}? " if found else ""
    return f" ({hint}choices: {', '.join(choices)})"
