"""What a text encoder does not read of a text that is too long for it."""

from __future__ import annotations

from typing import Any


def unread_end(tokenizer: Any, text: str, most: int) -> str:
    """The end of a text that is cut off at ``most`` tokens, as the tokenizer spells it; '' if all is read."""
    ids = list(tokenizer(text, truncation=False, verbose=False)["input_ids"])
    if len(ids) <= most:
        return ""
    return str(tokenizer.decode(ids[most - 1 :], skip_special_tokens=True)).strip()
