"""Scenes on another device: whoever asks for a density, an albedo or a surface with points of the CPU gets answers there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from elsewhere import DEVICE, Away, Elsewhere

from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.scene.field import RadianceField
from dreamfusion.scene.make import make_scene
from dreamfusion.scene.scene_settings import GridSettings, MlpSettings, SplatSettings
from dreamfusion.scene.splat_scene import SplatScene

FIELDS = {
    "grid": GridSettings(levels=[8, 16], density_bias=20.0),
    "mlp": MlpSettings(hidden=16, depth=2, density_bias=20.0, density_bias_width=0.4),
}


def field_of(kind: str) -> RadianceField:
    made = make_scene(FIELDS[kind], torch.Generator().manual_seed(0))
    assert isinstance(made, RadianceField)
    return made


@pytest.mark.parametrize("kind", list(FIELDS))
def test_a_field_elsewhere_answers_where_the_points_are(kind: str) -> None:
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    field = field_of(kind)
    expected = field.density(points), field.albedo(points)
    with Elsewhere():
        away = field.to(DEVICE)
        found = away.density(points), away.albedo(points)
        assert not any(isinstance(x, Away) for x in found)
        assert isinstance(away.density(points.to(DEVICE)), Away)
    for theirs, mine in zip(expected, found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_field_elsewhere_has_the_same_surface() -> None:
    """An export after a run on a GPU."""
    settings = ExportSettings(resolution=24, fit=False, faces=2000)
    field, point = field_of("grid"), torch.tensor([[0.0, 0.4, 0.0]])
    with torch.no_grad():
        expected = field.surface(settings)
        colour = expected.colour(point, point)
    with Elsewhere(), torch.no_grad():
        found = field.to(DEVICE).surface(settings)
        theirs = found.colour(point, point)
    np.testing.assert_allclose(found.mesh.vertices, expected.mesh.vertices, atol=1e-3)
    torch.testing.assert_close(theirs, colour, rtol=1e-3, atol=1e-3)


def test_splats_of_a_file_are_where_the_scene_is(tmp_path: Path) -> None:
    trimesh.creation.icosphere(2).export(tmp_path / "ball.ply")
    settings = SplatSettings(file=str(tmp_path / "ball.ply"), count=50)
    with Elsewhere():
        scene = make_scene(settings, torch.Generator().manual_seed(0)).to(DEVICE)
        assert isinstance(scene, SplatScene)
        scene.begin()
        assert {value.device for value in scene.parts().values()} == {DEVICE}


def test_splats_as_thin_as_paper_have_a_finite_density() -> None:
    scene = make_scene(SplatSettings(count=200), torch.Generator().manual_seed(0))
    assert isinstance(scene, SplatScene)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        scene.log_scales.copy_(torch.tensor([0.1, 0.1, 1e-5]).log().expand(len(scene), 3))
        scene.rotations.copy_(torch.randn(len(scene), 4, generator=draw))
    points = torch.rand(500, 3, generator=draw) * 0.8 - 0.4
    assert scene.density(points).isfinite().all() and scene.albedo(points).isfinite().all()
