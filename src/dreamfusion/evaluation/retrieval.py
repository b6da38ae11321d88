"""CLIP R-Precision (Park et al. 2021; as in Jain et al. 2022, "Dream Fields", and Poole et al. 2022).

A picture's own prompt is ranked among all prompts of the suite by the judge's cosine similarity; R-Precision @ k is the
share of pictures whose prompt is among the first k.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..clip.clip import Clip
from ..errors import UserError

DEPTHS = (1, 10)


def ranks(similarity: Tensor, truth: Tensor | int) -> Tensor:
    """Rank (B,) of the true caption in each row of similarities (B, N), 1 is best; ``truth`` (B,) or one index.

    Captions that tie with the true one share the places between them: the rank is the middle, so that a judge who
    answers everything alike finds no more than chance. Rows that are not finite rank last.
    """
    if isinstance(truth, int):
        truth = torch.full((len(similarity),), truth)
    own = similarity.gather(1, truth[:, None])
    better = (similarity > own).sum(1)
    alike = (similarity == own).sum(1) - 1
    place = 1 + better + alike / 2
    return torch.where(similarity.isfinite().all(1), place, torch.full_like(place, similarity.shape[1]))


def precision(places: Tensor, depth: int) -> float:
    """Share of the ranks that are at most ``depth``."""
    return float((places <= depth).float().mean()) if len(places) else float("nan")


def check_judge(clip: Clip, prior_hashes: Iterable[str]) -> None:
    """UserError if the judge is the model that guided one of the runs, or may only guide."""
    if clip.role == "guide":
        raise UserError(f"{clip.id} is a guide's CLIP and must never be a judge: what guides may not judge")
    if clip.hash in set(prior_hashes):
        raise UserError(
            f"the judge {clip.id} is the model that guided a run (SHA-256 {clip.hash[:12]}…); take another one"
        )
