"""PureCLIPNeRF: perspectives of pictures before the CLIP, the total variation of voxels, and its preset."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dreamfusion.clip.guide import load
from dreamfusion.distillation.clip_rule import ClipRule
from dreamfusion.distillation.warps import CORNERS, NUMBERS, SHIFT, homographies, moved_corners, warped
from dreamfusion.scene.grid import GridField
from dreamfusion.scene.mlp import MlpField
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer

TINY: dict[str, Any] = {"steps": 3, "resolution": 16, "threads": 1, "views_per_step": 2, "scene.samples": 12}


def normals(count: int) -> Tensor:
    return torch.randn(count, NUMBERS, generator=torch.Generator().manual_seed(0))


def test_corners_move_inwards_by_up_to_half_the_strength() -> None:
    """The ends of the range, from numbers at the ends of the normal distribution; no shift at their middle."""
    still, far = torch.full((1, NUMBERS), -9.0), torch.full((1, NUMBERS), 9.0)
    still[:, 8:] = far[:, 8:] = 0
    torch.testing.assert_close(moved_corners(still, 0.6), torch.tensor([CORNERS]))
    torch.testing.assert_close(moved_corners(far, 0.6), 0.4 * torch.tensor([CORNERS]))
    far[:, 8:] = torch.tensor([9.0, -9.0])
    shift = moved_corners(far, 0.0) - torch.tensor([CORNERS])
    torch.testing.assert_close(shift, torch.tensor([2 * SHIFT, -2 * SHIFT]).expand(1, 4, 2))


def test_homographies_take_the_points_to_the_others() -> None:
    source, target = torch.tensor(CORNERS).expand(5, 4, 2), moved_corners(normals(5), 0.6)
    homogeneous = torch.cat([source, torch.ones(5, 4, 1)], -1) @ homographies(source, target).transpose(1, 2)
    torch.testing.assert_close(homogeneous[..., :2] / homogeneous[..., 2:], target, atol=1e-5, rtol=1e-5)


def test_a_picture_whose_corners_stay_stays() -> None:
    picture = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(warped(picture, torch.tensor([CORNERS]).repeat(2, 1, 1)), picture, atol=1e-5, rtol=0)


def test_a_ramp_that_is_halved_and_shifted_is_a_steeper_ramp() -> None:
    """Affine: x' = x / 2 + 1/4, so the picture's x at x' is 2 x' - 1/2; gray outside."""
    size = 32
    x = (torch.arange(size) * 2 + 1) / size - 1
    picture = ((x + 2) / 4).expand(1, 1, size, size)
    moved = warped(picture, 0.5 * torch.tensor([CORNERS]) + torch.tensor([0.25, 0.0]))
    before = 2 * x - 0.5
    row = moved[0, 0, size // 2]
    inside = before.abs() < 1 - 1 / size
    torch.testing.assert_close(row[inside], (before[inside] + 2) / 4, atol=1e-5, rtol=0)
    assert (row[before.abs() > 1 + 1 / size] == 0.5).all() and (moved[0, 0, 0] == 0.5).all()


class Bright:
    """Similarity: the mean brightness of the middle of the picture, squared."""

    def similarity(self, picture: Tensor, question: Any) -> Tensor:
        return picture[:, :, 4:12, 4:12].mean((1, 2, 3)).square()


def test_the_rule_climbs_the_mean_over_its_copies() -> None:
    """Against finite differences; without warps it is the picture itself."""
    picture = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rule = ClipRule(Bright(), warps=3, strength=0.6)  # type: ignore[arg-type]
    noise = torch.randn(rule.noise_shape(2), generator=torch.Generator().manual_seed(1)).double()
    found = rule.direction(picture, None, torch.zeros(2), noise)  # type: ignore[arg-type]
    copies = [Bright().similarity(warped(picture, moved_corners(noise[:, k], 0.6)), None) for k in range(3)]
    assert found.figures["similarity"].item() == pytest.approx(torch.stack(copies).mean().item())
    for place in ((0, 1, 7, 8), (1, 2, 3, 10)):
        ends = []
        for sign in (1, -1):
            moved = picture.clone()
            moved[place] += sign * 1e-5
            ends.append(-rule.similarity(moved, None, noise)[place[0]])  # type: ignore[arg-type]
        assert found.gradient[place].item() == pytest.approx((ends[0] - ends[1]).item() / 2e-5, rel=1e-5, abs=1e-10)
    plain = ClipRule(Bright())  # type: ignore[arg-type]
    assert plain.noise_shape(2) == (2, 0)
    assert torch.equal(plain.similarity(picture, None, noise), Bright().similarity(picture, None))  # type: ignore[arg-type]


def test_total_variation_of_known_grids() -> None:
    """A ramp of slope s along one of three axes has s / 3; one spike of height h among R^3 vertices has two edges an axis, so 2 h /
    ((R - 1) R^2)."""
    scene = Trainer(resolve("pure-clipnerf", TINY | {"scene.levels": "5"}, "x"), load("guide")).scene
    assert isinstance(scene, GridField)
    with torch.no_grad():
        ramp = torch.arange(5.0)[:, None, None, None].expand(5, 5, 5, scene.table.shape[1])
        scene.table.copy_(0.3 * ramp.reshape(125, -1))
        assert scene.total_variation().item() == pytest.approx(0.1)
        scene.table.zero_()
        scene.table[62] = 4.0  # the middle
        assert scene.total_variation().item() == pytest.approx(8 / 100)


@pytest.mark.parametrize(
    ("own", "kind"), [({"scene.levels": "8"}, GridField), ({"scene.kind": "mlp", "scene.lr_head": 0.005}, MlpField)]
)
def test_the_preset_runs_with_explicit_voxels_and_with_an_implicit_field(own: dict[str, Any], kind: type) -> None:
    """The total variation is asked for in the middle of the run, and only of voxels."""
    trainer = Trainer(resolve("pure-clipnerf", TINY | own, "a red armchair"), load("guide"))
    assert isinstance(trainer.scene, kind) and trainer.stage.rule.warps == 2
    before = [p.detach().clone() for p in trainer.scene.parameters()]
    said = [p.metrics for p in trainer.steps()]
    assert all(m["skipped"] == 0 and -1 <= float(m["similarity"]) <= 1 for m in said)
    assert ["regularizer_total_variation" in m for m in said] == [False, kind is GridField, kind is GridField]
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.scene.parameters(), strict=True))
