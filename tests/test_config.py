from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml

from dreamfusion.errors import UserError
from dreamfusion.prompts import check_prompt, slug
from dreamfusion.schema import scheduled
from dreamfusion.settings.building import build, changed
from dreamfusion.settings.catalogue import all_settings
from dreamfusion.settings.config import Config
from dreamfusion.settings.names import as_text, flatten, from_text
from dreamfusion.settings.options import metavar
from dreamfusion.settings.presets import FOLDER, load_preset, preset_names, resolve


def test_config_survives_yaml() -> None:
    config = resolve("dreamfusion", {"seed": 2**62, "optimizer.eps": 1e-15, "prior.id": "x: #y"}, "a 🐶: 'red' # chair")
    page = yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"), allow_unicode=True))
    assert Config.model_validate(page) == config


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_and_documented(name: str) -> None:
    config = resolve(name, {}, "a chair")
    assert config.preset == name and config.prompt == "a chair"
    text = (FOLDER / f"{name}.yaml").read_text()
    assert text.startswith("# ")


def test_the_seeds_preset_has_the_seeds_numbers() -> None:
    config = resolve("dreamfusion", {}, "a chair")
    assert (config.steps, config.views_per_step, config.resolution) == (15000, 1, 64)
    assert config.scene.kind == "mlp" and config.scene.lr_head == 1e-3
    assert config.distillation.guidance_scale == 100 and config.distillation.weight == "sigma2"
    assert (config.distillation.t_min, config.distillation.t_max) == (0.02, 0.98)
    assert config.view.radius == (1.5, 2.5) and config.view.elevation_deg == (-30, 60) and config.view.fit
    assert (config.view.front_deg, config.view.back_deg, config.view.overhead_deg) == (45, 135, 60)
    assert round(config.shading.albedo_until * 15000) == 1000
    assert config.shading.albedo == config.shading.lambertian == config.shading.textureless


def test_schedule_is_linear_between_its_knots_and_constant_beyond() -> None:
    knots = [(0.2, 1.0), (0.5, 4.0), (1.0, 0.0)]
    for progress in np.linspace(0, 1, 41):
        expected = np.interp(progress, *zip(*knots, strict=True))
        assert scheduled(knots, progress) == pytest.approx(expected, abs=1e-12)
    assert scheduled(3, 0.7) == 3
    assert scheduled([(1.0, 5.0), (0.0, 1.0)], 0.25) == pytest.approx(2)  # any order


def test_overrides_have_dots_underscores_shorthands_and_nesting() -> None:
    ways: list[dict[str, Any]] = [
        {"distillation.guidance_scale": 20},
        {"distillation__guidance_scale": "20"},
        {"distillation.guidance-scale": 20.0},
        {"guidance_scale": 20},
        {"distillation": {"guidance_scale": 20}},
    ]
    assert all(resolve("fast", way, "x").distillation.guidance_scale == 20 for way in ways)


@pytest.mark.parametrize("setting", all_settings().values(), ids=lambda s: s.name)
def test_every_setting_has_help_and_its_text_means_its_value(setting: Any) -> None:
    assert setting.name == "prompt" or (setting.help and setting.allowed)
    kind = {f"{setting.group}.kind": setting.kinds[0]} if setting.kinds else {}
    assert build(kind | {setting.name: as_text(setting.default)}) == build(kind | {setting.name: setting.default})


@pytest.mark.parametrize("setting", [s for s in all_settings().values() if s.kinds], ids=lambda s: s.name)
def test_a_setting_of_some_kinds_is_known_to_them_alone_and_says_so(setting: Any) -> None:
    every = all_settings()[f"{setting.group}.kind"]
    for kind in get_args(every.kind):
        asked = {every.name: kind, setting.name: setting.default}
        if kind in setting.kinds:
            assert getattr(getattr(build(asked), setting.group), setting.name.rpartition(".")[2]) == setting.default
            continue
        with pytest.raises(UserError) as caught:
            build(asked)
        words = f"{setting.name} belongs to {every.name}={' or '.join(setting.kinds)}; this run has {kind}"
        assert str(caught.value) == words
    told = (", ".join(setting.kinds) + ": ", "all but ")
    assert setting.help.startswith(told) or all(
        f"{k}: " in setting.help or f"{k}, " in setting.help for k in setting.kinds
    )


def test_the_preset_balanced_is_the_defaults_and_depths() -> None:
    balanced, shading = resolve("balanced", {}, "a chair"), Config().shading
    assert balanced.model_copy(update={"shading": shading}) == Config(prompt="a chair") and build({}) == Config()
    assert balanced.shading.depth > 0 == shading.depth
    assert balanced.shading.lambertian / balanced.shading.textureless == shading.lambertian / shading.textureless


def test_another_kind_leaves_out_what_the_page_says_of_its_own() -> None:
    config = resolve("fast", {"scene.kind": "mlp", "scene.depth": 3}, "a chair")
    assert (config.scene.kind, config.scene.depth, config.steps) == ("mlp", 3, 200)
    assert "levels" not in config.scene.model_dump()
    assert changed(config, {"scene.kind": "grid"}).scene.kind == "grid"
    assert changed(config, {"export.faces": "300"}).scene == config.scene


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5", 0.5), ("0:0.98,1:0.5", [(0, 0.98), (1, 0.5)]), ("[[0, 0.9], [1, 0.4]]", [(0, 0.9), (1, 0.4)])],
)
def test_schedules_from_text(text: str, value: Any) -> None:
    assert build({"distillation.t_max": text}).distillation.t_max == value
    assert from_text(all_settings()["steps"], "5") == "5"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"steps": 0}, "steps = 0 is not allowed: it must be a whole number, 1 to 1000000"),
        ({"steps": 1.5}, "steps = 1.5 is not"),
        ({"seed": -1}, "seed = -1 is not allowed: it must be a whole number, 0 to 9223372036854775807"),
        ({"distillation.guidance_scale": 2000}, "it must be a number, 0 to 1000"),
        ({"distillation.guidance_scale": float("nan")}, "= nan is not allowed"),
        ({"distillation.guidence_scale": 2}, "did you mean 'distillation.guidance_scale'?"),
        ({"guidance": 2}, "did you mean 'distillation.guidance_scale'?"),
        ({"fov": 2}, "did you mean 'view.fov_deg'?"),
        ({"distillation.qqqq": 2}, "choices: distillation.kind"),
        ({"qqqq": 2}, "unknown setting 'qqqq'"),
        ({"view": 3}, "view is a group of settings"),
        ({"view.radius": [3, 1]}, "view.radius = 3,1 is not allowed: the first number of a range"),
        ({"view.radius": "2"}, "two numbers a,b, each above 0"),
        ({"view.words": "maybe"}, "true or false"),
        ({"view.fov_deg": 170}, "a number, above 1 and below 170"),
        ({"scene.kind": "nerf"}, "one of grid, mlp"),
        ({"scene.levels": "16,x"}, "scene.levels = 16,x is not allowed: it must be whole numbers"),
        ({"device": "gpu"}, "one of auto, cpu, cuda, cuda:1, mps"),
        ({"distillation.t_max": 1.5}, "a number, 0 to 1; or a schedule"),
        ({"distillation.t_max": "0:0.9,1:0.01"}, "t_min must not exceed t_max"),
        ({"regularizers.opacity": []}, "regularizers.opacity"),
        (
            {"shading.albedo": 0, "shading.lambertian": 0, "shading.textureless": 0, "shading.depth": 0},
            "must be above 0",
        ),
        ({"optimizer.betas": "0.9,1"}, "at least 0 and below 1"),
        ({"distillation.kind": "sdss"}, "distillation.kind = 'sdss' is not allowed: it must be one of sds"),
        ({"scene.depth": 3}, "scene.depth belongs to scene.kind=mlp; this run has grid"),
        ({"prior.camera": True}, "prior.camera is now prior.asks"),
        ({"prior__camera": True}, "prior.camera is now prior.asks"),
        ({"prior": {"camera": True}}, "prior.camera is now prior.asks"),
        ({"prior.asks": "sound"}, "prior.asks = 'sound' is not allowed: it must be one of words, camera, views"),
        ({"optimizer.lr": 0.1}, "optimizer.lr is now scene.lr"),
        ({"optimizer.lr_head": 0.1}, "optimizer.lr_head is now scene.lr_head"),
        ({"optimizer.lr-head": 0.1}, "optimizer.lr_head is now scene.lr_head"),
        ({"optimizer.hardening": 1}, "optimizer.hardening is now scene.hardening"),
        ({"shading.latent_until": 0.5}, "shading.latent_until is now a stage of its own"),
    ],
)
def test_wrong_settings_end_in_one_line(overrides: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve("balanced", overrides, "a chair")
    assert line in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("steps: 0", "steps = 0 is not allowed"),
        ("stps: 3", "did you mean 'steps'?"),
        ("- 1", "not a page of settings"),
        ("a: [", "is not YAML"),
        ("view:", "view is a group"),
    ],
)
def test_wrong_preset_pages(tmp_path: Path, page: str, line: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(page)
    with pytest.raises(UserError) as caught:
        resolve(str(path), {}, "a chair")
    assert line in str(caught.value) and "mine.yaml" in str(caught.value)


def test_preset_files_and_names(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("prompt: a cup\nsteps: 7\nview: {radius: [2, 3]}\n")
    config = resolve(str(path))
    assert (config.prompt, config.steps, config.view.radius, config.preset) == ("a cup", 7, (2, 3), "mine.yaml")
    assert resolve(str(path), {}, "a jug").prompt == "a jug"
    for wrong in ("balancd", "nowhere/x.yaml"):
        with pytest.raises(UserError, match=r"did you mean 'balanced'|cannot read"):
            load_preset(wrong)


@pytest.mark.parametrize("name", preset_names())
def test_flatten_and_build_are_inverse(name: str) -> None:
    config = resolve(name, {}, "a chair")
    assert build(flatten(config.model_dump())) == config


def test_what_stands_for_a_value_comes_from_its_type() -> None:
    expected = {
        "steps": "N", "view.fov_deg": "X", "view.fit": "BOOL", "view.radius": "A,B", "scene.levels": "A,B,…",
        "scene.hardening": "X|P:X,…", "distillation.t_min": "X|P:X,…", "prior.id": "NAME", "view.background": "NAME",
        "scene.kind": "NAME", "device": "NAME",
    }  # fmt: skip
    assert {name: metavar(all_settings()[name]) for name in expected} == expected


@pytest.mark.parametrize("prompt", ["a red armchair", "  ein grüner Stuhl ", "🪑", "👩‍👩‍👧", "椅子", "x" * 1000])
def test_prompts_that_are_text(prompt: str) -> None:
    assert check_prompt(prompt) == prompt.strip()


@pytest.mark.parametrize(
    ("prompt", "line"),
    [
        ("", "empty"), (" \t\n", "empty"), ("\u200d\u200b", "empty"), ("x" * 1001, "1001 characters; the most is 1000"),
        ("a\0b", r"character 2 is U\+0000"), ("a\x1b[31m", r"U\+001B"), ("a\nb", r"U\+000A"),
        ("chair \udcff", r"U\+DCFF"),
        (None, "must be text, not NoneType"), (b"chair", "not bytes"),
    ],
)  # fmt: skip
def test_prompts_that_are_not(prompt: Any, line: str) -> None:
    with pytest.raises(UserError, match=line):
        check_prompt(prompt)


def test_slugs_name_folders() -> None:
    assert slug("A red, *shiny* armchair!") == "a-red-shiny-armchair"
    assert slug("Grüner Stuhl/../x") == "gruner-stuhl-x"
    assert slug("🪑") == "asset" and len(slug("word " * 100)) <= 48
