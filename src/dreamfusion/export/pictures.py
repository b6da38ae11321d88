"""Pictures of a scene, rendered from the scene itself at any resolution."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ..scene.scene import Rendering, Scene
from ..torch_state import plain_torch
from ..view.view import Shading, View

Kind = Shading | Literal["normal", "depth", "opacity"]
"""Colour in one of the scene's shadings; normals in camera axes, as (n + 1) / 2; depth, near is white; opacity, solid is
white (over black, whatever the background)."""


@plain_torch()
@torch.no_grad()
def render_view(scene: Scene, view: View, kind: Kind = "lambertian") -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] of a view that has a background, without gradients or jitter."""
    shading: Shading = "textureless" if kind in ("normal", "depth", "opacity") else kind  # type: ignore[assignment]
    assert view.background is not None
    pictures = []
    for k in range(len(view)):  # one by one, to bound the memory
        one = replace(view[k], shading=shading)
        assert one.background is not None
        seen = scene.render(one)
        behind = one.background.to(seen.opacity) * (kind != "opacity")
        pictures.append(_colour(seen, kind, one) + (1 - seen.opacity) * behind)
    return torch.cat(pictures).clamp(0, 1)


def _colour(seen: Rendering, kind: Kind, view: View) -> Tensor:
    """What a rendering of one look shows in a kind of picture, (1, 3, H, W), premultiplied by the opacity."""
    if kind == "opacity":
        return seen.opacity.expand(-1, 3, -1, -1)
    if kind == "normal":
        return seen.facing(view.cameras)
    if kind == "depth":
        distance = seen.depth / seen.opacity.clamp_min(1e-6)
        radius = float(view.cameras.radius)
        nearness = ((radius + 1 - distance) / 2).clamp(0, 1)  # 1 where the unit sphere begins, 0 where it ends
        return nearness.expand(-1, 3, -1, -1) * seen.opacity
    return seen.colour
