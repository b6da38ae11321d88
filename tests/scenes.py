"""Known things to look at: a closed-form picture of coloured balls, and fields with something in them."""

import torch

from dreamfusion.scene.make import make_scene
from dreamfusion.scene.rays import RayRendering, Rays
from dreamfusion.scene.scene_settings import GridSettings, MlpSettings, SceneSettings

BALLS = (  # centre, radius, colour
    ((0.0, -0.15, 0.0), 0.5, (0.9, 0.2, 0.1)),
    ((0.3, 0.45, 0.2), 0.3, (0.1, 0.3, 0.8)),
)
FIELDS = ("colour", "opacity", "depth", "normal", "orientation")


def ball_picture(rays: Rays) -> torch.Tensor:
    """Albedo of the nearest ball before mid-gray (N, 3), by solving |o + t d - c| = r."""
    nearest = torch.full((len(rays.origins),), float("inf"))
    colour = torch.full((len(rays.origins), 3), 0.5)
    for centre, radius, albedo in BALLS:
        to_centre = torch.tensor(centre) - rays.origins
        along = (to_centre * rays.directions).sum(-1)
        root = radius**2 - to_centre.square().sum(-1) + along**2
        t = along - root.clamp_min(0).sqrt()
        seen = (root > 0) & (t < nearest)
        nearest = torch.where(seen, t, nearest)
        colour[seen] = torch.tensor(albedo)
    return colour


def scene_settings(kind: str = "grid", **settings) -> SceneSettings:
    """Settings of a kind of field that starts from a dense blob, as the paper's does; a grid's levels are for grids only."""
    if kind == "mlp":
        settings.pop("levels", None)
    given = {"samples": 96, "density_bias": 5.0, "density_bias_width": 0.3} | settings
    return {"grid": GridSettings, "mlp": MlpSettings}[kind](**given)


def random_grid(seed: int = 0, density: float = 50.0, colour: float = 5.0, **settings):
    """A small grid field with lively contents."""
    field = make_scene(
        scene_settings(**{"levels": (6, 13), "samples": 32} | settings), torch.Generator().manual_seed(seed)
    )
    with torch.no_grad():
        field.table[:, 0] *= density
        field.table[:, 1:] *= colour
    return field


def mixed_loss(rendering: RayRendering, seed: int = 0) -> torch.Tensor:
    """A random linear function of everything that was rendered."""
    generator = torch.Generator().manual_seed(seed)
    values = [getattr(rendering, name) for name in FIELDS]
    return sum((v * torch.randn(v.shape, generator=generator).to(v)).sum() for v in values)
