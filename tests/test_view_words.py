import math

import pytest
import torch

from dreamfusion.errors import UserError
from dreamfusion.scene.scene import Rendering
from dreamfusion.view.backdrops import (
    MEAN_LATENT,
    Backdrop,
    augmented_backgrounds,
    background_colours,
    blur,
    checkerboards,
    fourier_textures,
)
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.shadings import choose_shading, known_shadings
from dreamfusion.view.view import orbit_view
from dreamfusion.view.view_settings import ShadingSettings, ViewSettings
from dreamfusion.view.view_words import view_words, with_clay, with_view


@pytest.mark.parametrize(
    "azimuth,elevation,view",
    [
        (0, 0, "front"), (45, 0, "front"), (-45, 59, "front"), (46, 0, "side"), (-90, 0, "side"), (134, 0, "side"),
        (135, 0, "back"), (180, 10, "back"), (-180, 10, "back"), (-136, 0, "back"), (225, 0, "back"), (270, 0, "side"),
        (330, 0, "front"), (0, 61, "overhead"), (180, 89, "overhead"), (0, 60, "front"),
    ],
)  # fmt: skip
def test_view_words(azimuth, elevation, view):
    assert view_words(azimuth, elevation, ViewSettings()) == view


def test_sentences():
    assert with_view("a red armchair", "front") == "a front view of a red armchair"
    assert with_view("red armchair", "overhead") == "an overhead view of red armchair"
    assert with_view(with_clay("a red armchair"), "back") == "a back view of a clay model of a red armchair"


def test_shadings_come_in_the_given_shares():
    generator = torch.Generator().manual_seed(0)
    settings = ShadingSettings(albedo=1, lambertian=2, textureless=1, albedo_until=0.1)
    drawn = [choose_shading(settings, 0.5, generator) for _ in range(2000)]
    assert drawn.count("lambertian") / 2000 == pytest.approx(0.5, abs=0.04)
    assert drawn.count("textureless") / 2000 == pytest.approx(0.25, abs=0.04)
    assert {choose_shading(settings, 0.05, generator) for _ in range(50)} == {"albedo"}
    only = ShadingSettings(albedo=0, lambertian=0, textureless=3)
    assert {choose_shading(only, 0.0, generator) for _ in range(50)} == {"textureless"}


def test_depths_of_a_plane_are_hues_of_how_near_it_is():
    """A plane of distance 2.2 to 2.8 from a camera at 2.5; half opaque pixels are half as bright. A change of hue by finite differences."""
    cameras = orbit_cameras([0.0], 0.0, 2.5)
    distance = torch.linspace(2.2, 2.8, 5, dtype=torch.float64).view(1, 1, 1, 5).requires_grad_()
    opacity = torch.tensor([1.0, 0.5, 1.0, 1.0, 0.25], dtype=torch.float64).view(1, 1, 1, 5)
    colour = Rendering(torch.zeros(1), opacity, distance * opacity, torch.zeros(1)).nearness(cameras)
    turn = 2 * math.pi * 0.4 * (2.5 - distance + 1)
    for k in range(3):
        torch.testing.assert_close(colour[:, k : k + 1], opacity * (1 + (turn + 2 * math.pi * k / 3).cos()) / 2)
    (gradient,) = torch.autograd.grad(colour[0, 1].sum(), distance)
    away = Rendering(torch.zeros(1), opacity, (distance + 1e-6) * opacity, torch.zeros(1)).nearness(cameras)
    torch.testing.assert_close(gradient[0, 0], (away - colour)[0, 1] / 1e-6, rtol=1e-4, atol=1e-5)


def test_a_prior_without_depths_is_asked_about_none():
    both = ShadingSettings(lambertian=0.5, textureless=0, depth=0.5)
    generator = torch.Generator().manual_seed(0)
    assert {choose_shading(both, 0.5, generator) for _ in range(50)} == {"lambertian", "depth"}
    none = known_shadings(both, knows_depth=False, told=True)
    assert {choose_shading(none, 0.5, generator) for _ in range(50)} == {"lambertian"}
    assert known_shadings(both, knows_depth=True, told=True) == both
    shape = ShadingSettings(lambertian=0, textureless=0, depth=1, normals=1)
    assert known_shadings(shape, knows_depth=False, told=False).normals == 1  # a picture of normals is a picture
    with pytest.raises(UserError, match=r"no other shading has a weight"):
        known_shadings(shape, knows_depth=True, told=False)


def seen(colour: torch.Tensor, opacity: torch.Tensor) -> Rendering:
    return Rendering(colour, opacity, torch.zeros_like(opacity), torch.zeros_like(colour))


def test_every_picture_stands_before_its_own_background():
    colour = torch.tensor([0.2, 0.1, 0.0])[None, :, None, None].expand(2, 3, 1, 2)
    opacity = torch.tensor([[0.0, 0.5], [1.0, 0.5]])[:, None, None]
    background = torch.tensor([[1.0, 1, 1], [0.0, 0, 1]])[:, :, None, None]
    expected = torch.tensor([[1.2, 1.1, 1.0], [0.7, 0.6, 0.5], [0.2, 0.1, 0.0], [0.2, 0.1, 0.5]])
    found = seen(colour, opacity).over(background)
    torch.testing.assert_close(found.permute(0, 2, 3, 1).reshape(4, 3), expected)


def test_backgrounds():
    generator = torch.Generator().manual_seed(0)
    assert (background_colours("gray", 2, generator) == 0.5).all()
    assert (background_colours("white", 2, generator) == 1).all()
    drawn = background_colours("random", 100, generator)
    assert drawn.std(0).min() > 0.2 and drawn.min() >= 0 and drawn.max() <= 1
    learned = Backdrop(ViewSettings(background="learned", background_lr=0.25))
    view = orbit_view(orbit_cameras([0, 90, 180]), 4)
    assert (learned.behind(view, generator).background == 0.5).all()
    assert learned.behind(view, generator).background.shape == (3, 3, 1, 1)
    learned.behind(view[:2], generator).background.sum().backward()
    assert learned.logits.grad is not None and (learned.logits.grad == 0.5).all()
    (named, rate) = learned.groups()["background"]
    assert list(named) == ["logits"] and named["logits"] is learned.logits and rate == 0.25


@pytest.mark.parametrize("kind", ["gray", "white", "black", "random", "augmented"])
def test_a_backdrop_is_what_its_setting_says_and_draws_no_more_numbers_than_it_needs(kind):
    backdrop = Backdrop(ViewSettings(background=kind))
    assert not list(backdrop.parameters()) and not backdrop.groups()["background"][0]
    view = orbit_view(orbit_cameras([0, 90, 180]), 8)
    one, other = (torch.Generator().manual_seed(3) for _ in range(2))
    found = backdrop.behind(view, one)
    if kind == "augmented":
        assert torch.equal(found.background, augmented_backgrounds(3, 8, other)) and found.plain_background is None
    else:
        colours = background_colours(kind, 3, other)
        assert torch.equal(found.background, colours[:, :, None, None])
        assert torch.equal(found.plain_background, colours)
    assert torch.equal(one.get_state(), other.get_state())


def test_behind_latents_stands_their_mean_whatever_the_setting():
    for kind in ("random", "learned", "augmented"):
        view = orbit_view(orbit_cameras([0, 90]), 8, "latent")
        found = Backdrop(ViewSettings(background=kind)).behind(view, torch.Generator())
        assert found.background.shape == (2, 1, 1, 1) and (found.background == MEAN_LATENT).all()
        assert found.plain_background is None


def test_a_background_may_differ_from_pixel_to_pixel():
    generator = torch.Generator().manual_seed(0)
    colour, opacity, behind = (torch.rand(2, c, 2, 2, generator=generator) for c in (3, 1, 3))
    found = seen(colour, opacity).over(behind)
    for b in range(2):
        for r in range(2):
            for c in range(2):
                expected = colour[b, :, r, c] + (1 - opacity[b, 0, r, c]) * behind[b, :, r, c]
                torch.testing.assert_close(found[b, :, r, c], expected)


def test_checkerboards_have_two_colours_in_turn():
    for board in checkerboards(3, 16, torch.Generator().manual_seed(0), squares=4):
        square = board.reshape(3, 4, 4, 4, 4)
        assert (square == square[:, :, :1, :, :1]).all()
        cells = square[:, :, 0, :, 0]
        assert (cells[:, 0, 0] != cells[:, 0, 1]).any()
        for i in range(4):
            for j in range(4):
                assert torch.equal(cells[:, i, j], cells[:, 0, (i + j) % 2])


def test_fourier_textures_are_smooth_colours_of_both_kinds():
    drawn = fourier_textures(200, 32, torch.Generator().manual_seed(0))
    assert drawn.min() > 0 and drawn.max() < 1
    assert abs(drawn.mean().item() - 0.5) < 0.02 and drawn.std() > 0.2
    field = drawn.double().logit() / 2
    torch.testing.assert_close(field.square().mean((2, 3)), torch.ones(200, 3, dtype=torch.float64), rtol=1e-3, atol=0)
    power = torch.fft.rfft2(field).abs().square().mean((0, 1))
    assert (power[0, 2] / power[0, 8]).item() == pytest.approx(4**3, rel=0.2)  # amplitude f^-1.5, power f^-3


def test_blur_is_a_gaussian_of_each_pictures_own_spread():
    spread = torch.tensor([1.5, 2.5])
    point = torch.zeros(2, 1, 32, 32)
    point[:, :, 0, 0] = 1
    x = torch.fft.fftfreq(32, 1 / 32)
    square = x[:, None] ** 2 + x**2
    for picture, s in zip(blur(point, spread), spread, strict=True):
        expected = torch.exp(-square / (2 * s**2)) / (2 * torch.pi * s**2)
        torch.testing.assert_close(picture[0], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(blur(point, torch.zeros(2)), point, rtol=0, atol=1e-6)


def test_augmented_backgrounds_are_pictures_of_all_kinds():
    generator = torch.Generator().manual_seed(0)
    drawn = augmented_backgrounds(300, 16, generator)
    assert drawn.shape == (300, 3, 16, 16) and drawn.min() >= 0 and drawn.max() <= 1
    assert abs(drawn.mean().item() - 0.5) < 0.03
    assert drawn.mean((2, 3)).std(0).min() > 0.1  # their mean colours differ
    assert not torch.equal(drawn[:2], augmented_backgrounds(2, 16, generator))
