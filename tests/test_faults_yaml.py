"""Pages of settings mean what a person reads in them, whatever YAML makes of it; or they are refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamfusion import cli
from dreamfusion.errors import UserError
from dreamfusion.settings import plain_yaml
from dreamfusion.settings.config import Config
from dreamfusion.settings.presets import resolve


def read(text: str, folder: Path, prompt: str = "a chair") -> Config:
    page = folder / "mine.yaml"
    page.write_text(text, encoding="utf-8")
    return resolve(str(page), {}, prompt)


@pytest.mark.parametrize(
    ("page", "name", "value"),
    [
        ("steps: 010", "steps", 10),  # YAML 1.1: 8
        ("steps: 08", "steps", 8),
        ("steps: +12", "steps", 12),
        ("steps: 1_000", "steps", 1000),
        ("steps: 1e3", "steps", 1000),
        ("steps: 100.0", "steps", 100),
        ("steps: !!int 010", "steps", 10),
        ("seed: 007", "seed", 7),
        ("scene: {levels: [010, 020]}", "scene.levels", (10, 20)),
        ("view: {radius: [02, 03.5]}", "view.radius", (2.0, 3.5)),
        ("distillation: {t_min: 0, t_max: 1:0.5}", "distillation.t_max", [(1.0, 0.5)]),  # YAML 1.1: 60.5
        ("distillation:\n  t_max: 0:0.9,1:0.6", "distillation.t_max", [(0.0, 0.9), (1.0, 0.6)]),
        ("distillation: {t_max: [[0, 0.9], [1, 0.6]]}", "distillation.t_max", [(0.0, 0.9), (1.0, 0.6)]),
        ("optimizer: {eps: 1e-15}", "optimizer.eps", 1e-15),  # YAML 1.1: text
        ("export: {level: .5}", "export.level", 0.5),
        ("view:\n  words: off\n  fit: on", "view.words", False),
        ("view: {fit: yes}", "view.fit", True),
        ("view: {fit: y}", "view.fit", True),
        ("view: {elevation_deg: '-10, 45'}", "view.elevation_deg", (-10.0, 45.0)),
        ("device: cuda:1", "device", "cuda:1"),
        ("distillation: {negative_prompt: no}", "distillation.negative_prompt", "no"),
        ("prior: 0.5*bundled", "prior.id", "0.5*bundled"),
        ("\ufeffsteps: 5", "steps", 5),
        ("steps: 5\r\nseed: 3\r\n", "seed", 3),
        ("<<: {steps: 5}\nseed: 3", "steps", 5),
    ],
)  # fmt: skip
def test_values_are_read_as_a_person_means_them(page: str, name: str, value: Any, tmp_path: Path) -> None:
    found: Any = read(page, tmp_path)
    for part in name.split("."):
        found = getattr(found, part)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    "prompt", ["no", "on", "yes", "12345", "010", "1:30", "2026-01-02", "1.50", "=", "0x10", "true"]
)
def test_a_prompt_is_the_text_that_is_written(prompt: str, tmp_path: Path) -> None:
    assert read(f"prompt: {prompt}", tmp_path, prompt="").prompt == prompt


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("steps: yes", "steps = 'yes' is not allowed: it must be a whole number"),  # YAML 1.1 and pydantic: 1
        ("steps: true", "steps = 'true' is not allowed"),
        ("steps: 1:30", "steps = '1:30' is not allowed"),  # YAML 1.1: 90
        ("steps: 0x10", "steps = '0x10' is not allowed"),  # YAML 1.1: 16
        ("steps: 0b11", "steps = '0b11' is not allowed"),
        ("steps: 0", "steps = 0 is not allowed"),
        ("steps: 0000", "steps = '0000' is not allowed"),
        ("distillation: {t_min: 0, t_max: 0:59.5}", "distillation.t_max = 0:59.5 is not allowed"),
        ("vieww: {}", "unknown setting 'vieww'"),
        ("steps: 1,000", "steps = '1,000' is not allowed"),
        ("steps: 2026-01-02", "steps = '2026-01-02' is not allowed"),
        ("steps:", "steps = None is not allowed"),
        ("view: {fov_deg: 1:30}", "view.fov_deg = '1:30' is not allowed"),
        ("guidance_scale: on", "distillation.guidance_scale = 'on' is not allowed"),
        ("export: {level: .inf}", "export.level = '.inf' is not allowed"),
        ("export: {level: 1e400}", "export.level = inf is not allowed"),
        ("view: {elevation_deg: 10:45}", "view.elevation_deg = 10:45 is not allowed"),  # YAML 1.1: 645
        ("view: {fit: 2}", "view.fit = 2 is not allowed"),
        ("device: 0", "device = '0' is not allowed"),
        ("prompt: null", "prompt = None is not allowed"),
        ("steps: 3\nsteps: 5", "'steps' is in it twice, in the group that begins in line 1"),
        ("view:\n  fit: true\nseed: 1\nview: {words: false}", "'view' is in it twice"),
        ("seed: 1\nview:\n  fit: true\n  fit: false", "'fit' is in it twice, in the group that begins in line 3"),
        ("view.fit: true\nview: {fit: false}", "view.fit is given twice"),
        ("guidance_scale: 1\ndistillation: {guidance_scale: 2}", "distillation.guidance_scale is given twice"),
        ("stages:\n- {steps: 3, steps: 4}", "'steps' is in it twice"),
        ("stages:\n- {steps: yes}", "in stage 1: steps = 'yes' is not allowed"),
        ("on: 3", "unknown setting 'on'"),
        ("3: on", "unknown setting '3'"),
        ("view: &a {b: *a}", "nested too deeply, or holds itself"),
        ("steps: !!python/object/apply:os.system [true]", "is not YAML"),
        ("--- \nsteps: 4\n---\nsteps: 5", "is not YAML: expected a single document"),
    ],
)
def test_what_has_no_meaning_is_refused_in_one_line(page: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read(page, tmp_path)
    assert line in str(caught.value) and "mine.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_line_says_it_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.yaml").write_text("steps: yes")
    out = tmp_path / "run"
    assert cli.main(["generate", "a chair", "--preset", str(tmp_path / "mine.yaml"), "--out", str(out)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "steps = 'yes' is not allowed" in said[0] and not out.exists()


def test_stages_are_kept_as_values_of_their_settings(tmp_path: Path) -> None:
    config = read("stages:\n- steps: 010\n- {steps: 1e1, distillation: {t_max: 1:0.5, t_min: 0}}", tmp_path)
    assert config.stages == (
        {"steps": 10},
        {"steps": 10, "distillation.t_max": [(1.0, 0.5)], "distillation.t_min": 0.0},
    )


def test_overrides_of_one_setting_under_two_names_are_refused() -> None:
    with pytest.raises(UserError, match=r"distillation\.guidance_scale is given twice"):
        resolve("fast", {"guidance_scale": 1, "distillation__guidance_scale": 2}, "a chair")


def test_lists_on_the_command_line_are_read_in_the_same_way() -> None:
    assert resolve("fast", {"distillation.t_max": "[[0, 0.9], [1, 00.6]]"}, "a chair").distillation.t_max == [
        (0.0, 0.9),
        (1.0, 0.6),
    ]


def test_numbers_are_those_that_json_has_too() -> None:
    page = plain_yaml.read("[0, -1, 1.5, 1e3, 010, 1_0, .5, 5., +1, yes, ~, 'text', '7']")
    assert page == [0, -1, 1.5, 1000.0, "010", "1_0", ".5", "5.", "+1", "yes", None, "text", 7]
