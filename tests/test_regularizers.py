import math
from dataclasses import replace

import pytest
import torch

from dreamfusion import regularizers
from dreamfusion.scene import volume
from dreamfusion.scene.scene import Rendering
from dreamfusion.settings.config import RegularizerSettings

OFF = {"entropy": 0, "orientation": 0, "smoothness": 0}


def rendering(n=16):
    """One picture of a square of ``n`` pixels."""
    generator = torch.Generator().manual_seed(0)
    side = math.isqrt(n)
    normal = torch.randn(1, 3, side, side, generator=generator)
    rest = torch.rand(3, 1, 1, side, side, generator=generator)
    penalties = {"orientation": rest[2].mean()}
    return Rendering(torch.zeros(1, 3, side, side), rest[0].requires_grad_(), rest[1], normal, penalties)


def test_opacity_sparsity_in_closed_form():
    assert regularizers.opacity_sparsity(torch.tensor([0.0, math.sqrt(0.99)])).item() == pytest.approx(0.55)


def test_entropy_in_closed_form_and_at_its_ends():
    assert regularizers.opacity_entropy(torch.tensor([0.5])).item() == pytest.approx(math.log(2))
    p = torch.tensor([0.2, 0.9], dtype=torch.float64)
    expected = torch.distributions.Bernoulli(p).entropy().mean()
    torch.testing.assert_close(regularizers.opacity_entropy(p), expected)
    ends = torch.tensor([0.0, 1.0, 1.0 + 1e-6], requires_grad=True)
    value = regularizers.opacity_entropy(ends)
    value.backward()
    assert value.item() == pytest.approx(0, abs=2e-4) and torch.isfinite(ends.grad).all()


def test_smoothness_of_a_known_picture():
    normal = torch.zeros(2, 2, 3)
    normal[0, 1, 0] = 2.0  # differs by 2 from its left and its lower neighbour
    opacity = torch.tensor([[1.0, 0.5], [1.0, 1.0]])
    value = regularizers.smoothness(normal.permute(2, 0, 1)[None], opacity[None, None])
    assert value.item() == pytest.approx(4 * 0.5 / 2 + 4 * 0.5 / 2)


def test_smoothness_does_not_join_pictures():
    normal = torch.cat([torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)])
    assert regularizers.smoothness(normal, torch.ones(2, 1, 2, 2)) == 0


def test_total_follows_the_schedules_and_skips_what_is_off():
    seen = rendering()
    settings = RegularizerSettings(**OFF | {"opacity": [(0, 0), (1, 4)], "orientation": 2.0})
    loss, terms = regularizers.total(settings, seen, 0.5)
    expected = 2 * regularizers.opacity_sparsity(seen.opacity) + 2 * seen.penalties["orientation"]
    torch.testing.assert_close(loss, expected)
    assert set(terms) == {"regularizer_opacity", "regularizer_orientation"}
    assert terms["regularizer_orientation"].item() == pytest.approx(seen.penalties["orientation"].item())
    assert not any(value.requires_grad for value in terms.values())
    nothing, terms = regularizers.total(RegularizerSettings(**OFF), replace(seen, normal=seen.normal[0]), 0.5)
    assert nothing == 0 and not terms and not nothing.requires_grad


def test_the_scenes_own_penalties_are_weighed_by_name_and_others_left_alone():
    own = {"orientation": torch.tensor(0.5), "of_its_own": torch.tensor(100.0)}
    loss, terms = regularizers.total(
        RegularizerSettings(**OFF | {"orientation": 3}), replace(rendering(), penalties=own), 0
    )
    assert loss == 1.5 and set(terms) == {"regularizer_orientation"}
    loss, terms = regularizers.total(
        RegularizerSettings(**OFF | {"orientation": 3}), replace(rendering(), penalties={}), 0
    )
    assert loss == 0 and not terms


def test_transmittance_in_closed_form_and_flat_beyond_its_target():
    opacity = torch.tensor([0.1, 0.3, 0.0, 0.0, 0.9, 0.5, 0.6, 0.8], dtype=torch.float64, requires_grad=True)
    value = regularizers.transmittance(
        opacity.reshape(2, 1, 2, 2), 0.85
    )  # mean transmittances 0.9, past the target, and 0.3
    assert value.item() == pytest.approx(-(0.85 + 0.3) / 2)
    value.backward()
    assert opacity.grad.tolist() == pytest.approx([0] * 4 + [1 / 8] * 4)


def test_transmittance_follows_its_own_target_schedule():
    own = {"transmittance": 2.0, "transmittance_target": [(0, 0.0), (1, 0.02)]}
    loss, terms = regularizers.total(RegularizerSettings(**OFF | own), rendering(), 0.5)
    assert terms["regularizer_transmittance"].item() == pytest.approx(-0.01) and loss.item() == pytest.approx(-0.02)


def test_emptiness_and_variance_of_depth_are_their_formulas() -> None:
    """Three rays: one hard surface, two halves at 1 and 2 (mean 1.5, variance 1/4), and fog that is left out."""
    weights = torch.tensor([[0.0, 0.9, 0.0], [0.4, 0.0, 0.4], [0.1, 0.1, 0.1]])
    distance = torch.tensor([[1.0, 1.5, 2.0]]).expand(3, 3)
    torch.testing.assert_close(
        volume.depth_variance(weights, distance), torch.tensor([0.0, 0.25, 0.0]), atol=1e-5, rtol=0
    )
    expected = (1 + 10 * weights).log().mean(1)
    torch.testing.assert_close(volume.emptiness(weights), expected)
    spread = torch.full((1, 3), 0.3)
    assert volume.emptiness(spread) > volume.emptiness(weights[:1])  # the same opacity costs more as fog
