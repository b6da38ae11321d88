"""Settings of the rules, one class for each kind. ``DistillationSettings`` is any of them, told apart by ``kind``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..schema import Settings, Unit, UnitSchedule, scheduled


class RuleSettings(Settings):
    """What all rules have: the range of the noise level, which a step draws uniformly between two schedules."""

    t_min: UnitSchedule = Field(default=[(0.0, 0.5), (0.5, 0.3), (1.0, 0.05)])
    """Smallest noise level. With little noise the bundled prior keeps what it sees, so much noise comes first, for the shape.
    The paper: 0.02."""
    t_max: UnitSchedule = Field(default=[(0.0, 0.98), (0.5, 0.9), (1.0, 0.6)])
    """Largest noise level: large at first (where things are), smaller later (what they look like). The paper: 0.98."""

    @model_validator(mode="after")
    def _ordered_noise(self) -> RuleSettings:
        knots = [x for value in (self.t_min, self.t_max) if isinstance(value, list) for x, _ in value]
        if any(scheduled(self.t_min, x) > scheduled(self.t_max, x) for x in [0.0, *knots]):
            raise ValueError("t_min must not exceed t_max")
        return self


class GuidedSettings(RuleSettings):
    """What all rules have that predict noise with guidance."""

    guidance_scale: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """w in (1 + w) e(y) - w e(nothing). The paper: 100. The bundled prior knows the camera and needs none."""
    negative_prompt: str = ""
    """Words that replace e(nothing) in guidance: what the asset must not look like."""
    perp_neg: bool = False
    """Perp-Neg: blend the words between views, and move away from the words of wrong views (Armandpour et al. 2023)."""
    weight: Literal["sigma2", "uniform", "alpha_sigma"] = "sigma2"
    """w(t): sigma^2 (the paper), 1, or alpha * sigma (steady with small priors)."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.995
    """Dynamic thresholding of the guided clean picture at this quantile; 0 is off (Saharia et al. 2022, section 2.3)."""
    rescale: Unit = 0.0
    """Guidance rescaling towards the conditional prediction's spread (Lin et al. 2023); 0 is off."""


class SdsSettings(GuidedSettings):
    kind: Literal["sds"] = "sds"


class ReconstructionSettings(GuidedSettings):
    kind: Literal["reconstruction"] = "reconstruction"


class AncestralSettings(GuidedSettings):
    kind: Literal["ancestral"] = "ancestral"
    sample_steps: Annotated[int, Field(ge=1, le=1000)] = 10
    """Steps of the sampler. Each one is a question to the prior."""
    repeat_views: Annotated[int, Field(ge=0, le=100_000)] = 0
    """After this many steps the same cameras, lights and noise are repeated (0: never). Each picture is sampled once, so the
    scene is trained like a NeRF on a set of photographs."""


class ClipSettings(RuleSettings):
    kind: Literal["clip"] = "clip"


DistillationSettings = Annotated[
    SdsSettings | ReconstructionSettings | AncestralSettings | ClipSettings, Field(discriminator="kind")
]
