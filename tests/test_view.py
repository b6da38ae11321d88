"""Looks: some of a view's, groups of them, and what stands behind."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from dreamfusion.errors import UserError
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.lights import camera_lights
from dreamfusion.view.looks import sample_view
from dreamfusion.view.view import View, orbit_view
from dreamfusion.view.view_settings import ShadingSettings, ViewSettings
from tests.fakes import SMALL, GrayBallPrior

SETTINGS = ViewSettings(
    azimuth_deg=(-90, 90), elevation_deg=(-20, 50), radius=(1.5, 3.5), light_above_deg=(0, 60), light_around_deg=(-50, 50)
)  # fmt: skip


def five() -> View:
    """Five looks, all different."""
    rng = torch.Generator().manual_seed(0)
    view = sample_view(SETTINGS, ShadingSettings(), 0.5, rng, count=5, size=6)
    return View(
        view.cameras, view.lights, 6, "albedo", 0.3, torch.rand(5, 3, 1, 1, generator=rng), torch.arange(5), group=1
    )


def tensors(view: View) -> dict[str, Tensor]:
    held = {f.name: getattr(view.cameras, f.name) for f in fields(view.cameras)}
    return held | {"lights": view.lights, "background": view.background, "prompt": view.prompt}


@pytest.mark.parametrize("index", [0, 3, slice(1, 4), slice(0, 5, 2), slice(None), slice(2, 2)])
def test_some_of_a_views_looks(index: int | slice) -> None:
    whole = five()
    part = whole[index]
    chosen = range(5)[index]
    expected = [chosen] if isinstance(chosen, int) else list(chosen)
    assert len(whole) == 5 and len(part) == len(expected)
    for name, value in tensors(whole).items():
        assert torch.equal(tensors(part)[name], value[expected]), name
    assert (part.size, part.shading, part.ambient, part.group) == (6, "albedo", 0.3, 1)


def test_what_nobody_has_chosen_stays_so() -> None:
    view = View(orbit_cameras([0, 90]), torch.zeros(2, 3), 4)
    assert view[1].background is None and view[1].prompt is None and view.plain_background is None
    assert torch.equal(view.over(torch.ones(2, 3, 1, 1)).plain_background, torch.ones(2, 3))
    assert view.background is None, "a view is not changed by looking at it over something"


def test_plain_backgrounds_are_colours_without_gradients() -> None:
    colours = torch.rand(2, 3, requires_grad=True)
    view = View(orbit_cameras([0, 90]), torch.zeros(2, 3), 4)
    plain = view.over(colours[:, :, None, None]).plain_background
    assert torch.equal(plain, colours) and not plain.requires_grad
    assert view.over(torch.rand(2, 3, 4, 4)).plain_background is None, "a picture is no colour"
    assert view.over(torch.rand(2, 1, 1, 1)).plain_background is None
    latent = View(orbit_cameras([0, 90]), torch.zeros(2, 3), 4, "latent", background=torch.rand(2, 3, 1, 1))
    assert latent.plain_background is None, "latents have no colours"


@pytest.mark.parametrize("group", [1, 2, 3, 4, 6])
def test_the_looks_of_a_group_stand_evenly_around_the_object(group: int) -> None:
    view = sample_view(
        SETTINGS, ShadingSettings(), 0.5, torch.Generator().manual_seed(1), count=12, size=8, group=group
    )
    assert (len(view), view.size, view.group) == (12, 8, group)
    azimuth, elevation, radius, fov = (
        getattr(view.cameras, name).reshape(-1, group) for name in ("azimuth", "elevation", "radius", "fov")
    )
    for shared in (elevation, radius, fov):
        assert (shared == shared[:, :1]).all()
    assert len(set(elevation[:, 0].tolist())) == len(set(radius[:, 0].tolist())) == 12 // group, "groups differ"
    turn = azimuth.rad2deg() - azimuth[:, :1].rad2deg()
    torch.testing.assert_close(turn, (torch.arange(group) * 360 / group).expand(12 // group, group), atol=1e-3, rtol=0)
    low, high = SETTINGS.azimuth_deg
    assert (azimuth[:, 0].rad2deg() >= low - 1e-3).all() and (azimuth[:, 0].rad2deg() <= high + 1e-3).all()
    # Around the vertical axis, the corners of a regular polygon: their mean stands above the origin.
    positions = view.cameras.positions().reshape(-1, group, 3)
    if group > 1:
        torch.testing.assert_close(positions[..., [0, 2]].mean(1), torch.zeros(12 // group, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(positions.norm(dim=-1), radius)
    assert torch.equal(view.prompt, torch.zeros(12, dtype=torch.int64))
    torch.testing.assert_close(view.lights.norm(dim=-1), torch.ones(12))


class Asked(GrayBallPrior):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[Tensor] = []
        self.views: list[View] = []

    def predict_noise(self, z_t, t, question, about):
        self.times.append(t)
        self.views.append(question.view)
        return super().predict_noise(z_t, t, question, about)


def test_a_group_shares_its_noise_level_and_each_group_has_its_part_of_the_range() -> None:
    settings = SMALL | {
        "views_per_step": 6, "prior.views": 3, "steps": 3, "distillation.t_min": 0.2, "distillation.t_max": 0.8,
    }  # fmt: skip
    prior = Asked()
    trainer = Trainer(resolve("balanced", settings, "a ball"), prior)
    for _ in trainer.steps():
        pass
    assert len(prior.times) == 3
    for t, view in zip(prior.times, prior.views, strict=True):
        levels = t.reshape(2, 3)
        assert (levels == levels[:, :1]).all() and 0.2 <= levels[0, 0] < 0.5 <= levels[1, 0] < 0.8
        assert view.group == 3 and len(view) == 6
        elevation = view.cameras.elevation.reshape(2, 3)
        assert (elevation == elevation[:, :1]).all() and elevation[0, 0] != elevation[1, 0]
        turn = view.cameras.azimuth.reshape(2, 3).diff(dim=1)
        torch.testing.assert_close(turn, torch.full((2, 2), 2 * math.pi / 3), atol=1e-5, rtol=0)
    assert not torch.equal(prior.times[0], prior.times[1]), "each step has its own"


def test_steps_are_made_of_whole_groups() -> None:
    settings = SMALL | {"views_per_step": 4, "prior.views": 3}
    with pytest.raises(UserError, match=r"^views_per_step = 4 must be a multiple of prior\.views = 3$"):
        Trainer(resolve("balanced", settings, "a ball"), GrayBallPrior())


def test_an_orbits_lights_and_backgrounds_are_given_once_or_for_each_look() -> None:
    cameras = orbit_cameras([0, 120, 240], 10)
    one = orbit_view(cameras, 4, light_above_deg=20, light_around_deg=-15, background=0.7)
    above, around = torch.tensor([10.0, 20, 30]), torch.tensor([-15.0, 0, 15])
    many = orbit_view(
        cameras, 4, light_above_deg=above, light_around_deg=around, background=torch.tensor([[0.1], [0.2], [0.3]])
    )
    same = torch.ones(3)
    torch.testing.assert_close(one.lights, camera_lights(cameras, math.radians(20) * same, math.radians(-15) * same))
    torch.testing.assert_close(many.lights, camera_lights(cameras, above.deg2rad(), around.deg2rad()))
    torch.testing.assert_close(one.plain_background, torch.full((3, 3), 0.7))
    torch.testing.assert_close(many.plain_background, torch.tensor([[0.1] * 3, [0.2] * 3, [0.3] * 3]))
    for count in (2, 3):  # three looks do not take a colour for three grays
        colour = orbit_view(orbit_cameras([0, 90, 180][:count]), 4, background=torch.tensor([1.0, 0.5, 0.0]))
        torch.testing.assert_close(colour.plain_background, torch.tensor([[1.0, 0.5, 0.0]] * count))
    every = torch.rand(3, 3)
    assert torch.equal(orbit_view(cameras, 4, background=every).plain_background, every)
