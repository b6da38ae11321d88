"""The words for a view. They ask a prior that knows no cameras for the right side (Poole et al. 2022, 3.2)."""

from __future__ import annotations

from .view_settings import ViewSettings

VIEWS = ("front", "side", "back", "overhead")


def view_words(azimuth_deg: float, elevation_deg: float, settings: ViewSettings) -> str:
    """Which of ``VIEWS`` a camera sees: overhead above its threshold, else by |azimuth| (any turn, in degrees)."""
    if elevation_deg > settings.overhead_deg:
        return "overhead"
    turn = abs((azimuth_deg + 180) % 360 - 180)
    if turn <= settings.front_deg:
        return "front"
    return "back" if turn >= settings.back_deg else "side"


def with_clay(prompt: str) -> str:
    """The prompt for a textureless view."""
    return f"a clay model of {prompt}"


def with_view(prompt: str, view: str) -> str:
    """The prompt (left as it was typed) seen from one of ``VIEWS``: 'a back view of a red armchair'."""
    return f"{'an' if view == 'overhead' else 'a'} {view} view of {prompt}"
