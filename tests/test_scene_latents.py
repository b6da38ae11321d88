"""A field of latents: rendered as what it holds, or in colours through its linear map."""

import pytest
import torch
from scenes import scene_settings

from dreamfusion.scene.make import make_scene
from dreamfusion.scene.rays import camera_rays
from dreamfusion.view.cameras import orbit_cameras


@pytest.mark.parametrize("kind", ["grid", "mlp"])
def test_colours_are_the_map_of_the_latents(kind: str) -> None:
    settings = scene_settings(kind=kind, channels=5, levels=(6, 10), samples=16, hidden=8)
    scene = make_scene(settings, torch.Generator().manual_seed(0))
    weight = 0.1 * torch.randn(3, 5, generator=torch.Generator().manual_seed(1))  # small: nothing is clamped
    bias = torch.tensor([0.4, 0.5, 0.6])
    scene.set_palette(weight, bias)
    rays = camera_rays(orbit_cameras([30.0]), 8)
    with torch.no_grad():
        latents = scene.render_rays(rays, "latent", rays.directions, 0.5)
        colours = scene.render_rays(rays, "albedo", rays.directions, 0.5)
    assert latents.colour.shape == (64, 5) and colours.colour.shape == (64, 3)
    assert latents.opacity.max() > 0.5 and torch.equal(latents.opacity, colours.opacity)
    # A linear map goes through compositing: the weights of a ray sum to its opacity.
    expected = latents.colour @ weight.T + latents.opacity[:, None] * bias
    torch.testing.assert_close(colours.colour, expected, rtol=1e-4, atol=1e-5)
