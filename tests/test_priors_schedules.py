"""Every schedule against the scheduler's own ``add_noise``, every prediction type against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dreamfusion.errors import UserError
from dreamfusion.priors.prior import broadcast, clean_from_noise
from dreamfusion.priors.schedules import schedule_of

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
ZERO_SNR = {**SD, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
PRESERVING = [
    ("DDPMScheduler", {}),
    (
        "DDPMScheduler",
        {"beta_schedule": "squaredcos_cap_v2", "variance_type": "learned_range", "thresholding": True},
    ),  # IF
    ("DDPMScheduler", ZERO_SNR),
    ("DDIMScheduler", {**SD, "set_alpha_to_one": False, "steps_offset": 1}),
    ("DDIMScheduler", ZERO_SNR),
    ("PNDMScheduler", {**SD, "skip_prk_steps": True, "prediction_type": "v_prediction"}),  # SD 2.1
    ("LCMScheduler", SD),
    ("TCDScheduler", SD),
]
EXPLODING = [
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
]
STEPS = torch.tensor([0, 1, 17, 250, 500, 777, 998, 999])


def pair(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(count, 3, 4, 4, generator=g), torch.randn(count, 3, 4, 4, generator=g)


def ours(schedule: Any, x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    alpha, sigma = schedule.alpha_sigma(t)
    return broadcast(alpha, x) * x + broadcast(sigma, x) * noise


@pytest.mark.parametrize(("name", "config"), PRESERVING)
def test_variance_preserving_equals_add_noise(name: str, config: dict[str, Any]) -> None:
    scheduler = getattr(diffusers, name)(**config)
    schedule = schedule_of(scheduler)
    x, noise = pair(len(STEPS))
    t = STEPS / 1000
    torch.testing.assert_close(ours(schedule, x, noise, t), scheduler.add_noise(x, noise, STEPS), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(schedule.network_time(t), STEPS.float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", EXPLODING)
def test_variance_exploding_schedulers_mean_the_same_picture_scaled(name: str) -> None:
    scheduler = getattr(diffusers, name)(**SD)
    scheduler.set_timesteps(1000)
    schedule = schedule_of(scheduler)
    x, noise = pair(1)
    for t in scheduler.timesteps[::199]:
        noisy = scheduler.add_noise(x, noise, t[None])
        sigma = scheduler.sigmas[(scheduler.timesteps == t).nonzero()[0]]
        torch.testing.assert_close(
            ours(schedule, x, noise, t[None] / 1000), noisy / (sigma**2 + 1).sqrt(), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_multistep_solvers_equal_add_noise(name: str) -> None:
    scheduler = getattr(diffusers, name)(**SD)
    scheduler.set_timesteps(25)
    x, noise = pair(len(scheduler.timesteps))
    got = ours(schedule_of(scheduler), x, noise, scheduler.timesteps / 1000)
    torch.testing.assert_close(got, scheduler.add_noise(x, noise, scheduler.timesteps), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_equals_scale_noise(shift: float) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    schedule = schedule_of(scheduler)
    index = torch.tensor([0, 1, 333, 700, 999])  # of the scheduler's rows, which run from noise to data
    x, noise = pair(len(index))
    expected = scheduler.scale_noise(x, scheduler.timesteps[index], noise)
    t = (1000 - index) / 1000
    torch.testing.assert_close(ours(schedule, x, noise, t), expected, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(schedule.network_time(t), scheduler.timesteps[index], rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_dynamic_shift_equals_the_scheduler(kind: str, tokens: int) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type=kind, shift=3.0)
    schedule = schedule_of(scheduler, tokens)
    s = torch.tensor([0.001, 0.25, 0.5, 0.9])
    mu = 0.5 + (1.15 - 0.5) * (tokens - 256) / (4096 - 256)
    torch.testing.assert_close(schedule.alpha_sigma(s)[1], scheduler.time_shift(mu, 1.0, s), rtol=1e-5, atol=1e-6)


def test_a_flow_prediction_of_a_dpm_solver_is_flow() -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.set_timesteps(20)
    sigma = schedule_of(scheduler).alpha_sigma(scheduler.timesteps[:1] * 0 + 0.5)[1]
    assert sigma.item() == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))


@pytest.mark.parametrize(("kind", "scheduler"), [
    ("epsilon", diffusers.DDPMScheduler(**SD)),
    ("v_prediction", diffusers.DDPMScheduler(**ZERO_SNR)),
    ("sample", diffusers.DDPMScheduler(**{**SD, "prediction_type": "sample"})),
    ("flow", diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)),
])  # fmt: skip
def test_prediction_types_give_the_noise_back(kind: str, scheduler: Any) -> None:
    schedule = schedule_of(scheduler)
    assert schedule.prediction == kind
    x, noise = pair(4)
    t = torch.tensor([0.1, 0.35, 0.7, 0.98])
    alpha, sigma = (broadcast(a, x) for a in schedule.alpha_sigma(t))
    z_t = alpha * x + sigma * noise
    output = {"epsilon": noise, "v_prediction": alpha * noise - sigma * x, "sample": x, "flow": noise - x}[kind]
    torch.testing.assert_close(schedule.noise(output, z_t, t), noise, rtol=1e-4, atol=1e-4)


def test_v_agrees_with_the_schedulers_own_velocity_and_clean_picture() -> None:
    scheduler = diffusers.DDIMScheduler(**ZERO_SNR, clip_sample=False)
    schedule = schedule_of(scheduler)
    x, noise = pair(1)
    step = torch.tensor([600])
    z_t = scheduler.add_noise(x, noise, step)
    v = scheduler.get_velocity(x, noise, step)
    scheduler.set_timesteps(1000)
    clean = scheduler.step(v, 600, z_t).pred_original_sample
    found = schedule.noise(v, z_t, step / 1000)
    torch.testing.assert_close(
        clean_from_noise(z_t, found, *schedule.alpha_sigma(step / 1000)), clean, rtol=1e-4, atol=1e-4
    )


def test_flow_closed_form_for_one_point() -> None:
    # Data at one point m: the best velocity at (z, s) is (z - m) / s. Its noise must lead straight back to m.
    schedule = schedule_of(diffusers.FlowMatchEulerDiscreteScheduler(shift=2.0))
    m, noise = pair(3)
    t = torch.tensor([0.05, 0.5, 0.95])
    alpha, sigma = schedule.alpha_sigma(t)
    z_t = broadcast(alpha, m) * m + broadcast(sigma, m) * noise
    found = schedule.noise((z_t - m) / broadcast(sigma, m), z_t, t)
    torch.testing.assert_close(clean_from_noise(z_t, found, alpha, sigma), m, rtol=1e-4, atol=1e-4)


def test_between_steps_the_schedule_is_monotone_and_on_its_curve() -> None:
    t = torch.linspace(0, 1, 5003)
    for scheduler in (diffusers.DDPMScheduler(**ZERO_SNR), diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)):
        schedule = schedule_of(scheduler)
        alpha, sigma = schedule.alpha_sigma(t)
        assert (sigma.diff() >= -1e-7).all() and (alpha.diff() <= 1e-7).all()
        size = alpha + sigma if schedule.prediction == "flow" else alpha**2 + sigma**2
        torch.testing.assert_close(size, torch.ones_like(t), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scheduler", [diffusers.EDMEulerScheduler(), diffusers.ScoreSdeVeScheduler()])
def test_unknown_schedulers_are_refused_in_one_line(scheduler: Any) -> None:
    with pytest.raises(UserError, match=type(scheduler).__name__):
        schedule_of(scheduler)


def test_unknown_prediction_is_refused_in_one_line() -> None:
    scheduler = diffusers.DDPMScheduler(**SD)
    scheduler.register_to_config(prediction_type="dreams")
    with pytest.raises(UserError, match="'dreams'"):
        schedule_of(scheduler)
