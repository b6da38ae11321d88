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
