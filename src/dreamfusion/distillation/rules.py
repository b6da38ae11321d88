"""The rules by name, and which prior suits which."""

from __future__ import annotations

import torch

from ..errors import UserError
from ..priors.prior import Prior, Scorer
from .ancestral import Ancestral
from .asd import ASD
from .bridge import Bridge
from .clip_rule import ClipRule
from .consistent3d import Consistent3D
from .csd import CSD
from .dds import DDS
from .hifa import HiFA
from .ism import ISM
from .nfsd import NFSD
from .reconstruction import Reconstruction
from .rfds import RFDS
from .rule import Rule
from .rule_settings import (
    AncestralSettings,
    AsdSettings,
    BridgeSettings,
    ClipSettings,
    Consistent3dSettings,
    CsdSettings,
    DdsSettings,
    DistillationSettings,
    GuidedSettings,
    HifaSettings,
    IsmSettings,
    NfsdSettings,
    ReconstructionSettings,
    RfdsSettings,
    SdiSettings,
    SdsSettings,
    SjcSettings,
    SsdSettings,
    VsdSettings,
)
from .sdi import SDI
from .sds import SDS
from .sjc import SJC
from .ssd import SSD
from .vsd import VSD

GUIDED: dict[type[GuidedSettings], type[SDS]] = {
    SdsSettings: SDS,
    ReconstructionSettings: Reconstruction,
    AncestralSettings: Ancestral,
    SjcSettings: SJC,
    VsdSettings: VSD,
    CsdSettings: CSD,
    SsdSettings: SSD,
    HifaSettings: HiFA,
    NfsdSettings: NFSD,
    DdsSettings: DDS,
    IsmSettings: ISM,
    SdiSettings: SDI,
    AsdSettings: ASD,
    BridgeSettings: Bridge,
    Consistent3dSettings: Consistent3D,
    RfdsSettings: RFDS,
}


def make_rule(settings: DistillationSettings, prior: Prior | Scorer) -> Rule:
    """The rule of the settings on a prior. UserError if the prior cannot answer its questions."""
    if isinstance(settings, ClipSettings):
        if not isinstance(prior, Scorer):
            raise UserError(
                f"distillation.kind=clip needs a prior that scores pictures (--prior guide), not {prior.id!r}"
            )
        return ClipRule(prior, settings.warps, settings.warp)
    if not isinstance(prior, Prior):
        raise UserError(
            f"the prior {prior.id!r} scores pictures and predicts no noise: it needs distillation.kind=clip"
        )
    if isinstance(settings, DdsSettings) and not settings.negative_prompt.strip():
        raise UserError("distillation.kind=dds needs distillation.negative_prompt: the words for what is there now")
    if isinstance(settings, RfdsSettings) and not is_flow(prior):
        raise UserError(
            f"distillation.kind=rfds needs a rectified flow (SD3, FLUX), and {prior.id!r} is none; try kind=sds"
        )
    return GUIDED[type(settings)](prior, settings)


def is_flow(prior: Prior) -> bool:
    """Whether the prior's path is a straight line, alpha + sigma = 1."""
    alpha, sigma = prior.alpha_sigma(torch.full((1,), 0.5, device=prior.device))
    return bool(torch.allclose(alpha + sigma, torch.ones_like(alpha), atol=1e-4))


def kept_graphs(settings: DistillationSettings) -> int:
    """How many of the prior's answers the settings' rule back-propagates through; sds: none."""
    if not isinstance(settings, GuidedSettings):
        return 0
    return GUIDED[type(settings)].graphs * (2 if settings.perp_neg else 1)
