"""Planes that are fitted to single rays of the drawn views."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.test_tools_prior_start import cameras, views_of_a_ball

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "prior"))

from fit import SAMPLES, SIDE, axes_of, fit_loss, light_of, rays_through, reader

from dreamfusion.priors.layout import POINT_WIDTH, Layout, Sizes, ray_points


def test_rays_are_the_renderers() -> None:
    camera = cameras()[:5]
    pixel = torch.randint(SIDE * SIDE, (5,), generator=torch.Generator().manual_seed(1))
    points, spacing, depth, longer = rays_through(axes_of(camera), camera[:, 2], pixel)
    want_points, want_spacing, want_depth = ray_points(camera, SIDE, SAMPLES)
    for k, p in enumerate(pixel.tolist()):
        torch.testing.assert_close(points[k], want_points[k, :, p], rtol=0, atol=2e-5)
        torch.testing.assert_close(depth[k], want_depth[k, :, p], rtol=0, atol=2e-5)
        torch.testing.assert_close(spacing[k], want_spacing[k, 0, p], rtol=0, atol=2e-5)
    back = axes_of(camera)[:, 2]
    along = camera[:, 2, None] - (points * back[:, None]).sum(-1)  # on the optical axis
    torch.testing.assert_close(along * longer[:, None], depth, rtol=0, atol=2e-5)


def test_the_light_is_thirty_degrees_above_the_camera() -> None:
    axes = axes_of(cameras())
    light = light_of(axes)
    torch.testing.assert_close((light * axes[:, 2]).sum(-1), torch.full((len(axes),), 3**0.5 / 2))
    torch.testing.assert_close((light * axes[:, 1]).sum(-1), torch.full((len(axes),), 0.5))


def test_planes_learn_a_ball_from_rays() -> None:
    """Coverage and depth of rays that were not fitted become the ball's."""
    torch.manual_seed(0)
    camera, views = cameras(), views_of_a_ball(cameras())
    layout, read = Layout(Sizes(1, 1, (1, 1, 1), side=16)).requires_grad_(False), reader()
    planes = (torch.randn(1, layout.planes.weight.shape[1]) * 0.1).requires_grad_(True)
    optimizer = torch.optim.Adam([{"params": [planes], "lr": 0.15}, {"params": list(read.parameters()), "lr": 3e-3}])
    g = torch.Generator().manual_seed(2)
    stored = views.flatten(2)

    def some(rays: int, first: int, last: int) -> tuple[torch.Tensor, ...]:
        view = torch.randint(first, last, (rays,), generator=g)
        pixel = torch.randint(SIDE * SIDE, (rays,), generator=g)
        return stored[view, :, pixel][None], camera[view][None], pixel[None]

    for _ in range(200):
        loss = fit_loss(layout, read, planes, *some(256, 0, 20))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pixels, seen_from, pixel = (x[0] for x in some(512, 20, 24))
    points, spacing, depth, longer = rays_through(axes_of(seen_from), seen_from[:, 2], pixel)
    with torch.no_grad():
        found = layout.cut(
            planes[0].unflatten(-1, (3, -1, 16, 16)), points.transpose(0, 1)[None], spacing[None, None], depth.T[None]
        )
    opacity, far = found[0, POINT_WIDTH], found[0, POINT_WIDTH + 1]
    assert (opacity - pixels[:, 3]).square().mean() < 0.02 < pixels[:, 3].var()
    hit = (pixels[:, 3] == 1) & (opacity > 0.9)
    want = (pixels[:, 5] * 2 + seen_from[:, 2] - 1) * longer - 2.5
    assert hit.sum() > 50 and (far / opacity - want)[hit].abs().mean() < 0.08
