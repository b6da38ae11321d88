"""Everything a run depends on, typed and validated. A preset is a page of these values (``presets/*.yaml``).

Angles are in degrees, lengths in world units (the object lives in the unit sphere), times ``t`` in [0, 1].
A *schedule* is a number, or a list of ``[progress, value]`` knots (progress = step / steps in [0, 1], linear between).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

Unit = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Azimuth = Annotated[float, Field(ge=-360, le=360)]
Elevation = Annotated[float, Field(ge=-90, le=90)]
Levels = Annotated[tuple[Annotated[int, Field(ge=2, le=512)], ...], Field(min_length=1, max_length=16)]
Device = Annotated[
    str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", examples=["auto", "cpu", "cuda", "cuda:1", "mps"])
]
Range = tuple[float, float]
Schedule = float | list[tuple[float, float]]
UnitSchedule = Unit | Annotated[list[tuple[Unit, Unit]], Field(min_length=1)]
PositiveSchedule = Positive | Annotated[list[tuple[Unit, Positive]], Field(min_length=1)]
WeightSchedule = Weight | Annotated[list[tuple[Unit, Weight]], Field(min_length=1)]


def scheduled(value: Schedule, progress: float) -> float:
    """Value of a schedule at ``progress`` in [0, 1]: piecewise linear, constant beyond its ends."""
    if isinstance(value, int | float):
        return float(value)
    knots = sorted(value)
    if progress <= knots[0][0]:
        return knots[0][1]
    for (x0, y0), (x1, y1) in pairwise(knots):
        if progress <= x1:
            return y0 + (y1 - y0) * (progress - x0) / max(x1 - x0, 1e-9)
    return knots[-1][1]


class Settings(BaseModel):
    """Base of all groups: unknown names are errors, values are checked on assignment too."""

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="after")
    @classmethod
    def _ordered_range(cls, value: object, info: ValidationInfo) -> object:
        if info.field_name in ("betas", "levels"):  # tuples, but not ranges
            return value
        numbers = isinstance(value, tuple) and len(value) == 2 and all(isinstance(x, int | float) for x in value)
        if numbers and value[0] > value[1]:  # type: ignore[index]
            raise ValueError("the first number of a range must not exceed the second")
        return value


class PriorSettings(Settings):
    id: str = "bundled"
    """Which frozen diffusion model: 'bundled', weights of its kind, 'hf:OWNER/NAME[@REVISION]', the folder of a
    diffusers pipeline, or a mixture such as '0.7*A + 0.3*B'. Or 'guide', a CLIP, with distillation.kind=clip."""
    camera: bool = True
    """Tell the prior the camera (as MVDream does); off asks it with words alone, as Imagen was asked."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the prior's forward pass; auto takes bfloat16 where the processor has it in hardware."""
    memory: Literal["auto", "fast", "low", "lowest"] = "auto"
    """How to load large priors: all on the device, one model at a time, or layer by layer; auto takes the first that
    fits."""
    text_8bit: bool = False
    """Load a T5 text encoder in 8 bit (needs bitsandbytes and a GPU)."""


class ViewSettings(Settings):
    azimuth_deg: tuple[Azimuth, Azimuth] = (-180.0, 180.0)
    """Azimuths to look from; 0 sees the front, 90 the side at +X."""
    elevation_deg: tuple[Elevation, Elevation] = (-30.0, 60.0)
    """Elevations to look from (the paper: -10 to 90)."""
    radius: tuple[Positive, Positive] = (2.3, 2.7)
    """Camera distances (the seed: 1.5 to 2.5)."""
    fov_deg: Annotated[float, Field(gt=1, lt=170)] = 47.0
    """Full field of view. At 47 the unit sphere just fills the frame from a distance of 2.5."""
    fit: bool = False
    """Widen the field of view of near cameras, so that the unit sphere fills the frame at every radius."""
    words: bool = True
    """Put 'a front view of', 'a side view of' … before the prompt."""
    front_deg: Annotated[float, Field(ge=0, le=180)] = 45.0
    """Largest |azimuth| that is called front."""
    back_deg: Annotated[float, Field(ge=0, le=180)] = 135.0
    """Smallest |azimuth| that is called back."""
    overhead_deg: Annotated[float, Field(ge=-90, le=91)] = 60.0
    """Views from above this elevation are called overhead."""
    light_above_deg: tuple[Elevation, Elevation] = (30.0, 30.0)
    """Elevation of the key light above the camera's own direction."""
    light_around_deg: tuple[Azimuth, Azimuth] = (0.0, 0.0)
    """Turn of the key light about the vertical, from the camera's own direction."""
    ambient: Unit = 0.5
    """Share of light that comes from everywhere; the rest is the Lambertian key light."""
    background: Literal["gray", "white", "black", "random", "learned", "augmented"] = "gray"
    """What stands behind the object when the prior is asked. Before one colour, fog of that colour is never found out:
    'random' draws a colour for each picture. The bundled prior is told plain colours; augmented is noise, checkerboards
    and textures, blurred (Dream Fields)."""


class ShadingSettings(Settings):
    albedo: Weight = 0.1
    """Weight of views that show the albedo alone."""
    lambertian: Weight = 0.75
    """Weight of views with ambient + Lambertian light."""
    textureless: Weight = 0.15
    """Weight of views of the lit shape in plain white: 'a clay model of …'."""
    latent_until: Unit = 1.0
    """With scene.channels other than 3: share of the run, at its start, that renders latents; then pictures
    (Latent-NeRF)."""
    albedo_until: Unit = 0.0
    """Share of the run, at its start, that shows the albedo alone (the paper: 1000 of 15000 steps)."""
    textureless_words: bool = True
    """Ask for 'a clay model of …' in textureless views (a caption the bundled prior was trained on)."""

    @model_validator(mode="after")
    def _something_to_show(self) -> ShadingSettings:
        if self.albedo + self.lambertian + self.textureless <= 0:
            raise ValueError("one of albedo, lambertian and textureless must be above 0")
        return self


class SceneSettings(Settings):
    kind: Literal["grid", "mlp"] = "grid"
    """The field: a multi-resolution feature grid with a tiny head, or a mip-NeRF 360-style MLP."""
    channels: Annotated[int, Field(ge=3, le=32)] = 3
    """Channels of the field's colour: 3, or as many as a latent prior has (Stable Diffusion: 4), to render its
    latents."""
    levels: Levels = (16, 40, 96)
    """grid: vertices a side of each level."""
    features: Annotated[int, Field(ge=1, le=8)] = 3
    """grid: colour features a vertex and level (one more channel is the density)."""
    hidden: Annotated[int, Field(ge=4, le=512)] = 16
    """Width of the head (grid) or of the trunk (mlp)."""
    depth: Annotated[int, Field(ge=1, le=12)] = 5
    """mlp: number of hidden layers."""
    frequencies: Annotated[int, Field(ge=1, le=16)] = 8
    """mlp: octaves of the integrated positional encoding."""
    samples: Annotated[int, Field(ge=8, le=1024)] = 96
    """Samples along a ray through the whole unit sphere."""
    importance: Annotated[int, Field(ge=0, le=1024)] = 0
    """mlp: most samples a ray, placed where the occupancy remembers something; 0 takes all `samples` in occupied
    cells."""
    mean_importance: Annotated[float, Field(ge=0)] = 0
    """mlp: most of these on average over a picture's rays, empty ones included, so that a step's cost is bounded; 0 is
    no limit."""
    density_bias: float = 5.0
    """Height of the blob of density at the origin that every run starts from (the paper: 5)."""
    density_bias_width: Positive = 0.3
    """Its standard deviation (the paper: 0.2)."""
    density_scale: Positive = 20.0
    """Density that a raw value of about one means, in 1 / world unit."""
    fast: bool = True
    """Use the fused CPU kernels where the field has them; off runs the plain PyTorch renderer."""


class DistillationSettings(Settings):
    kind: str = "sds"
    """The rule that turns the prior's answer into a direction: sds, reconstruction, ancestral, or clip (with the prior
    'guide')."""
    guidance_scale: Annotated[float, Field(ge=0, le=1000)] = 10.0
    """w in (1 + w) e(y) - w e(nothing). The paper: 100."""
    negative_prompt: str = ""
    """Words that take the place of nothing in guidance: what the asset shall not look like."""
    perp_neg: bool = False
    """Perp-Neg: blend the words between views, and move away from the wrong views' (Armandpour et al. 2023)."""
    t_min: UnitSchedule = 0.02
    """Smallest noise level."""
    t_max: UnitSchedule = 0.98
    """Largest noise level."""
    weight: Literal["sigma2", "uniform", "alpha_sigma"] = "sigma2"
    """w(t): sigma^2 (the paper), 1, or alpha * sigma (steady with small priors)."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Dynamic thresholding of the guided clean picture at this quantile; 0 is off (Saharia et al. 2022: 0.995)."""
    rescale: Unit = 0.0
    """Guidance rescaling towards the conditional prediction's spread (Lin et al. 2023); 0 is off."""
    sample_steps: Annotated[int, Field(ge=1, le=1000)] = 10
    """ancestral: steps of the sampler, each one question to the prior."""
    repeat_views: Annotated[int, Field(ge=0, le=100_000)] = 0
    """After this many steps the same cameras, lights and noise come again (0: never). With ancestral each picture is
    then sampled once, as a NeRF is trained on a set of photographs."""

    @model_validator(mode="after")
    def _ordered_noise(self) -> DistillationSettings:
        knots = [x for value in (self.t_min, self.t_max) if isinstance(value, list) for x, _ in value]
        if any(scheduled(self.t_min, x) > scheduled(self.t_max, x) for x in [0.0, *knots]):
            raise ValueError("t_min must not exceed t_max")
        return self


class RegularizerSettings(Settings):
    opacity: WeightSchedule = 0.0
    """Sparsity: mean of sqrt(opacity^2 + 0.01) over the rays (the paper's form)."""
    entropy: WeightSchedule = 0.0
    """Binary entropy of each ray's opacity: solid or empty, nothing between."""
    orientation: WeightSchedule = 0.0
    """Penalty on normals that face away from the camera (Ref-NeRF)."""
    smoothness: WeightSchedule = 0.0
    """Squared difference of neighbouring normals in the picture."""
    transmittance: WeightSchedule = 0.0
    """Reward for empty space, up to a target: -min(target, mean transmittance) (Dream Fields)."""
    transmittance_target: UnitSchedule = 0.9
    """That target: share of a picture's light that comes from the background."""


class OptimizerSettings(Settings):
    lr: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Adam's learning rate for grid features."""
    lr_head: Annotated[float, Field(gt=0, le=1)] = 0.001
    """Adam's learning rate for MLP weights."""
    lr_factor: WeightSchedule = 1.0
    """Both rates are multiplied by this schedule."""
    hardening: PositiveSchedule = 1.0
    """What the learned raw density has been multiplied by up to this point of the run: as it grows, surfaces get hard and fog thin."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """Adam's decay rates."""
    eps: Positive = 1e-15
    """Adam's epsilon."""


class RunSettings(Settings):
    checkpoint_seconds: Positive = 30.0
    """Seconds between checkpoints."""
    preview_seconds: Positive = 20.0
    """Seconds between preview pictures while the run goes on."""
    bad_steps: Annotated[int, Field(ge=1)] = 20
    """This many steps in a row with a gradient that is not finite end the run."""


class ExportSettings(Settings):
    resolution: Annotated[int, Field(ge=16, le=512)] = 160
    """Samples a side of the density when the surface is extracted."""
    level: Positive = 10.0
    """Density, in 1 / world unit, of the surface."""
    faces: Annotated[int, Field(ge=100, le=2_000_000)] = 50_000
    """Most triangles."""
    texture_size: Annotated[int, Field(ge=64, le=8192)] = 1024
    """Side of the base-colour texture in texels."""
    turntable_frames: Annotated[int, Field(ge=0, le=2000)] = 120
    """Frames of the turntable; 0 leaves it out."""
    turntable_size: Annotated[int, Field(ge=16, le=2048)] = 512
    """Side of a frame in pixels."""


class Config(Settings):
    """One run, complete: with the package versions it repeats the run exactly."""

    prompt: str = ""
    preset: str = "balanced"
    """Where the values started from (documentation only, the values below are what counts)."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of every random number of the run."""
    device: Device = "auto"
    """Where to compute; 'auto' takes a GPU if there is one."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads; 0 takes all cores."""
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 600
    """Optimisation steps."""
    views_per_step: Annotated[int, Field(ge=1, le=64)] = 4
    """Pictures rendered and judged in each step."""
    resolution: Annotated[int, Field(ge=8, le=1024)] = 64
    """Side of a rendered picture in pixels. The prior's own is best."""
    prior: PriorSettings = PriorSettings()
    view: ViewSettings = ViewSettings()
    shading: ShadingSettings = ShadingSettings()
    scene: SceneSettings = SceneSettings()
    distillation: DistillationSettings = DistillationSettings()
    regularizers: RegularizerSettings = RegularizerSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    run: RunSettings = RunSettings()
    export: ExportSettings = ExportSettings()
