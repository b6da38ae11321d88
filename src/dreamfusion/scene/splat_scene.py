"""3D Gaussians (Kerbl et al. 2023, "3D Gaussian splatting for real-time radiance field rendering"). B looks, N splats."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..geometry.export_settings import ExportSettings
from ..geometry.splat_file import SplatData
from ..geometry.surface import Surface, volume_surface
from ..torch_state import plain_torch
from ..view.backdrops import Groups
from ..view.view import View
from .depth_normals import normals_from_depth
from .fitted import shown_surface
from .growth import Growth
from .harmonics import coloured, flat_colour, of_degree
from .particles import shown_of
from .scene import Moments, Rendering, Scene
from .scene_settings import SplatSettings, same_thing
from .shading import CLAY, light_factor
from .splat_density import Density
from .splat_start import ball, from_file, from_surface
from .splatting import FUSED, PLAIN, Lens, Splatter, covariances
from .transfer import Volume

SAMPLED = ExportSettings(resolution=96, faces=20_000)
"""How finely the surface of the scene before is taken."""
SEEN = ("colour", "opacity", "depth", "normal")
PARTS = ("centres", "log_scales", "rotations", "logits", "harmonics")
"""What a splat has: centre (3,), logarithms of its axes' standard deviations (3,), quaternion (4,) with w first, logit of its
opacity (), and coefficients ((degree + 1)^2, 3) of its colour."""


class SplatScene(Scene):
    """Splats, drawn from the nearest to the farthest. Colours are their albedo. Light needs normals, which are those of the
    picture's depth; so pictures are lit as a whole, and light moves the splats by the depth."""

    centres: nn.Parameter
    log_scales: nn.Parameter
    rotations: nn.Parameter
    logits: nn.Parameter
    harmonics: nn.Parameter

    def __init__(self, settings: SplatSettings, generator: torch.Generator):
        super().__init__()
        self.settings = settings
        self.growth = Growth(settings)
        self._volume: tuple[Any, Density] | None = None
        self.take(ball(settings, generator))

    def take(self, splats: dict[str, Tensor]) -> None:
        """Become these splats, {name: values} of ``PARTS``."""
        for name in PARTS:
            setattr(self, name, nn.Parameter(splats[name].detach().clone()))

    def parts(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return {name: getattr(self, name) for name in PARTS}

    def __len__(self) -> int:
        return len(self.centres)

    def groups(self) -> Groups:
        s = self.settings
        rates = {
            "centres": s.lr, "log_scales": s.lr_scale, "rotations": s.lr_rotation, "logits": s.lr_opacity,
            "harmonics": s.lr_colour,
        }  # fmt: skip
        return {name: ({name: getattr(self, name)}, rate) for name, rate in rates.items()}

    def is_like(self, other: Scene) -> bool:
        return isinstance(other, SplatScene) and same_thing(self.settings, other.settings)

    def begin(self) -> None:
        if self.settings.file:
            self._take_here(from_file(self.settings))

    def begin_from(self, previous: Scene, rng: torch.Generator) -> None:
        """Take the splats of the scene before, or points of its surface with their colours."""
        if isinstance(previous := shown_of(previous), SplatScene):
            self.take(previous.parts() | {"harmonics": of_degree(previous.harmonics, self.settings.degree)})
        else:
            self._take_here(from_surface(shown_surface(previous, SAMPLED), self.settings, rng))

    def _take_here(self, made: dict[str, Tensor]) -> None:
        """Take splats that were made on the CPU."""
        self.take({name: value.to(self.centres.device) for name, value in made.items()})

    def after_step(self, step: int, steps: int, moments: Moments) -> None:
        self.growth.after_step(self, step, steps, moments)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        for name in PARTS:  # as many as the checkpoint has
            if (value := state_dict.get(prefix + name)) is not None:
                setattr(self, name, nn.Parameter(torch.zeros_like(value, device=self.centres.device)))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def splatter(self) -> Splatter:
        """The fastest one for where the scene is."""
        if not self.settings.fast:
            return PLAIN
        if self.centres.device.type == "cpu":
            return FUSED
        from .splatting_gsplat import gsplat

        return (gsplat() if self.centres.device.type == "cuda" else None) or PLAIN

    @plain_torch()
    def render(self, view: View, rng: torch.Generator | None = None) -> Rendering:
        covs = covariances(self.rotations, self.log_scales)
        if torch.is_grad_enabled():
            return self.draw(view, covs)
        parts = [self.draw(view[i], covs) for i in range(len(view))]  # one by one, to bound the memory
        colour, opacity, depth, normal = (torch.cat([getattr(part, name) for part in parts]) for name in SEEN)
        return Rendering(colour, opacity, depth, normal)

    def draw(self, view: View, covs: Tensor) -> Rendering:
        """Pictures of the splats; covs (N, 6)."""
        made, size = self.splatter(), view.size
        lens = Lens.of(view.cameras, size, self.centres)
        seen = made.project(self.centres, covs, lens)
        if seen.place.requires_grad:
            seen.place.register_hook(partial(self.growth.observe, kept=seen.kept.detach()))
        away = self.centres - lens.position[:, None]
        distance = away.norm(dim=-1)
        opacity = torch.sigmoid(self.logits) * seen.kept
        colours = coloured(self.harmonics, away / distance[..., None])
        features = torch.cat([colours, distance[..., None]], -1)
        picture = made.composite(seen, opacity, features, distance.detach(), size).permute(0, 3, 1, 2)
        albedo, depth, solid = picture.split([3, 1, 1], 1)
        normal = normals_from_depth(depth, solid, view.cameras)
        if view.shading == "textureless":
            albedo = CLAY * solid.expand(-1, 3, -1, -1)
        if view.shading in ("textureless", "lambertian"):
            light = view.lights.to(normal)[:, None, None]
            albedo = albedo * light_factor(normal.permute(0, 2, 3, 1), light, view.ambient)[:, None]
        return Rendering(albedo, solid, depth, normal * solid)

    def data(self) -> SplatData:
        """What the splats are, on the CPU."""
        return SplatData(**{name: part.detach().cpu().float().numpy() for name, part in self.parts().items()})

    def volume(self) -> Density:
        """The splats as a density in space, as they are now."""
        now = [(p.data_ptr(), p._version) for p in self.parameters()]
        if self._volume is None or self._volume[0] != now:
            with torch.no_grad():
                turned, sized = (
                    x.cpu().double() for x in (self.rotations, self.log_scales)
                )  # thin splats need the digits
                covs = covariances(turned, sized)
                thinnest = self.log_scales.amin(1).exp()
                given = (self.centres, covs, torch.sigmoid(self.logits), thinnest, flat_colour(self.harmonics))
                self._volume = now, Density(*(x.cpu().double().numpy() for x in given))
        return self._volume[1]

    @torch.no_grad()
    def density(self, points: Tensor) -> Tensor:
        """Density (P,) in 1 / world unit at points (P, 3) of the unit sphere; see ``splat_density``."""
        return self._sampled(points)[:, 0]

    @torch.no_grad()
    def albedo(self, points: Tensor) -> Tensor:
        """Albedo (P, 3) in [0, 1] at points (P, 3): the mean of the splats there, by their density."""
        return self._sampled(points)[:, 1:]

    def _sampled(self, points: Tensor) -> Tensor:
        found = self.volume().sample(points.detach().cpu().double().numpy())
        return torch.from_numpy(found.astype(np.float32)).to(points.device)

    def as_volume(self) -> Volume:
        return self

    def surface(self, settings: ExportSettings) -> Surface:
        return volume_surface(self.density, self.albedo, settings)
