"""A setting that would silently change nothing is named in one line, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dreamfusion import generate
from dreamfusion.no_effect import CHECKS, without_effect
from dreamfusion.settings.building import build
from dreamfusion.settings.catalogue import all_settings
from dreamfusion.settings.presets import preset_names, resolve
from tests.fakes import SMALL, GrayBallPrior

GUIDED = {"distillation.guidance_scale": 1.5}


@pytest.mark.parametrize("name", preset_names())
def test_no_preset_has_settings_without_effect(name: str) -> None:
    picture = {"image": "a.png"} if name == "zero123" else {}
    assert without_effect(resolve(name, picture, "a chair")) == []


@pytest.mark.parametrize(
    ("settings", "more", "reason"),
    [
        ({"distillation.negative_prompt": "blurry"}, GUIDED, "distillation.guidance_scale is 0"),
        ({"distillation.rescale": 0.5}, GUIDED, "distillation.guidance_scale is 0"),
        ({"distillation.negative_prompt": "x", "distillation.perp_neg": False}, {"distillation.perp_neg": True}, "is 0"),
        ({"distillation.kind": "ancestral", "distillation.t_min": 0.1}, {"distillation.kind": "sds"}, "draws no noise"),
        ({"distillation.kind": "ancestral", "distillation.t_max": 0.9}, {"distillation.kind": "sds"}, "draws no noise"),
        ({"distillation.kind": "clip", "distillation.t_max": 0.9}, {"distillation.kind": "sds"}, "draws no noise"),
        ({"distillation.kind": "ancestral", "distillation.weight": "uniform"}, {"distillation.kind": "sds"}, "weighs"),
        ({"distillation.kind": "ancestral", "distillation.repeat_views": 900}, {"steps": 901}, "before its views"),
        ({"distillation.perp_neg": True, "view.elevation_deg": "70,80"}, {"view.overhead_deg": 75}, "from above"),
        ({"distillation.kind": "csd", "distillation.threshold": 0.9}, {"distillation.kind": "sds"}, "one by one"),
        ({"distillation.kind": "reconstruction", "distillation.clip_score": 0.5}, {"distillation.kind": "sds"}, "no direction"),
        ({"distillation.kind": "ancestral", "distillation.t_order": "sqrt"}, {"distillation.kind": "sds"}, "draws no noise"),
        (
            {"distillation.kind": "csd", "distillation.guidance_scale": 2, "distillation.negative_prompt": "x"},
            {"distillation.negative_share": 0.5},
            "negative_share",
        ),
        (
            {"scene.kind": "mesh", "scene.learns": "shape", "scene.lr_head": 0.5},
            {"scene.learns": "all"},
            "scene.learns=shape",
        ),
        ({"prior.asks": "words", "shading.depth": 0.3}, {"prior.asks": "camera"}, "told the camera"),
        ({"prior.asks": "words", "shading.normals": 0.5}, {"prior.asks": "camera"}, "told the camera"),
        ({"prior.views": 4}, {"prior.asks": "views"}, "about each view alone"),
        ({"prior.views": 2, "prior.asks": "words"}, {"prior.asks": "views"}, "about each view alone"),
        ({"prior.asks": "views"}, {"prior.views": 4}, "stands in no relation"),
        ({"prior.memory": "low"}, {"prior.id": "hf:a/b"}, "diffusers loads"),
        ({"prior.text_8bit": True}, {"prior.id": "0.5*bundled + 0.5*hf:a/b"}, "diffusers loads"),
        ({"prior.id": "0.5*bundled + 0.5*bundled", "prior.memory": "low"}, {"prior.id": "hf:a/b"}, "diffusers loads"),
        ({"prior.id": "guide", "prior.precision": "float32"}, {"prior.id": "bundled"}, "a CLIP runs in float32"),
        ({"view.words": False, "view.front_deg": 30}, {"view.words": True}, "no words are chosen"),
        ({"view.words": False, "view.back_deg": 150}, {"view.words": True}, "no words are chosen"),
        ({"distillation.perp_neg": True, "view.back_deg": 150}, {"distillation.perp_neg": False}, "no words are chosen"),
        ({"view.words": False, "view.overhead_deg": 50}, {"view.words": True}, "view.words is false"),
        ({"view.background_lr": 0.1}, {"view.background": "learned"}, "is not learned"),
        ({"view.ambient": 0.2, "shading.albedo": 1, "shading.lambertian": 0, "shading.textureless": 0},
         {"shading.lambertian": 1}, "no view is lit"),
        ({"view.light_above_deg": "0,10", "view.ambient": 1}, {"view.ambient": 0.5}, "no view has a key light"),
        ({"view.light_around_deg": "0,10", "shading.albedo_until": 1}, {"shading.albedo_until": 0.5}, "no view has a key"),
        ({"shading.textureless_words": False, "shading.textureless": 0}, {"shading.textureless": 1}, "textureless is 0"),
        ({"shading.albedo_until": 0.5, "shading.albedo": 1, "shading.lambertian": 0, "shading.textureless": 0, "shading.depth": 0},
         {"shading.lambertian": 1}, "the albedo alone"),
        ({"shading.latent": 1}, {"scene.channels": 4}, "scene.channels is 3"),
        ({"scene.kind": "mlp", "scene.mean_importance": 4}, {"scene.importance": 8}, "scene.importance is 0"),
        ({"scene.kind": "splats", "scene.most": 900, "scene.grow_every": 0}, {"scene.grow_every": 9}, "scene.grow_every is 0"),
        ({"scene.kind": "splats", "scene.reset_to": 0.2}, {"scene.reset_every": 9}, "scene.reset_every is 0"),
        ({"scene.kind": "splats", "scene.lr_head": 0.2}, {"scene.kind": "grid"}, "splats have no MLP"),
        ({"scene.kind": "splats", "regularizers.orientation": 0.1}, {"scene.kind": "grid"}, "no normal that faces away"),
        ({"regularizers.transmittance_target": 0.5}, {"regularizers.transmittance": "0:0,1:0.5"}, "transmittance is 0"),
        ({"export.turntable_size": 64, "export.turntable_frames": 0}, {"export.turntable_frames": 2}, "frames is 0"),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_named_with_the_reason(
    settings: dict[str, Any], more: dict[str, Any], reason: str
) -> None:
    lines = without_effect(resolve("balanced", settings, "a chair"))
    named = [line for line in lines if line.partition(" = ")[0] in settings and reason in line]
    assert len(named) == 1 and " has no effect: " in named[0] and "\n" not in named[0]
    name = named[0].partition(" = ")[0]
    assert not any(line.startswith(f"{name} = ") for line in without_effect(resolve("balanced", settings | more, "x")))


def test_every_check_is_of_a_setting_that_exists() -> None:
    assert set(CHECKS) <= set(all_settings())


def test_a_stage_in_which_it_acts_is_enough() -> None:
    config = build({"distillation.negative_prompt": "x", "stages": [{}, GUIDED]})
    assert without_effect(config) == []
    silent = without_effect(build({"distillation.negative_prompt": "x", "stages": [{}, {"steps": 3}]}))
    assert len(silent) == 1 and silent[0].startswith("distillation.negative_prompt = 'x' has no effect")


def test_a_stage_of_another_kind_has_its_own_defaults() -> None:
    assert without_effect(build({"stages": [{}, {"scene.kind": "mlp"}]})) == []


@pytest.mark.filterwarnings("ignore")
def test_the_prior_is_indeed_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim behind the line: at w = 0 a negative prompt changes no tensor; with guidance it is asked about."""
    monkeypatch.setattr("dreamfusion.generation.write_preview", lambda *_, **__: None)
    asked: list[int] = []

    class Counting(GrayBallPrior):
        def predict_noise(self, z_t: Any, t: Any, question: Any, about: Sequence[Any]) -> Any:
            asked.append(len(about))
            return super().predict_noise(z_t, t, question, about)

    for scale in (0, 1.5):
        small = {**SMALL, "steps": 2, "distillation.negative_prompt": "x", "distillation.guidance_scale": scale}
        generate("x", "fast", prior=Counting(), **small)
    assert asked == [1, 1, 2, 2]
