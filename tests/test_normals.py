"""Normals of meshes and of what the prior means, as benchmarks/scenes.py compares them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dreamfusion.geometry.mesh import Mesh, with_normals
from dreamfusion.loading import load_prior
from dreamfusion.priors.bundled_prior import BundledPrior
from dreamfusion.priors.layout import COVER, LIT, Light
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import hues

CAMERAS = orbit_cameras([20.0, 160.0])


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))


def test_normals_of_a_ball_are_the_directions_of_its_points() -> None:
    from normals import SIZE, mesh_normals

    body = trimesh.creation.icosphere(4, 0.5)
    found = mesh_normals(with_normals(Mesh(body.vertices, body.faces)), CAMERAS)
    origin, along = (x.double() for x in CAMERAS.rays(SIZE))
    middle = -(origin * along).sum(-1, keepdim=True)
    root = middle**2 - origin.square().sum(-1, keepdim=True) + 0.25
    true = (origin + (middle - root.clamp_min(0).sqrt()) * along) * 2
    inside = (root[..., 0] > 0.02).numpy()
    assert inside.sum() > 500 and np.abs(found - true.numpy())[inside].max() < 0.03
    assert not found[(root[..., 0] < -0.02).numpy()].any()


def test_what_the_prior_means_is_lit_as_its_normals_say() -> None:
    """A seventh light is predicted by the normals that six lights gave."""
    from normals import SIZE, SURE, meant_normals

    prior = load_prior("bundled")
    assert isinstance(prior, BundledPrior)
    normal, cover = meant_normals(prior, "a red armchair", CAMERAS)
    light = torch.nn.functional.normalize(torch.tensor([0.3, 0.8, 0.5]), dim=0)
    subject = prior.embed(["a red armchair"])[0]
    met = prior.layout.meet(
        prior.layout.thing(subject.shape), CAMERAS.condition(), SIZE, None, Light(light.expand(2, 3))
    )
    facing = normal @ light
    sure = (cover > SURE) & (facing > 0.3)
    length = (met[:, LIT] / facing)[sure]
    assert torch.equal(met[:, COVER], cover) and sure.sum() > 300
    assert (length - length.median()).abs().median() < 0.05 and length.median() == pytest.approx(1, abs=0.1)


def test_pictures_of_a_shape_agree_with_six_lights_and_with_each_other() -> None:
    """The prior's picture of normals shows those that six lights gave. Its picture of depths, turned into points, has their slopes."""
    from normals import SIZE, meant_normals

    prior = load_prior("bundled")
    assert isinstance(prior, BundledPrior)
    normal, cover = meant_normals(prior, "a red armchair", CAMERAS)
    thing = prior.layout.thing(prior.embed(["a red armchair"])[0].shape)
    normals, depths = (prior.layout.draw_shape(thing, CAMERAS.condition(), kind, SIZE) for kind in ("normals", "depth"))
    sure = (cover > 0.999) & (normals[:, 3] > 0.999)
    assert torch.equal(normals[:, 3], cover) and torch.equal(depths[:, 3], cover) and sure.sum() > 300

    axes = torch.stack(CAMERAS.axes(), 1)
    shown = torch.einsum("bji,bjhw->bhwi", axes, normals[:, :3])  # colours are (n + 1) / 2, pictures twice that minus 1
    apart = torch.nn.functional.cosine_similarity(shown, normal, dim=-1)[sure].clamp(-1, 1).acos().rad2deg()
    assert apart.median() < 4

    height = torch.linspace(-1, 1, 2001)
    wheel = hues(height)
    colours = (depths[:, :3].movedim(1, -1)[sure] + 1) / 2
    distance = CAMERAS.radius[:, None, None].expand_as(cover).clone()
    distance[sure] -= height[torch.cdist(colours, wheel).argmin(1)]
    origin, along = CAMERAS.rays(SIZE)
    points = origin + along * distance[..., None]
    across, down = points[:, 1:-1, 2:] - points[:, 1:-1, :-2], points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    slopes = torch.nn.functional.normalize(torch.linalg.cross(down, across), dim=-1)
    known = [sure[:, 1 + i : SIZE - 1 + i, 1 + j : SIZE - 1 + j] for i, j in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))]
    flat = torch.stack(known).all(0) & (across.norm(dim=-1) < 0.15) & (down.norm(dim=-1) < 0.15)
    off = (slopes * normal[:, 1:-1, 1:-1]).sum(-1)[flat].clamp(-1, 1).acos().rad2deg()
    assert flat.sum() > 200 and off.median() < 15
