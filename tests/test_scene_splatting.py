"""Drawing 3D Gaussians: compiled against plain, gradients against finite differences, pictures against closed forms."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y
from torch import Tensor

from dreamfusion.kernels import raster_fused, splat_fused
from dreamfusion.scene import splatting
from dreamfusion.scene.harmonics import basis, coefficients_of, coloured, flat_colour
from dreamfusion.scene.splatting import FUSED, PLAIN, Lens, Splatter, covariances
from dreamfusion.view.cameras import Cameras, orbit_cameras

BOTH = pytest.mark.parametrize("made", [PLAIN, FUSED], ids=["plain", "fused"])
Cloud = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def cloud(count: int = 60, dtype: torch.dtype = torch.float64, size: float = 0.12) -> Cloud:
    """Centres, quaternions, log scales, opacities and three features of long and short splats, some nearly opaque."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    scales = math.log(size) + 0.6 * normal(count, 3)
    opacity = torch.sigmoid(2 * normal(count))
    opacity[:3] = 0.999
    found = (
        0.35 * normal(count, 3),
        normal(count, 4),
        scales,
        opacity,
        torch.rand(count, 3, generator=generator).double(),
    )
    return tuple(x.to(dtype) for x in found)  # type: ignore[return-value]


def some_cameras(dtype: torch.dtype = torch.float64) -> Cameras:
    return orbit_cameras([20.0, 157.0], 25.0, radius=2.2).to(dtype=dtype)


def draw(made: Splatter, given: Cloud, size: int = 24, cameras: Cameras | None = None) -> Tensor:
    """Pictures (B, S, S, 4)."""
    centres, rotations, scales, opacity, features = given
    cameras = cameras or some_cameras(centres.dtype)
    seen = made.project(centres, covariances(rotations, scales), Lens.of(cameras, size, centres))
    distance = (centres.detach() - cameras.positions()[:, None]).norm(dim=-1)
    return made.composite(seen, opacity * seen.kept, features.expand(len(cameras), -1, -1), distance, size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("count", "size", "scale"), [(60, 24, 0.12), (400, 36, 0.03), (8, 11, 0.5)])
def test_compiled_and_plain_agree_with_gradients(count: int, size: int, scale: float, dtype: torch.dtype) -> None:
    found = []
    for made in (PLAIN, FUSED):
        given = tuple(x.clone().requires_grad_() for x in cloud(count, dtype, scale))
        picture = draw(made, given, size)  # type: ignore[arg-type]
        upstream = torch.randn(picture.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
        found.append((picture.detach(), *torch.autograd.grad(picture, given, upstream)))
    assert found[0][0][..., 3].max() > 0.95
    for plain, fused in zip(*found, strict=True):
        scale = plain.abs().max().item()
        torch.testing.assert_close(fused, plain, rtol=0, atol=scale * (1e-10 if dtype == torch.float64 else 1e-3))


@BOTH
def test_gradients_are_finite_differences(made: Splatter) -> None:
    """Of everything together, in the direction of random moves of all that a splat has."""
    given = cloud()
    generator = torch.Generator().manual_seed(3)
    upstream = torch.randn(2, 24, 24, 4, generator=generator, dtype=torch.float64)

    def loss(values: Cloud) -> Tensor:
        return (draw(made, values) * upstream).sum()

    leaves = tuple(x.clone().requires_grad_() for x in given)
    gradients = torch.autograd.grad(loss(leaves), leaves)  # type: ignore[arg-type]
    for part in (*range(5), None):
        move = [
            torch.randn(x.shape, generator=generator, dtype=torch.float64) * (part in (None, k))
            for k, x in enumerate(given)
        ]
        step = 1e-8
        ahead, behind = (
            loss(tuple(x + k * step * m for x, m in zip(given, move, strict=True))).item()  # type: ignore[arg-type]
            for k in (1, -1)
        )
        told = sum((g * m).sum().item() for g, m in zip(gradients, move, strict=True))
        assert told == pytest.approx((ahead - behind) / (2 * step), rel=1e-4, abs=1e-5), part


@BOTH
def test_one_round_splat_is_a_gaussian_of_the_right_size(made: Splatter) -> None:
    """At the middle of the picture its shares are opacity exp(-r^2 / 2 s^2) with s from the focal length, and the screen's
    filter leaves the total as it is."""
    size, scale, radius = 64, 0.15, 2.5
    given = (
        torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), math.log(scale)), torch.tensor([0.8]),
        torch.ones(1, 3),
    )  # fmt: skip
    camera = orbit_cameras([40.0], 30.0, radius=radius)
    picture = draw(made, tuple(x.double() for x in given), size, camera.to(dtype=torch.float64))[0, ..., 3]  # type: ignore[arg-type]
    pixels = scale * size / 2 / math.tan(math.radians(47 / 2)) / radius
    away = torch.arange(size) + 0.5 - size / 2
    r2 = away[:, None] ** 2 + away[None] ** 2
    variance = pixels**2 + splatting.BLUR
    expected = 0.8 * pixels**2 / variance * torch.exp(-r2 / 2 / variance)
    expected[expected < splatting.FAINT] = 0
    torch.testing.assert_close(picture, expected.double(), atol=1e-6, rtol=0)
    assert picture.sum().item() == pytest.approx(2 * math.pi * 0.8 * pixels**2, rel=0.01)


@BOTH
def test_nearer_splats_hide_farther_ones(made: Splatter) -> None:
    """Over-compositing in closed form, from both sides."""
    centres = torch.tensor([[0.0, 0, 0.5], [0, 0, -0.5]]).double()
    opacity, features = torch.tensor([0.6, 0.5]).double(), torch.tensor([[1.0, 0, 0], [0, 1, 0]]).double()
    rotations, scales = torch.tensor([[1.0, 0, 0, 0]] * 2).double(), torch.full((2, 3), -0.5).double()
    cameras = orbit_cameras([0.0, 180.0], 0.0).to(dtype=torch.float64)
    picture = draw(made, (centres, rotations, scales, opacity, features), 33, cameras)[:, 16, 16]
    torch.testing.assert_close(picture[0, :2], torch.tensor([0.6, 0.4 * 0.5]).double(), atol=2e-3, rtol=0)
    torch.testing.assert_close(picture[1, :2], torch.tensor([0.5 * 0.6, 0.5]).double(), atol=2e-3, rtol=0)


def test_footprints_are_what_a_sample_of_the_gaussian_shows() -> None:
    """The affine approximation against the covariance of projected points, for a small long splat off the axis."""
    generator = torch.Generator().manual_seed(1)
    rotation, scale = torch.randn(1, 4, generator=generator).double(), torch.tensor([[-3.2, -4.0, -5.0]]).double()
    centre = torch.tensor([[0.3, -0.4, 0.2]]).double()
    lens = Lens.of(some_cameras()[:1], 64, centre)
    seen = PLAIN.project(centre, covariances(rotation, scale), lens)
    full = covariances(rotation, scale)[0, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(3, 3)
    points = centre + torch.randn(200_000, 3, generator=generator).double() @ torch.linalg.cholesky(full).T
    x, y, w = ((points - lens.position) @ lens.axes[0].T).unbind(-1)
    flat = torch.stack([32 + lens.focal * x / w, 32 - lens.focal * y / w])
    torch.testing.assert_close(flat.mean(1), seen.place[0, 0], atol=0.02, rtol=0)
    a, b, c = seen.conic[0, 0]
    inverse = torch.linalg.inv(torch.stack([torch.stack([a, b]), torch.stack([b, c])]))
    torch.testing.assert_close(torch.cov(flat), inverse - splatting.BLUR * torch.eye(2), rtol=0.02, atol=0.02)


@BOTH
def test_what_is_behind_the_camera_far_aside_or_faint_is_not_drawn(made: Splatter) -> None:
    centres = torch.tensor([[0.0, 0, 3.0], [0, 0, 2.45], [9, 0, 0], [0, 0, 0]]).double()
    opacity = torch.tensor([0.9, 0.9, 0.9, 0.003]).double()
    given = (
        centres, torch.tensor([[1.0, 0, 0, 0]] * 4).double(), torch.full((4, 3), -2.0).double(), opacity,
        torch.ones(4, 3).double(),
    )  # fmt: skip
    leaves = tuple(x.clone().requires_grad_() for x in given)
    picture = draw(made, leaves, 16, orbit_cameras([0.0], 0.0).to(dtype=torch.float64))  # type: ignore[arg-type]
    assert (picture == 0).all()
    gradients = torch.autograd.grad(picture.sum(), leaves, allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)
    assert (draw(made, tuple(x[:0] for x in given), 16) == 0).all()  # type: ignore[arg-type]


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(raster_fused.torch, "get_num_threads", lambda threads=threads: threads)
        given = tuple(x.clone().requires_grad_() for x in cloud(dtype=torch.float32))
        picture = draw(FUSED, given)  # type: ignore[arg-type]
        found.append((picture.detach(), *torch.autograd.grad(picture.square().sum(), given)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_two_have_the_same_constants() -> None:
    names = ("NEAR", "MARGIN", "BLUR", "THINNEST", "FAINT", "MOST", "OPAQUE")
    assert [getattr(splatting, n) for n in names] == [getattr(splat_fused, n) for n in names]


def test_harmonics_are_the_real_spherical_harmonics() -> None:
    """Against scipy's complex ones, whose Condon-Shortley phase is in P_lm."""
    directions = torch.nn.functional.normalize(
        torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double(), dim=-1
    )
    x, y, z = directions.numpy().T
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    expected = []
    for degree in range(4):
        for m in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(m), polar, azimuth)
            part = value.real if m >= 0 else value.imag
            expected.append(part if m == 0 else math.sqrt(2) * part)
    torch.testing.assert_close(basis(3, directions), torch.from_numpy(np.stack(expected, 1)), atol=1e-9, rtol=0)


def test_colours_come_back_from_coefficients() -> None:
    colours = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    directions = torch.nn.functional.normalize(torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    for degree in range(4):
        coefficients = coefficients_of(colours, degree)
        torch.testing.assert_close(flat_colour(coefficients), colours)
        torch.testing.assert_close(coloured(coefficients, directions), colours.expand(2, -1, -1))
    turned = coefficients_of(colours, 1)
    turned[:, 2] = 0.2
    assert (coloured(turned, directions) - colours).abs().max() > 0.02


def test_covariances_have_their_axes() -> None:
    given = cloud(10)
    packed = covariances(given[1], given[2])
    full = packed[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    values = torch.linalg.eigvalsh(full)
    torch.testing.assert_close(values, (2 * given[2]).exp().sort(1).values)
    assert len(astuple(PLAIN.project(given[0], packed, Lens.of(some_cameras(), 8, given[0])))) == 3
