"""Settings that change nothing in the run that they are set for: one line for each, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .distillation.rule_settings import (
    AncestralSettings,
    BridgeSettings,
    ClipSettings,
    CsdSettings,
    GuidedSettings,
    NfsdSettings,
    ReconstructionSettings,
    SsdSettings,
)
from .errors import UserError
from .priors.finding import is_bundled_kind
from .priors.mixture import is_mixture, parse_mixture
from .priors.prior_client import is_served
from .scene.scene_settings import FieldSettings, GridSettings, MeshSettings, SplatSettings
from .schema import ever
from .settings.building import stage_configs
from .settings.catalogue import PAGES, all_settings
from .settings.config import Config
from .settings.names import as_text, flatten
from .settings.presets import preset_names, resolve

UNGUIDED = (
    "distillation.guidance_scale is 0 (or distillation.negative_share, of csd), so the prior is never asked about it; raise it "
    "(1.5, for example)"
)


@dataclass(frozen=True)
class Check:
    """``acts``: whether the setting does something in a stage; ``why``: the reason where it does not."""

    acts: Callable[[Config], bool]
    why: str


def guided(config: Config) -> bool:
    """Whether the rule asks the prior about "nothing"."""
    rule = config.distillation
    return isinstance(rule, GuidedSettings) and (rule.guidance_scale != 0 or rule.perp_neg)


def shared(config: Config) -> bool:
    """Whether the rule gives negative words a share, if it has such a thing."""
    rule = config.distillation
    return not isinstance(rule, CsdSettings) or ever(rule.negative_share)


def lit(config: Config) -> bool:
    """Whether a view may be lit."""
    shading = config.shading
    return shading.lambertian + shading.textureless > 0 and shading.albedo_until < 1


def perp_neg(config: Config) -> bool:
    """Whether Perp-Neg is on."""
    return isinstance(config.distillation, GuidedSettings) and config.distillation.perp_neg


def large(config: Config) -> bool:
    """Whether a prior is loaded by diffusers. What cannot be told yet counts as one."""
    terms = parse_mixture(config.prior.id) if is_mixture(config.prior.id) else [(1.0, config.prior.id)]
    try:
        return not all(clip(id) or is_served(id) or is_bundled_kind(id) for _, id in terms)
    except UserError:
        return True


def clip(id: str) -> bool:
    """Whether an id is that of a CLIP."""
    return id.partition(":")[0] == "guide"


def repeats(config: Config) -> bool:
    """Whether views are repeated within the stage."""
    rule = config.distillation
    return isinstance(rule, AncestralSettings) and rule.repeat_views < config.steps


def tets(config: Config) -> bool:
    """Whether the scene is a mesh in a tetrahedral grid."""
    return isinstance(config.scene, MeshSettings) and config.scene.shape == "tetrahedra"


def learns(config: Config, what: str) -> bool:
    """Whether the scene is a mesh of which this part learns."""
    return isinstance(config.scene, MeshSettings) and config.scene.learns in ("all", what)


def coloured(config: Config) -> bool:
    """Whether colours learn, as they do in all scenes but some meshes."""
    return not isinstance(config.scene, MeshSettings) or learns(config, "texture")


def signed(config: Config) -> bool:
    """Whether the scene is a field of signed distances."""
    return isinstance(config.scene, GridSettings) and config.scene.density == "sdf"


def grows(config: Config) -> bool:
    """Whether the scene is made of splats whose number changes."""
    return isinstance(config.scene, SplatSettings) and config.scene.grow_every > 0


def told(config: Config) -> bool:
    """Whether the prior is told the camera."""
    return config.prior.asks in ("camera", "image")


def one_answer(config: Config) -> bool:
    """Whether the rule makes one prediction of the guided and the unguided one."""
    return not isinstance(config.distillation, CsdSettings | SsdSettings | NfsdSettings | BridgeSettings)


UNTOLD = "the bundled prior knows such views only where it is told the camera; set prior.asks to 'camera'"
APART = "this distillation.kind weighs the prior's answers one by one, and makes no guided one"
STILL = "scene.grow_every is 0, so the splats stay as many as they are"
CHECKS = {
    "distillation.negative_prompt": Check(lambda c: guided(c) and shared(c), UNGUIDED),
    "distillation.clip_score": Check(
        lambda c: not isinstance(c.distillation, ReconstructionSettings | AncestralSettings),
        "this distillation.kind has no direction in the prior's space",
    ),
    "distillation.rescale": Check(
        lambda c: guided(c) and one_answer(c), "distillation.guidance_scale is 0, or distillation.kind makes no guided prediction"
    ),
    "distillation.threshold": Check(one_answer, APART),
    "distillation.t_min": Check(
        lambda c: not isinstance(c.distillation, AncestralSettings | ClipSettings), "this distillation.kind draws no noise level"
    ),
    "distillation.weight": Check(
        lambda c: not isinstance(c.distillation, AncestralSettings), "distillation.kind=ancestral weighs nothing"
    ),
    "distillation.repeat_views": Check(repeats, "the stage ends before its views are repeated"),
    "distillation.perp_neg": Check(
        lambda c: c.view.elevation_deg[0] <= c.view.overhead_deg, "all views are from above, where no side is wrong"
    ),
    "prior.views": Check(
        lambda c: c.prior.asks == "views" or c.prior.views == 1,
        "the prior is asked about each view alone (it only places the cameras); set prior.asks to views",
    ),
    "prior.asks": Check(
        lambda c: c.prior.asks != "views" or c.prior.views > 1, "a group of one view stands in no relation; set prior.views to 4"
    ),
    "prior.memory": Check(large, "it is for priors that diffusers loads in this process"),
    "prior.text_8bit": Check(large, "it is for priors that diffusers loads in this process"),
    "prior.precision": Check(
        lambda c: not clip(c.prior.id) and not is_served(c.prior.id),
        "a CLIP runs in float32, and a served prior as its server was told",
    ),
    "distillation.warp": Check(
        lambda c: isinstance(c.distillation, ClipSettings) and c.distillation.warps > 0, "distillation.warps is 0"
    ),
    "view.front_deg": Check(lambda c: c.view.words and not perp_neg(c), "no words are chosen by it in this run"),
    "view.back_deg": Check(lambda c: c.view.words and not perp_neg(c), "no words are chosen by it in this run"),
    "view.overhead_deg": Check(lambda c: c.view.words, "view.words is false"),
    "view.background_lr": Check(lambda c: c.view.background == "learned", "view.background is not learned"),
    "view.ambient": Check(lit, "no view is lit; see shading.lambertian and shading.textureless"),
    "view.light_above_deg": Check(lambda c: lit(c) and c.view.ambient < 1, "no view has a key light"),
    "view.light_around_deg": Check(lambda c: lit(c) and c.view.ambient < 1, "no view has a key light"),
    "shading.depth": Check(
        lambda c: told(c) and not large(c),
        "only the bundled prior knows depths, and only where it is told the camera; set prior.asks to 'camera'",
    ),
    "shading.normals": Check(lambda c: told(c) or not is_bundled_kind(c.prior.id), UNTOLD),
    "shading.textureless_words": Check(lambda c: c.shading.textureless > 0, "shading.textureless is 0"),
    "shading.albedo_until": Check(
        lambda c: any([c.shading.lambertian, c.shading.textureless, c.shading.latent, c.shading.normals, c.shading.depth]),
        "all views show the albedo alone",
    ),
    "shading.latent": Check(
        lambda c: c.scene.channels != 3 or c.shading.latent == 0, "scene.channels is 3, so there are no latents to show"
    ),
    "scene.mean_importance": Check(lambda c: flatten(c.model_dump()).get("scene.importance", 0) > 0, "scene.importance is 0"),
    "scene.radius": Check(
        lambda c: isinstance(c.scene, SplatSettings) or tets(c), "scene.shape=vertices begins with a mesh"
    ),
    "scene.sketch": Check(lambda c: ever(c.regularizers.sketch), "regularizers.sketch is 0"),
    "scene.sketch_width": Check(lambda c: ever(c.regularizers.sketch), "regularizers.sketch is 0"),
    "scene.density_bias": Check(lambda c: not signed(c), "scene.density=sdf begins with a ball"),
    "scene.lr": Check(coloured, "scene.learns is shape"),
    "scene.lr_head": Check(
        lambda c: not isinstance(c.scene, SplatSettings) and coloured(c),
        "splats have no MLP (scene.kind), and scene.learns=shape leaves it as it is",
    ),
    "scene.reach": Check(lambda c: not tets(c), "scene.shape is not vertices"),
    "scene.resolution": Check(tets, "scene.shape=vertices has no tetrahedra"),
    "scene.lr_shape": Check(lambda c: learns(c, "shape"), "scene.learns is texture"),
    "regularizers.normal_consistency": Check(lambda c: learns(c, "shape"), "no stage has a mesh whose shape learns"),
    "regularizers.laplacian": Check(lambda c: learns(c, "shape"), "no stage has a mesh whose shape learns"),
    "regularizers.eikonal": Check(
        lambda c: (learns(c, "shape") and tets(c)) or signed(c),
        "no stage has tetrahedra (scene.kind=mesh) that learn, or a signed distance (scene.density)",
    ),
    "regularizers.total_variation": Check(
        lambda c: isinstance(c.scene, GridSettings), "only a field in grids has such values (scene.kind)"
    ),
    "regularizers.sketch": Check(
        lambda c: isinstance(c.scene, FieldSettings), "a mesh and splats are not guided (scene.kind)"
    ),
    "regularizers.orientation": Check(
        lambda c: not isinstance(c.scene, MeshSettings | SplatSettings),
        "a mesh and splats show no normal that faces away (scene.kind)",
    ),
    "regularizers.transmittance_target": Check(
        lambda c: ever(c.regularizers.transmittance), "regularizers.transmittance is 0"
    ),
    "export.turntable_size": Check(lambda c: c.export.turntable_frames > 0, "export.turntable_frames is 0"),
}  # fmt: skip
CHECKS |= {
    f"scene.{name}": Check(grows, STILL)
    for name in ("grow_from", "grow_until", "grow_above", "split_above", "prune_below", "most")
}
CHECKS["scene.reset_to"] = Check(
    lambda c: isinstance(c.scene, SplatSettings) and c.scene.reset_every > 0, "scene.reset_every is 0"
)
CHECKS["distillation.t_max"] = CHECKS["distillation.t_order"] = CHECKS["distillation.t_min"]


def without_effect(config: Config) -> list[str]:
    """A line for each setting that differs from its preset's and changes nothing in any stage."""
    stages = stage_configs(config)
    own = list(map(_values, stages))
    usual = list(map(_values, stage_configs(_usual(config))))[-len(own) :]  # a file takes the place of the first stages
    defaults = _values(Config())
    lines = []
    for name, check in CHECKS.items():
        values = [stage.get(name) for stage in own]
        differs = len(own) != len(usual) or values != [stage.get(name) for stage in usual]
        has_it = [stage for stage, value in zip(stages, values, strict=True) if value is not None]
        default = defaults.get(name, all_settings()[name].default)  # the second: of a kind that is not the default one
        is_set = any(value not in (None, default) for value in values)
        if differs and is_set and not any(map(check.acts, has_it)):
            lines.append(f"{name} = {_shown(values)} has no effect: {check.why}")
    return lines


def idle_lines(settings: Mapping[str, Any], stages: Sequence[Config]) -> list[str]:
    """A line for each of these settings (name: value) that changes nothing in any of these stages, whatever the preset says."""
    return [
        f"{name} = {_shown([value])} has no effect: {CHECKS[name].why}"
        for name, value in settings.items()
        if name in CHECKS and not any(CHECKS[name].acts(stage) for stage in stages if name in _values(stage))
    ]


def _usual(config: Config) -> Config:
    """What the run's preset says by itself."""
    if config.preset in preset_names():
        return resolve(config.preset, {}, config.prompt or "x")
    return Config()


def _values(config: Config) -> dict[str, Any]:
    """Its settings by dotted name."""
    return flatten(config.model_dump(exclude=set(PAGES)))


def _shown(values: list[Any]) -> str:
    value = next(v for v in values if v is not None)
    return repr(value) if isinstance(value, str) else as_text(value)
