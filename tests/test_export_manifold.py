"""Meshes with pinched edges, taken apart."""

import fast_simplification
import numpy as np
import pytest
import torch
import trimesh

from dreamfusion.geometry.manifold import paired_edges, unpinch, without_folds
from dreamfusion.geometry.mesh import Mesh, decimate, extract_surface, is_watertight

# Two tetrahedra on either side of x = 0 that share the edge from vertex 0 to vertex 1.
TWO = np.array([[0, 0, 0], [0, 1, 0], [1, 0.5, -0.4], [1, 0.5, 0.4], [-1, 0.5, -0.4], [-1, 0.5, 0.4]], float)
TWO_FACES = np.array([[0, 2, 3], [0, 1, 2], [1, 3, 2], [0, 3, 1], [0, 5, 4], [0, 4, 1], [1, 4, 5], [0, 1, 5]])


def body(vertices, faces) -> trimesh.Trimesh:
    return trimesh.Trimesh(vertices, faces, process=False)


def test_bodies_that_share_an_edge_come_apart():
    before = body(TWO, TWO_FACES)
    assert not before.is_watertight and before.volume > 0
    vertices, faces = unpinch(TWO, TWO_FACES)
    after = body(vertices, faces)
    assert after.is_watertight and after.is_winding_consistent and after.body_count == 2
    assert all(part.volume == pytest.approx(before.volume / 2, rel=0.05) for part in after.split())
    assert len(np.unique(vertices, axis=0)) == 8  # the copies do not lie on each other
    right = vertices[np.unique(faces[:4])]
    assert right[:, 0].min() > 0  # each body has drawn back to its own side


def test_edges_are_paired_through_the_solid_whatever_the_order():
    for seed in range(6):
        faces = np.random.default_rng(seed).permutation(TWO_FACES)
        first, second = paired_edges(TWO, faces)
        assert len(first) == 12
        for a, b in zip(first // 3, second // 3, strict=True):
            sides = [TWO[faces[f]][:, 0].sum() > 0 for f in (a, b)]
            assert sides[0] == sides[1]


def test_bodies_that_share_a_vertex_come_apart():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]], float)
    one = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    other = np.where(one > 0, one + 3, 0)[:, ::-1]
    made, faces = unpinch(vertices, np.concatenate([one, other]))
    assert len(made) == 8 and body(made, faces).is_watertight and body(made, faces).body_count == 2


def test_folds_cancel():
    faces = np.array([[0, 1, 2], [1, 2, 3], [2, 1, 0], [3, 3, 1], [4, 5, 6], [6, 5, 4], [5, 6, 4]])
    assert sorted(map(sorted, without_folds(faces).tolist())) == [[1, 2, 3], [4, 5, 6]]
    kept = without_folds(faces)[1]
    assert [*kept, *kept][list(kept).index(4) + 1] == 5  # of the three, the winding that was there twice


def test_a_clean_mesh_is_left_alone():
    sphere = trimesh.creation.icosphere(subdivisions=2)
    vertices, faces = unpinch(np.asarray(sphere.vertices), np.asarray(sphere.faces))
    assert len(vertices) == len(sphere.vertices) and len(faces) == len(sphere.faces)
    assert np.allclose(vertices[faces], sphere.vertices[sphere.faces])


def test_a_rough_surface_stays_closed_when_decimated():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 14, 14, 14, generator=generator)

    def density(p: torch.Tensor) -> torch.Tensor:
        rough = torch.nn.functional.grid_sample(noise, p.flip(-1)[None, None, None], align_corners=True).reshape(-1)
        return torch.exp(3 * rough - 4 * p.square().sum(-1) + 2)

    mesh = extract_surface(density, 64, 3.0, radius=1.0)
    assert is_watertight(mesh)
    raw = fast_simplification.simplify(mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32), target_count=3000)
    assert not is_watertight(Mesh(raw[0].astype(float), raw[1].astype(np.int64)))  # else this tests nothing
    small = decimate(mesh, 3000)
    assert len(small.faces) < 3200
    assert small.geometry().is_watertight and small.geometry().is_winding_consistent
    assert small.geometry().volume == pytest.approx(mesh.geometry().volume, rel=0.05)
