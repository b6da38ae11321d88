import pytest
import torch

from dreamfusion.config import ShadingSettings, ViewSettings
from dreamfusion.view.backgrounds import LearnedBackground, background_colours, composite
from dreamfusion.view.shadings import choose_shading
from dreamfusion.view.words import view_words, with_clay, with_view


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


def test_composite_uses_each_pictures_own_background():
    colour = torch.tensor([[0.2, 0.1, 0.0]]).repeat(4, 1)
    opacity = torch.tensor([0.0, 0.5, 1.0, 0.5])
    background = torch.tensor([[1.0, 1, 1], [0.0, 0, 1]])
    expected = torch.tensor([[1.2, 1.1, 1.0], [0.7, 0.6, 0.5], [0.2, 0.1, 0.0], [0.2, 0.1, 0.5]])
    torch.testing.assert_close(composite(colour, opacity, background), expected)


def test_backgrounds():
    generator = torch.Generator().manual_seed(0)
    assert (background_colours("gray", 2, generator) == 0.5).all()
    assert (background_colours("white", 2, generator) == 1).all()
    drawn = background_colours("random", 100, generator)
    assert drawn.std(0).min() > 0.2 and drawn.min() >= 0 and drawn.max() <= 1
    learned = LearnedBackground()
    assert (learned(3) == 0.5).all()
    learned(2).sum().backward()
    assert learned.logits.grad is not None and (learned.logits.grad == 0.5).all()
