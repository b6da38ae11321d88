"""Changes of a stopped run that change nothing are named, a line each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamfusion.mid_run import idle_changes, with_changes
from dreamfusion.settings.presets import resolve
from tests.fakes import SMALL

STILL = "distillation.negative_prompt = 'blurry' has no effect: distillation.guidance_scale is 0"


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        ({"scene.lr": 0.05}, []),
        ({"scene.lr": 0.05, "guidance_scale": "0.0"}, ["distillation.guidance_scale = 0.0 changes nothing: the run has"]),
        ({"steps": 6, "shading.albedo": 0.9}, ["steps = 6 changes nothing: the run has that value already"]),
        ({"steps": 7}, []),
        ({"distillation.negative_prompt": "blurry"}, [STILL]),
        ({"distillation.negative_prompt": "blurry", "guidance_scale": 5}, []),
        ({"export.turntable_size": 99}, ["export.turntable_size = 99 has no effect: export.turntable_frames is 0"]),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_a_change_that_changes_nothing_is_named(settings: dict[str, Any], lines: list[str]) -> None:
    found = idle_changes(resolve("fast", SMALL, "x"), settings, {"step": 3, "stage": 0})
    assert len(found) == len(lines) and all(a.startswith(b) for a, b in zip(found, lines, strict=True))


def test_what_only_a_stage_that_is_over_reads(tmp_path: Path) -> None:
    page = tmp_path / "two.yaml"
    page.write_text(
        "stages:\n- {steps: 3, distillation.guidance_scale: 5}\n- {steps: 3, distillation.guidance_scale: 0}\n"
    )
    config = resolve(str(page), {}, "x")
    new = {"distillation.negative_prompt": "blurry"}
    assert idle_changes(config, new, {"step": 2, "stage": 0}) == []
    (line,) = idle_changes(config, new, {"step": 4, "stage": 1})
    assert line.startswith(STILL)


def test_a_change_is_compared_with_earlier_changes() -> None:
    meta = {"step": 3, "stage": 0}
    config = with_changes(resolve("fast", SMALL, "x"), {"scene.lr": 0.05}, meta)
    assert idle_changes(config, {"scene.lr": 0.05}, meta | {"step": 4})[0].startswith("scene.lr = 0.05 changes nothing")
    assert idle_changes(config, {"scene.lr": 0.02}, meta | {"step": 4}) == []
