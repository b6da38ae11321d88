"""Sketch-Shape's guide: its loss and gradient against a ball's closed forms, and a field that follows a mesh."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from dreamfusion.errors import UserError
from dreamfusion.geometry.mesh import Mesh, winding_numbers, with_normals
from dreamfusion.no_effect import without_effect
from dreamfusion.scene.grid import GridField
from dreamfusion.scene.mesh_guide import SIDE, SURE, THICK, MeshGuide, guide_loss
from dreamfusion.settings.building import stage_configs
from dreamfusion.settings.presets import resolve
from dreamfusion.torch_state import threads
from dreamfusion.trainer import Trainer
from tests.fakes import GrayBallPrior

TINY: dict[str, Any] = {
    "steps": 2, "resolution": 12, "threads": 1, "scene.samples": 12, "scene.levels": "4,8", "views_per_step": 1,
}  # fmt: skip
RADIUS, WIDTH = 0.6, 0.3


@pytest.fixture(scope="module")
def guide() -> MeshGuide:
    """That of a ball."""
    ball = trimesh.creation.icosphere(3, RADIUS)
    return MeshGuide.of(with_normals(Mesh(np.asarray(ball.vertices, float), np.asarray(ball.faces, np.int64))))


@pytest.fixture
def ball_file(tmp_path: Path) -> str:
    """A ball that is put into the sphere as one of radius 0.85."""
    path = tmp_path / "ball.obj"
    trimesh.creation.icosphere(1, 3.0).export(path)
    return str(path)


def test_a_ball_is_known_by_its_radius(guide: MeshGuide) -> None:
    """To the spacing of its lattice."""
    points = torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.8
    r, spacing = points.norm(dim=1), 2 / (SIDE - 1)
    inside, distance = guide.at(points)
    clear = (r - RADIUS).abs() > spacing
    assert torch.equal(inside[clear], r[clear] < RADIUS) and 0.1 < inside.float().mean() < 0.4
    torch.testing.assert_close(distance, (r - RADIUS).abs(), atol=spacing, rtol=0)
    assert (distance - (r - RADIUS).abs())[clear].abs().mean() < 0.005


@pytest.mark.parametrize("density", [0.0, 3.0, 500.0])
def test_the_loss_of_an_even_density_is_an_integral_over_the_ball(guide: MeshGuide, density: float) -> None:
    """By the midpoint rule over the radius: 3 r^2 dr is the share of the unit ball's points at r."""
    r = (np.arange(20_000) + 0.5) / 20_000
    occupied = 1 - math.exp(-THICK * density)
    agree, differ = -math.log(SURE), -math.log(1 - SURE)
    entropy = np.where(
        r < RADIUS, occupied * agree + (1 - occupied) * differ, occupied * differ + (1 - occupied) * agree
    )
    expected = float((3 * r**2 * entropy * (1 - np.exp(-((r - RADIUS) ** 2) / (2 * WIDTH**2)))).mean())
    value = guide.penalty(lambda points: torch.full((len(points),), density), WIDTH, None)
    assert value.item() == pytest.approx(expected, rel=0.05)


def test_its_gradient_is_that_of_its_formula() -> None:
    """d/ds of CE(1 - exp(-T s), M): T exp(-T s) log((1 - M) / M), times the weight, over the number of points."""
    density = torch.tensor([0.0, 2.0, 30.0, 2.0], dtype=torch.float64, requires_grad=True)
    inside = torch.tensor([True, True, False, False])
    distance = torch.tensor([0.1, 0.4, 0.2, 0.0], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(guide_loss(density, inside, distance, WIDTH), density)
    for k in range(4):
        towards = math.log((1 - SURE) / SURE) * (1 if inside[k] else -1)
        free = 1 - math.exp(-(float(distance[k]) ** 2) / (2 * WIDTH**2))
        expected = THICK * math.exp(-THICK * density[k].item()) * towards * free / 4
        assert gradient[k].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert gradient[3] == 0  # on the surface the field is free


def test_overlapping_parts_are_all_inside() -> None:
    """Where two cubes overlap the mesh winds twice about a point, which is still inside."""
    a, b = trimesh.creation.box((0.6, 0.6, 0.6)), trimesh.creation.box((0.6, 0.6, 0.6))
    b.apply_translation((0.3, 0, 0))
    both = trimesh.util.concatenate([a, b])
    points = np.array([[-0.2, 0.1, 0], [0.15, 0.1, 0.05], [0.5, 0, 0.1], [0.7, 0, 0], [0, 0.4, 0]])
    found = winding_numbers(points, np.asarray(both.vertices, float), np.asarray(both.faces, np.int64))
    np.testing.assert_allclose(found, [1, 2, 1, 0, 0], atol=1e-9)


def test_a_field_learns_to_be_solid_inside_and_empty_outside(ball_file: str) -> None:
    """By the guide alone: the prior's gradient is turned off."""
    config = resolve("sketch-shape", TINY | {"scene.sketch": ball_file}, "x")
    scene = Trainer(config, GrayBallPrior()).scene
    assert isinstance(scene, GridField)
    optimiser = torch.optim.Adam(scene.parameters(), lr=0.2)
    rng = torch.Generator().manual_seed(0)
    for _ in range(40):
        optimiser.zero_grad()
        scene.mesh_guide().penalty(scene.density, 0.1, rng).backward()
        optimiser.step()
    points = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0, -0.5, 0.3], [0, 0, 0.98], [-0.98, 0, 0], [0, 0.98, 0]])
    with torch.no_grad():
        opaque = 1 - torch.exp(-THICK * scene.density(points))
    assert opaque[:3].min() > 0.8 and opaque[3:].max() < 0.2, opaque


def test_the_preset_is_guided_by_the_mesh_that_is_given(ball_file: str) -> None:
    """It weighs the guide's value, and that of no other preset."""
    config = resolve("sketch-shape", TINY | {"mesh": ball_file}, "x")
    assert config.scene.sketch == ball_file and without_effect(config) == []
    trainer = Trainer(config, GrayBallPrior())
    assert isinstance(trainer.scene, GridField)
    for progress in trainer.steps():
        assert progress.metrics["skipped"] == 0 and 0.01 < float(progress.metrics["regularizer_sketch"]) < 4.7
    plain = Trainer(resolve("fast", TINY, "x"), GrayBallPrior())
    assert "regularizer_sketch" not in plain.step()


MESH = {"scene.kind": "mesh", "scene.resolution": 24, "regularizers.laplacian": 0.02, "regularizers.eikonal": 0.02}


@pytest.mark.parametrize("preset,given", [("sketch-shape", {"mesh": ""}), ("fast", MESH)])
def test_the_same_seed_gives_the_same_bits_on_two_threads(preset: str, given: dict[str, Any], ball_file: str) -> None:
    """Without ``in_order`` nearly all of four runs differ in the last bits."""
    tiny = {name: value for name, value in TINY.items() if preset == "sketch-shape" or name != "scene.samples"}
    config = resolve(preset, tiny | given | ({"mesh": ball_file} if "mesh" in given else {}), "x")
    found = []
    with threads(2):
        for _ in range(4):
            trainer = Trainer(config, GrayBallPrior())
            assert len(list(trainer.steps())) == 2
            found.append(torch.cat([p.detach().flatten() for p in trainer.scene.parameters()]))
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_guide_is_asked_for_and_never_ignored(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"regularizers.sketch needs a mesh as the guide; give one with --mesh FILE"):
        Trainer(resolve("sketch-shape", TINY, "x"), GrayBallPrior())
    with pytest.raises(UserError, match=r"cannot be read|holds no faces|No such file"):
        Trainer(resolve("sketch-shape", TINY | {"mesh": str(tmp_path / "none.obj")}, "x"), GrayBallPrior())
    with pytest.raises(UserError, match=r"scene.file belongs to scene.kind=mesh or splats; this run has grid"):
        resolve("fast", {"mesh": "a.obj"}, "x")
    lines = without_effect(resolve("fast", {"scene.sketch": "a.obj", "scene.sketch_width": 0.2}, "x"))
    assert [line.partition(" = ")[0] for line in lines] == ["scene.sketch", "scene.sketch_width"]
    lines = without_effect(resolve("fast", {"scene.kind": "mesh", "regularizers.sketch": 0.1}, "x"))
    assert any(line.startswith("regularizers.sketch = 0.1 has no effect") for line in lines)


def test_a_mesh_after_a_guided_field_is_not_guided(ball_file: str) -> None:
    given = {"mesh": ball_file, "regularizers.sketch": 0.1}
    kinds = [(s.scene.kind, getattr(s.scene, "sketch", "")) for s in stage_configs(resolve("bridge", given, "x"))]
    assert kinds == [("grid", ball_file), ("grid", ball_file)]
    kinds = [
        (s.scene.kind, getattr(s.scene, "sketch", ""))
        for s in stage_configs(resolve("magic3d", {"scene.sketch": ball_file, "regularizers.sketch": 0.1}, "x"))
    ]
    assert kinds == [("grid", ball_file), ("mesh", "")]
