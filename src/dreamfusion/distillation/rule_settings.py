"""Settings of the rules, one class for each kind. ``DistillationSettings`` is any of them, told apart by ``kind``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..schema import Positive, Settings, Unit, UnitSchedule, Weight, WeightSchedule, scheduled

Guidance = Annotated[float, Field(ge=0, le=1000)]


NoiseWeight = Literal["sigma2", "uniform", "alpha_sigma", "sigma_over_alpha"]


class RuleSettings(Settings):
    """What all rules have: the range of the noise level, which a step draws uniformly between two schedules."""

    t_min: UnitSchedule = Field(default=[(0.0, 0.5), (0.5, 0.3), (1.0, 0.05)])
    """Smallest noise level. With little noise the bundled prior keeps what it sees, so much noise comes first, for the shape.
    The paper: 0.02."""
    t_max: UnitSchedule = Field(default=[(0.0, 0.98), (0.5, 0.9), (1.0, 0.6)])
    """Largest noise level: large at first (where things are), smaller later (what they look like). The paper: 0.98."""
    t_order: Literal["random", "sqrt", "dreamtime"] = "random"
    """How levels are drawn between t_min and t_max: at random; or one level that falls from t_max to t_min, with the square root of the
    progress (HiFA), or by DreamTime's weights (Huang et al. 2023)."""
    clip_pixels: WeightSchedule = 0.0
    """Pixel-wise gradient clipping: bound on the largest channel of a pixel's gradient; 0 is off (Pan et al. 2023: 0.1)."""

    @model_validator(mode="after")
    def _ordered_noise(self) -> RuleSettings:
        knots = [x for value in (self.t_min, self.t_max) if isinstance(value, list) for x, _ in value]
        if any(scheduled(self.t_min, x) > scheduled(self.t_max, x) for x in [0.0, *knots]):
            raise ValueError("t_min must not exceed t_max")
        return self


class GuidedSettings(RuleSettings):
    """What all rules have that predict noise with guidance."""

    guidance_scale: Guidance | Annotated[list[tuple[Unit, Guidance]], Field(min_length=1)] = 0.0
    """w in (1 + w) e(y) - w e(nothing). The paper: 100. The bundled prior knows the camera and needs none."""
    negative_prompt: str = ""
    """Words that replace e(nothing) in guidance: what the asset must not look like. {prompt} in it stands for the prompt, with its
    words for the view. Some rules give these words a part of their own."""
    perp_neg: bool = False
    """Perp-Neg: blend the words between views, and move away from the words of wrong views (Armandpour et al. 2023)."""
    weight: NoiseWeight = "sigma2"
    """w(t): sigma^2 (the paper), 1, alpha * sigma (steady with small priors), or sigma / alpha (LucidDreamer)."""
    clip_score: WeightSchedule = 0.0
    """Score debiasing: bound on each element of the direction in the prior's space; 0 is off (Hong et al. 2023: 0.5 to 2)."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Dynamic thresholding of the guided clean picture at this quantile, e.g. 0.995; 0 is off (Saharia et al. 2022, section 2.3). It is
    meant for sampling: it divides the whole picture, its background too, so in distillation all of space fills with noise."""
    rescale: Unit = 0.0
    """Guidance rescaling towards the conditional prediction's spread, measured over a group's views (Lin et al. 2023); 0 is off."""


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


class CsdSettings(GuidedSettings):
    """Classifier score distillation. ``guidance_scale`` is the factor of the whole."""

    kind: Literal["csd"] = "csd"
    negative_share: UnitSchedule = 0.0
    """Share of e(negative_prompt), and not of e(nothing), in what is taken away from e(y) (Yu et al. 2023: from 0 to 1)."""


class SsdSettings(GuidedSettings):
    """Stable score distillation. ``guidance_scale`` is the factor of e(y) - e(nothing)."""

    kind: Literal["ssd"] = "ssd"
    seek_below: Unit = 0.3
    """Noise level below which the mode-seeking part takes over (Tang et al. 2023: about 0.3; its copies: 0.1 to 0.8)."""


class NfsdSettings(GuidedSettings):
    kind: Literal["nfsd"] = "nfsd"
    negative_prompt: str = (
        "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
    )
    """What noise looks like that is no picture's (the paper's words)."""
    plain_below: Unit = 0.2
    """Noise level below which e(nothing) itself points to the manifold of pictures (Katzir et al. 2023: 0.2)."""


class SjcSettings(GuidedSettings):
    kind: Literal["sjc"] = "sjc"
    weight: NoiseWeight = "uniform"
    """w(t): 1 (Wang et al. 2022), or that of another paper; see sds."""
    reduce_variance: bool = True
    """Subtract the noise from the prediction: the same mean, far less variance."""


class DdsSettings(GuidedSettings):
    kind: Literal["dds"] = "dds"
    reference_views: Annotated[int, Field(ge=1, le=100_000)] = 48
    """The views of so many steps come again in turn, with their noise. The first round remembers how the scene looked."""


class BridgeSettings(GuidedSettings):
    """SDS as a bridge. ``guidance_scale`` is the factor of the whole; the negative prompt says what is there now."""

    kind: Literal["bridge"] = "bridge"
    negative_prompt: str = (
        "{prompt}, oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed"
    )
    """What the scene looks like now; {prompt} stands for the prompt with its words for the view (the paper's words)."""


class HifaSettings(GuidedSettings):
    kind: Literal["hifa"] = "hifa"
    sample_steps: Annotated[int, Field(ge=1, le=1000)] = 4
    """DDIM steps from the noisy picture to the clean one. Each one is a question to the prior."""
    image_weight: WeightSchedule = 0.1
    """Weight of the difference in the picture itself (Zhu et al. 2023: 0.1; threestudio: 0.01)."""


class IsmSettings(GuidedSettings):
    kind: Literal["ism"] = "ism"
    interval: UnitSchedule = 0.05
    """How much noisier the guided picture is than the plain one (Liang et al. 2023: 0.05)."""
    inversion_stride: Positive = 0.2
    """Largest step of the inversion. Each one is a question to the prior (Liang et al. 2023: 0.2)."""


class SdiSettings(GuidedSettings):
    kind: Literal["sdi"] = "sdi"
    inversion_steps: Annotated[int, Field(ge=1, le=1000)] = 10
    """DDIM steps of the inversion. Each one is a question to the prior."""
    inversion_guidance: Annotated[float, Field(ge=-1000, le=1000)] = -7.5
    """w of the inversion (Lukoianov et al. 2024: the negative of the guidance)."""
    fresh_noise: Unit = 0.3
    """Share of new noise in the inverted noise, as a standard deviation (Lukoianov et al. 2024: 0.3)."""


class AsdSettings(GuidedSettings):
    kind: Literal["asd"] = "asd"
    shift: Unit = 0.1
    """Largest shift of t for the second prediction, as a share of t - t_min (Ma et al. 2024: 0.1)."""


class Consistent3dSettings(GuidedSettings):
    kind: Literal["consistent3d"] = "consistent3d"
    gap: tuple[Unit, Unit] = (0.1, 0.3)
    """Range of the step down the trajectory, in t (Wu et al. 2024: 0.1 to 0.3)."""


class RfdsSettings(GuidedSettings):
    kind: Literal["rfds"] = "rfds"
    weight: NoiseWeight = "uniform"
    """w(t): 1 (Yang et al. 2024, eq. 8), or that of another paper; see sds."""
    revised: bool = False
    """RFDS-Rev: first move the noise to where the flow comes from, at one more question to the prior."""
    noise_step: Positive = 1.0
    """How far the noise moves (Yang et al. 2024: eta)."""


class VsdSettings(GuidedSettings):
    kind: Literal["vsd"] = "vsd"
    learner: Literal["auto", "network", "low_rank"] = "auto"
    """What learns the noise of the scene's own pictures: 'network', a small one that corrects the prior's answer; 'low_rank',
    low-rank updates (LoRA) of the prior's attention, if it has a network to adapt. auto: low_rank where it can."""
    learner_lr: Weight = 1e-4
    """Learning rate of the learner (AdamW). The paper, for LoRA: 1e-4. The small network wants 1e-3."""
    learner_steps: Annotated[int, Field(ge=0, le=100)] = 1
    """Steps of the learner in each step of the run."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 4
    """Rank of the low-rank updates."""
    width: Annotated[int, Field(ge=4, le=1024)] = 32
    """Channels of the small network."""
    camera_drop: Unit = 0.1
    """Share of the learner's pictures whose camera it is not told."""


class ClipSettings(RuleSettings):
    kind: Literal["clip"] = "clip"
    warps: Annotated[int, Field(ge=0, le=32)] = 0
    """Copies of each picture that the CLIP sees, each shifted and in a random perspective; 0: the picture as it is."""
    warp: Unit = 0.6
    """Strength of the perspectives: the corners of a copy come nearer to its middle by up to half of this share of its width."""


AnyGuided = (
    SdsSettings | ReconstructionSettings | AncestralSettings | SjcSettings | VsdSettings | CsdSettings | SsdSettings | HifaSettings
    | NfsdSettings | DdsSettings | IsmSettings | SdiSettings | AsdSettings | BridgeSettings | Consistent3dSettings | RfdsSettings
)  # fmt: skip
DistillationSettings = Annotated[AnyGuided | ClipSettings, Field(discriminator="kind")]
