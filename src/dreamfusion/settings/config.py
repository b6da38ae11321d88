"""A run's settings, complete. A page says only what differs from the defaults, ``Config()``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from ..cost.cost_settings import CostSettings
from ..distillation.rule_settings import DistillationSettings, SdsSettings
from ..geometry.export_settings import ExportSettings
from ..priors.prior_settings import PriorSettings
from ..scene.scene_settings import GridSettings, SceneSettings
from ..schema import Decay, Positive, Settings, UnitSchedule, WeightSchedule
from ..view.view_settings import ShadingSettings, ViewSettings

Device = Annotated[
    str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", examples=["auto", "cpu", "cuda", "cuda:1", "mps"])
]


class RegularizerSettings(Settings):
    opacity: WeightSchedule = 0.0
    """Penalty on opacity: mean of sqrt(opacity^2 + 0.01) over the pixels (the paper's form)."""
    entropy: WeightSchedule = Field(default=[(0.6, 0.0), (1.0, 0.02)])
    """Penalty on the binary entropy of each pixel's opacity: it makes pixels solid or empty. It comes late; early it would erase parts that
    the prior is still unsure of."""
    orientation: WeightSchedule = 0.02
    """Penalty on normals that face away from the camera (Verbin et al. 2022, Ref-NeRF, eq. 11)."""
    smoothness: WeightSchedule = 0.05
    """Penalty on the squared difference of neighbouring normals in the picture."""
    emptiness: WeightSchedule = 0.0
    """Penalty on the samples' weights along rays, mean log(1 + 10 w) (SJC). It needs scene.fast=false."""
    depth_variance: WeightSchedule = 0.0
    """Penalty on the variance of depth along each ray that hits something (HiFA). It needs scene.fast=false."""
    normal_consistency: WeightSchedule = 0.0
    """Penalty on the angles between neighbouring faces of a mesh: mean of 1 - cos."""
    laplacian: WeightSchedule = 0.0
    """Penalty on the squared distance of a mesh's vertices from the mean of their neighbours, in edge lengths."""
    eikonal: WeightSchedule = 0.0
    """Penalty on signed distances whose slope is not 1, in a tetrahedral grid or in a field with scene.density=sdf: mean of
    (|slope| - 1)^2."""
    total_variation: WeightSchedule = 0.0
    """Penalty on the differences of neighbouring vertices' values in a field's grids: the mean of their amounts (PureCLIPNeRF)."""
    sketch: WeightSchedule = 0.0
    """Penalty on a field that is solid outside of the mesh ``scene.sketch``, or empty inside, more so far from its surface
    (Sketch-Shape)."""
    transmittance: WeightSchedule = 0.0
    """Reward for empty space, up to a target: -min(target, mean transmittance) (Dream Fields)."""
    transmittance_target: UnitSchedule = 0.9
    """Target of the transmittance: the share of a picture's light that comes from the background."""


class OptimizerSettings(Settings):
    lr_factor: WeightSchedule = Field(default=[(0.7, 1.0), (1.0, 0.1)])
    """Factor on all learning rates. Small rates at the end take the noise out of the surface."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """Adam's decay rates."""
    eps: Positive = 1e-15
    """Adam's epsilon."""


class RunSettings(Settings):
    checkpoint_seconds: Positive = 30.0
    """Seconds between checkpoints."""
    preview_seconds: Positive = 20.0
    """Shortest time between preview pictures, in seconds. Previews take at most 2 % of the run's time."""
    bad_steps: Annotated[int, Field(ge=1)] = 20
    """The run ends after this many steps in a row whose gradient is not finite."""


class Config(Settings):
    """One run, complete: with the package versions it repeats the run exactly.

    ``stages`` are pages of dotted names, one for each stage of the run; ``stage`` applies one. Without any the run is one
    stage, these settings themselves. ``changes`` were made while the run was stopped, in the order of their steps: {"step": 80,
    "settings": {dotted name: value}} holds after 80 steps of the run.
    """

    prompt: str = ""
    preset: str = "balanced"
    """Where the values started from (documentation only; the values below count)."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of every random number of the run."""
    device: Device = "auto"
    """Where to compute; auto takes a GPU if there is one."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads; 0 takes all cores."""
    start: str = ""
    """Folder of a run whose scene this run begins with, in place of an empty one. Its own words and settings count from there."""
    steps: Annotated[int, Field(ge=1, le=1_000_000)] = 560
    """Optimisation steps."""
    schedule_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Steps in which the schedules run from 0 to 1. Steps after them keep the schedules' last values. 0: all steps."""
    views_per_step: Annotated[int, Field(ge=1, le=64)] = 4
    """Pictures rendered and judged in each step."""
    resolution: Annotated[int, Field(ge=8, le=1024)] = 64
    """Side of a rendered picture in pixels. The prior's own resolution is best."""
    prior: PriorSettings = PriorSettings()
    view: ViewSettings = ViewSettings()
    shading: ShadingSettings = ShadingSettings()
    scene: SceneSettings = GridSettings()
    distillation: DistillationSettings = SdsSettings()
    regularizers: RegularizerSettings = RegularizerSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    run: RunSettings = RunSettings()
    export: ExportSettings = ExportSettings()
    cost: CostSettings = CostSettings()
    stages: tuple[dict[str, Any], ...] = ()
    changes: tuple[dict[str, Any], ...] = ()
