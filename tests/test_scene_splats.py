"""The scene of splats: pictures of a ball against its closed form, density and surface, gradients, learning, resume."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamfusion.errors import UserError
from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.scene import splat_start
from dreamfusion.scene.depth_normals import normals_from_depth
from dreamfusion.scene.harmonics import coefficients_of
from dreamfusion.scene.make import make_scene
from dreamfusion.scene.scene_settings import SplatSettings
from dreamfusion.scene.splat_scene import SplatScene
from dreamfusion.scene.splatting import PLAIN, Footprints
from dreamfusion.scene.splatting_gsplat import GSplat
from dreamfusion.scene.transfer import Volume
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import SMALL, GrayBallPrior

SPLATS: dict[str, Any] = {k: v for k, v in SMALL.items() if k not in ("scene.samples", "scene.levels", "scene.fast")} | {
    "scene.kind": "splats", "scene.count": 60,
}  # fmt: skip


def splat_scene(**settings: Any) -> SplatScene:
    scene = make_scene(SplatSettings(**{"count": 200} | settings), torch.Generator().manual_seed(0))
    assert isinstance(scene, SplatScene)
    return scene


def sphere_scene(radius: float = 0.6, count: int = 4000) -> SplatScene:
    """A shell of flat, opaque splats, whose colours say where they are."""
    k = torch.arange(count) + 0.5
    height, turn = 1 - 2 * k / count, math.pi * (1 + 5**0.5) * k
    ring = (1 - height**2).sqrt()
    centres = radius * torch.stack([ring * turn.cos(), height, ring * turn.sin()], 1)
    scene = splat_scene()
    splats = splat_start.round_splats(centres, 0.5 + 0.5 * centres, SplatSettings(opacity=0.9))
    splats["rotations"] = torch.stack([1 + height, ring * turn.sin(), 0 * k, -ring * turn.cos()], 1)  # y to the centre
    splats["log_scales"][:, 1] -= 2
    scene.take(splats)
    return scene


def test_pictures_of_a_ball_are_its_closed_form() -> None:
    """Silhouette, depth, normals, clay and colours of a shell of splats, against rays that meet a sphere."""
    scene, size = sphere_scene(), 64
    cameras = orbit_cameras([30.0, 200.0], 20.0)
    view = orbit_view(cameras, size, "textureless")
    with torch.no_grad():
        seen = scene.render(view)
        albedo = scene.render(orbit_view(cameras, size, "albedo")).colour
    origin, direction = cameras.rays(size)
    along = (origin * direction).sum(-1)
    root = along**2 - origin.square().sum(-1) + 0.6**2
    hit = root > 0.08  # away from the rim
    t = -along - root.clamp_min(0).sqrt()
    points = origin + t[..., None] * direction
    normal = (points / 0.6).permute(0, 3, 1, 2)
    clay = 0.8 * (0.5 + 0.5 * (normal * view.lights[:, :, None, None]).sum(1, keepdim=True).clamp_min(0))
    assert hit.sum() > 800
    assert seen.opacity[:, 0][hit].min() > 0.97 and seen.opacity[:, 0][root < -0.1].max() == 0
    off = (seen.depth / seen.opacity - t[:, None])[hit[:, None]].abs()
    assert off.mean() < 0.035 and off.max() < 0.06  # a splat has one depth, that of its centre
    cosine = (seen.normal * normal).sum(1)[hit]
    assert cosine.mean() > 0.97 and cosine.min() > 0.85
    assert (seen.colour - clay).abs()[hit[:, None].expand(-1, 3, -1, -1)].mean() < 0.02
    expected = 0.5 + 0.5 * points.permute(0, 3, 1, 2)
    assert (albedo - expected).abs()[hit[:, None].expand(-1, 3, -1, -1)].max() < 0.05
    across = math.tan(math.asin(0.6 / 2.5)) / math.tan(math.radians(47 / 2))
    assert seen.opacity[0].sum().item() == pytest.approx(math.pi * (across * size / 2) ** 2, rel=0.15)


@pytest.mark.parametrize("size", [64, 256])
def test_normals_of_a_slanted_plane_are_exact_and_edges_stay_sharp(size: int) -> None:
    cameras = orbit_cameras([25.0], 10.0)
    origin, direction = cameras.rays(size)
    normal = torch.nn.functional.normalize(cameras.axes()[2][0] + torch.tensor([0.4, 0.3, 0.0]), dim=0)
    t = -(origin @ normal) / (direction @ normal)
    depth, opacity = t[:, None], torch.ones(1, 1, size, size)
    opacity[..., : size // 4] = 0
    found = normals_from_depth(depth * opacity, opacity, cameras)
    inside = found[0, :, :, size // 4 :]
    torch.testing.assert_close(inside, normal[:, None, None].expand_as(inside), atol=2e-3, rtol=0)
    assert ((found[0] * direction[0].permute(2, 0, 1)).sum(0) < 0).all()
    step = torch.where(torch.arange(size) < size // 2, 0.0, 0.6)
    nearer = normals_from_depth((depth - step) * opacity, opacity, cameras)[0]
    assert (nearer[:, :, size // 2] * normal[:, None]).sum(0).min() > 0.9


@pytest.mark.parametrize("shading", ["albedo", "lambertian", "textureless"])
@pytest.mark.parametrize("fast", [True, False])
def test_what_is_shown_gets_gradients(shading: Any, fast: bool) -> None:
    scene = splat_scene(fast=fast, degree=2, opacity=0.5)
    with torch.no_grad():
        scene.log_scales[:, 0] += 0.5  # a ball does not feel a rotation
    view = orbit_view(orbit_cameras([10.0, 100.0]), 16, shading)
    picture = scene.render(view, torch.Generator().manual_seed(0)).over(torch.ones(2, 3, 1, 1))
    assert picture.min() >= 0 and picture.max() <= 1
    ((picture - 0.3) * torch.randn(picture.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    moved = {name for name, p in scene.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == set(dict(scene.named_parameters())) - ({"harmonics"} if shading == "textureless" else set())
    assert all(p.grad is None or p.grad.isfinite().all() for p in scene.parameters())


def test_compiled_and_plain_scenes_agree() -> None:
    found = []
    for fast in (True, False):
        scene = splat_scene(fast=fast, opacity=0.4)
        with torch.no_grad():
            found.append(scene.render(orbit_view(orbit_cameras([10.0, 100.0]), 24)))
    for name in ("colour", "opacity", "depth", "normal"):
        torch.testing.assert_close(getattr(found[0], name), getattr(found[1], name), atol=2e-3, rtol=0)


def test_density_is_the_formula_and_a_ray_loses_the_opacity() -> None:
    scene = splat_scene(opacity=0.3)
    with torch.no_grad():
        scene.log_scales += torch.randn(scene.log_scales.shape, generator=torch.Generator().manual_seed(0)) * 0.3
    volume = scene.volume()
    points = np.random.default_rng(0).uniform(-0.7, 0.7, (500, 3))
    np.testing.assert_allclose(volume.sample(points), volume.sample_plainly(points), atol=1e-9)
    assert isinstance(scene, Volume)
    one = splat_scene()
    one.take({k: v[:1].detach() for k, v in scene.state_dict().items()})
    with torch.no_grad():
        one.centres.zero_()
        one.rotations.copy_(torch.tensor([[1.0, 0, 0, 0]]))
        one.log_scales.copy_(torch.tensor([[0.2, 0.1, 0.05]]).log())
    line = torch.zeros(4001, 3)
    line[:, 2] = torch.linspace(-0.5, 0.5, 4001)
    lost = 1 - torch.exp(-one.density(line).sum() / 4000)
    assert lost.item() == pytest.approx(torch.sigmoid(one.logits.detach()).item(), rel=1e-3)


def test_the_surface_of_a_ball_of_splats_is_a_ball() -> None:
    surface = sphere_scene(count=1500).surface(ExportSettings(resolution=64, faces=3000))
    body = surface.mesh.geometry()
    assert body.is_watertight and body.body_count == 1
    radius = np.linalg.norm(surface.mesh.vertices, axis=1)
    assert abs(np.median(radius) - 0.62) < 0.05 and radius.max() < 0.75
    points, normals = (torch.from_numpy(x).float() for x in (surface.mesh.vertices, surface.mesh.normals))
    colours = surface.colour(points, normals)
    outward = 0.5 + 0.5 * 0.6 * torch.nn.functional.normalize(points, dim=1)
    assert (colours - outward).abs().mean() < 0.03


def test_the_volume_follows_the_parameters() -> None:
    scene = splat_scene(opacity=0.3)
    before = scene.density(torch.zeros(1, 3))
    with torch.no_grad():
        scene.logits += 1
    assert scene.density(torch.zeros(1, 3)) > before


def test_it_learns_pictures() -> None:
    """The colours and the silhouette of a ball, from a smaller one of gray splats."""
    scene, goal = splat_scene(count=300, radius=0.4, opacity=0.3), sphere_scene(count=1500)
    view = orbit_view(orbit_cameras([0.0, 60, 120, 180, 240, 300], 10.0), 16, "albedo")
    with torch.no_grad():
        wanted = goal.render(view).over(torch.zeros(6, 3, 1, 1))
    optimiser = torch.optim.Adam([{"params": list(p.values()), "lr": 3 * rate} for p, rate in scene.groups().values()])
    losses = []
    for _ in range(60):
        off = (scene.render(view).over(torch.zeros(6, 3, 1, 1)) - wanted).square().mean()
        optimiser.zero_grad()
        off.backward()
        optimiser.step()
        losses.append(off.item())
    assert losses[-1] < 0.1 * losses[0]


def test_splats_hold_colours_and_no_latents() -> None:
    with pytest.raises(UserError, match=r"set scene.channels to 3"):
        Trainer(resolve("balanced", SPLATS | {"scene.channels": 4}, "x"), GrayBallPrior())


def test_the_same_settings_and_seed_give_the_same_splats() -> None:
    one, other = splat_scene(), splat_scene()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert one.is_like(other) and not one.is_like(splat_scene(degree=1))
    assert one.centres.norm(dim=1).max() <= 0.5
    assert splat_start.spacing(one.centres.detach()).mean().item() == pytest.approx(
        0.5 * (4.19 / 200) ** (1 / 3), rel=0.25
    )


class FakeLibrary:
    """What gsplat documents of three functions, by the plain way."""

    def isect_tiles(self, place: Tensor, radii: Tensor, depth: Tensor, tile: int, wide: int, high: int) -> Any:
        assert radii.dtype == torch.int32 and radii.shape == place.shape and (wide, high) == (2, 2)
        self.depth = depth
        return None, "ids", "flat"

    def isect_offset_encode(self, ids: str, views: int, wide: int, high: int) -> str:
        assert ids == "ids" and views == 2
        return "offsets"

    def rasterize_to_pixels(
        self,
        place: Tensor,
        conic: Tensor,
        features: Tensor,
        opacity: Tensor,
        wide: int,
        high: int,
        tile: int,
        *rest: str,
    ) -> tuple[Tensor, Tensor]:
        assert rest == ("offsets", "flat") and wide == high == 20
        made = PLAIN.composite(Footprints(place, conic, opacity), opacity, features, self.depth, wide)
        return made[..., :-1], made[..., -1:]


def test_the_adapter_to_gsplat_gives_what_the_plain_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, view = splat_scene(opacity=0.4, fast=False), orbit_view(orbit_cameras([10.0, 100.0]), 20)
    found = []
    for made in (PLAIN, GSplat(FakeLibrary())):
        monkeypatch.setattr(scene, "splatter", lambda made=made: made)
        found.append(scene.render(view).colour)
    torch.testing.assert_close(*found)


def test_coefficients_of_gray_are_nothing() -> None:
    assert (coefficients_of(torch.full((2, 3), 0.5), 3) == 0).all()
