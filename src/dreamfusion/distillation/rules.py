"""The rules by name, and which prior suits which."""

from __future__ import annotations

from ..errors import UserError
from ..priors.prior import Prior, Scorer
from .ancestral import Ancestral
from .clip_rule import ClipRule
from .reconstruction import Reconstruction
from .rule import Rule
from .rule_settings import (
    AncestralSettings,
    ClipSettings,
    DistillationSettings,
    GuidedSettings,
    ReconstructionSettings,
    SdsSettings,
)
from .sds import SDS

GUIDED: dict[type[GuidedSettings], type[SDS]] = {
    SdsSettings: SDS,
    ReconstructionSettings: Reconstruction,
    AncestralSettings: Ancestral,
}


def make_rule(settings: DistillationSettings, prior: Prior | Scorer) -> Rule:
    """The rule of the settings on a prior. UserError if the prior cannot answer its questions."""
    if isinstance(settings, ClipSettings):
        if not isinstance(prior, Scorer):
            raise UserError(
                f"distillation.kind=clip needs a prior that scores pictures (--prior guide), not {prior.id!r}"
            )
        return ClipRule(prior)
    if not isinstance(prior, Prior):
        raise UserError(
            f"the prior {prior.id!r} scores pictures and predicts no noise: it needs distillation.kind=clip"
        )
    return GUIDED[type(settings)](prior, settings)


def kept_graphs(settings: DistillationSettings) -> int:
    """How many of the prior's answers the settings' rule back-propagates through; sds: none."""
    if not isinstance(settings, GuidedSettings):
        return 0
    return GUIDED[type(settings)].graphs * (2 if settings.perp_neg else 1)
