"""Surfaces of a roughness and a share of metal: the split sum against Monte Carlo integrals, scenes, files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamfusion.asset import Asset
from dreamfusion.batch.glb_json import glb_json
from dreamfusion.errors import UserError
from dreamfusion.export.formats import FileOptions
from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.scene import pbr
from dreamfusion.scene.mesh_scene import MeshScene
from dreamfusion.scene.shading import light_factor
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import GrayBallPrior
from tests.resuming import resumes_bit_exactly
from tests.test_scene_mesh import MESH, mesh_scene

DRAWN = 200_000


def directions(seed: int, count: int = DRAWN) -> torch.Tensor:
    """Uniform over the upper hemisphere (count, 3), z up, float64."""
    rng = torch.Generator().manual_seed(seed)
    z, turn = (torch.rand(count, generator=rng, dtype=torch.float64) for _ in range(2))
    side = (1 - z**2).sqrt()
    return torch.stack([side * torch.cos(2 * math.pi * turn), side * torch.sin(2 * math.pi * turn), z], -1)


def brdf(to: torch.Tensor, view: torch.Tensor, roughness: float, f0: float) -> torch.Tensor:
    """The GGX reflection of glTF 2.0, appendix B, written out again from its formulas."""
    half = torch.nn.functional.normalize(to + view, dim=-1)
    nl, nv, nh, vh = to[:, 2], view[2], half[:, 2], (half * view).sum(-1)
    a2 = roughness**4
    d = a2 / (math.pi * ((nh * nh) * (a2 - 1) + 1) ** 2)
    shadow = 2 * nl / (nl + (a2 + (1 - a2) * nl**2).sqrt())
    # Height-correlated: 1 / (1 + Lambda(v) + Lambda(l)), with Lambda from the one-sided G1 = 1 / (1 + Lambda).
    masking = 2 * nv / (nv + math.sqrt(a2 + (1 - a2) * float(nv) ** 2))
    g = 1 / (1 / shadow + 1 / masking - 1)
    return d * g / (4 * nl * nv) * (f0 + (1 - f0) * (1 - vh) ** 5)


def view_at(cosine: float) -> torch.Tensor:
    return torch.tensor([math.sqrt(1 - cosine**2), 0.0, cosine], dtype=torch.float64)


def lamp(to: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    return pbr.LAMP / 2 * torch.exp(pbr.LAMP * ((to * middle).sum(-1) - 1))


@pytest.mark.parametrize("roughness", [0.4, 0.7, 1.0])
@pytest.mark.parametrize("cosine", [0.3, 0.8])
def test_reflectance_in_white_light(roughness: float, cosine: float) -> None:
    row = torch.tensor([(roughness - pbr.SMOOTHEST) / (1 - pbr.SMOOTHEST)])
    first, second = pbr.look_up(pbr.reflectance_table(), row, torch.tensor([cosine]))
    to = directions(1)
    for f0 in (0.04, 0.9):
        value = brdf(to, view_at(cosine), roughness, f0) * to[:, 2] * 2 * math.pi
        error = value.std().item() / math.sqrt(DRAWN)
        assert (f0 * first + second).item() == pytest.approx(value.mean().item(), abs=4 * error + 3e-3)


def test_nothing_reflects_more_than_it_gets() -> None:
    first, second = pbr.reflectance_table()
    assert (first >= 0).all() and (second >= 0).all() and (first + second <= 1.001).all()
    assert (first + second)[0, -1].item() == pytest.approx(1, abs=2e-3)  # a mirror


@pytest.mark.parametrize("away_deg", [0.0, 40.0, 80.0, 110.0])
def test_the_lamp_on_a_matte_surface(away_deg: float) -> None:
    """Irradiance over pi, and nearly n . l where the lamp is above the horizon."""
    angle = math.radians(away_deg)
    to, middle = directions(2), torch.tensor([math.sin(angle), 0, math.cos(angle)], dtype=torch.float64)
    value = lamp(to, middle) * to[:, 2] * 2
    column = torch.tensor([math.sin(angle / 2)])
    found = pbr.look_up(pbr.lamp_table()[None, -1:], torch.zeros(1), column).item()
    assert found == pytest.approx(value.mean().item(), abs=4 * value.std().item() / math.sqrt(DRAWN) + 1e-3)
    assert found == pytest.approx(max(math.cos(angle), 0), abs=0.05)


@pytest.mark.parametrize("roughness", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("away_deg", [0.0, 20.0, 60.0])
def test_the_lamp_in_a_mirror_that_faces_the_camera(roughness: float, away_deg: float) -> None:
    """There the split sum is exact, but for the tables' spacing."""
    angle, view = math.radians(away_deg), view_at(1.0)
    to, middle = directions(3), torch.tensor([math.sin(angle), 0, math.cos(angle)], dtype=torch.float64)
    reflected = brdf(to, view, roughness, 1.0) * to[:, 2] * 2 * math.pi
    exact = (reflected * lamp(to, middle)).mean().item()
    row = torch.tensor([(roughness - pbr.SMOOTHEST) / (1 - pbr.SMOOTHEST)])
    (mirrored,) = pbr.look_up(pbr.lamp_table()[None, :-1], row, torch.tensor([math.sin(angle / 2)]))
    first, second = pbr.look_up(pbr.reflectance_table(), row, torch.ones(1))
    assert (mirrored * (first + second)).item() == pytest.approx(exact, rel=0.03, abs=0.01)


def test_a_matte_surface_looks_as_albedo_does_elsewhere_but_for_its_gloss() -> None:
    normal = torch.nn.functional.normalize(directions(4, 500).float(), dim=-1)
    towards, light = torch.tensor([[0.0, 0, 1]]).expand(500, 3), torch.tensor([[0.0, 0.5, 0.866]]).expand(500, 3)
    base = torch.full((500, 3), 0.6)
    shown = pbr.lit(base, torch.tensor([[1.0, 0.0]]).expand(500, 2), normal, towards, light, 0.5)
    plain = base * light_factor(normal, light, 0.5)[:, None]
    assert (shown - plain).abs().max() < 0.07 and (shown - plain).mean().abs() < 0.05


def test_gradients_are_finite_differences() -> None:
    rng = torch.Generator().manual_seed(5)
    base, finish = torch.rand(6, 3, generator=rng).double() * 0.5, torch.rand(6, 2, generator=rng).double() * 0.8 + 0.1
    normal = directions(6, 6)
    towards, light = (torch.nn.functional.normalize(x, dim=-1) for x in (directions(7, 6), directions(8, 6)))
    base.requires_grad_(), finish.requires_grad_()
    torch.autograd.gradcheck(
        lambda b, f: pbr.lit(b, f, normal, towards, light, 0.5), (base, finish), eps=1e-7, atol=1e-4
    )


def pbr_scene(**more: object) -> MeshScene:
    scene = mesh_scene(material="pbr", radius=0.6, **more)
    with torch.no_grad():
        scene.texture.out.weight.mul_(0.1)
    return scene


def test_a_scene_begins_rough_and_hardly_metal_and_shows_its_lamp() -> None:
    scene = pbr_scene()
    base, finish = scene.texture.material(torch.rand(50, 3) - 0.5)
    assert base.shape == (50, 3) and finish.mean(0).tolist() == pytest.approx([0.7, 0.05], abs=0.1)
    view = orbit_view(orbit_cameras([0.0], 0.0), 64, "lambertian", light_above_deg=30.0)
    with torch.no_grad():
        rough = scene.render(view).colour
        scene.texture.out.bias[-2] = -2.0  # roughness 0.18
        smooth = scene.render(view).colour
        plain = scene.render(replace(view, shading="albedo")).colour
    bright = smooth[0].sum(0).argmax().item()
    # The lamp stands 30 degrees above the camera, so a ball mirrors it where its normal is halfway, near 15 degrees up.
    row = (31.5 - bright // 64) * math.tan(math.radians(47 / 2)) / 32 * (2.5 - 0.6 * math.cos(math.radians(15)))
    assert row == pytest.approx(0.6 * math.sin(math.radians(15)), abs=0.05) and abs(bright % 64 - 31.5) < 3
    assert smooth.max() > rough.max() + 0.05
    assert torch.equal(plain, scene.render(replace(view, shading="albedo")).colour)


def test_a_finish_is_learned_and_resumed() -> None:
    given = MESH | {"scene.material": "pbr", "shading.textureless": 0}
    config = resolve("balanced", given, "x")
    trainer = Trainer(config, GrayBallPrior())
    before = trainer.scene.texture.out.weight.detach().clone()
    assert all(progress.metrics["skipped"] == 0 for progress in trainer.steps())
    assert (trainer.scene.texture.out.weight[-2:] != before[-2:]).any()
    resumes_bit_exactly(config, GrayBallPrior, 6, (2,))
    with pytest.raises(UserError, match="latents have no roughness"):
        resolve("balanced", given | {"scene.channels": 4}, "x")


@pytest.mark.parametrize("compress", [False, True])
def test_a_glb_keeps_roughness_and_metal(compress: bool, tmp_path: Path) -> None:
    """Read back by trimesh: the values of the texture in green and blue, and factors of one."""
    if compress:
        pytest.importorskip("DracoPy")
    scene = pbr_scene(resolution=10)
    with torch.no_grad():
        scene.texture.out.weight[-2:] = 0
    asset = Asset.from_scene(scene, ExportSettings(texture_size=64, faces=300, fit=False), "x")
    path = tmp_path / "a.glb"
    asset.save(path, FileOptions(compress=compress))
    tree = glb_json(path)
    (material,) = tree["materials"]
    surface = material["pbrMetallicRoughness"]
    assert surface["metallicFactor"] == surface["roughnessFactor"] == 1
    assert [surface[k]["index"] for k in ("baseColorTexture", "metallicRoughnessTexture")] == [0, 1]
    assert len(tree["textures"]) == len(tree["images"]) == 4 and asset.finish is not None and not asset.faithful
    wanted = np.array([1, 0.7, 0.05]) * 255  # 178.5 is rounded up or down, as the machine's sigmoid has it
    assert np.abs(asset.finish - wanted).max() < 0.51
    if not compress:
        again = Asset.load(path)
        assert np.array_equal(again.finish, asset.finish) and np.array_equal(again.texture, asset.texture)
    matte = Asset.from_scene(mesh_scene(resolution=10), ExportSettings(texture_size=64, faces=300, fit=False), "x")
    matte.save(tmp_path / "b.glb")
    assert matte.finish is None and Asset.load(tmp_path / "b.glb").finish is None
