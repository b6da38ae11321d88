"""The optimiser against PyTorch's plain Adam, and what it does beyond it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dreamfusion import adam
from dreamfusion.optimiser import Optimiser
from tests.faults import program

BETAS, EPS = (0.9, 0.99), 1e-15
SHAPES = {"features": {"table": (7, 3)}, "head": {"weight": (4, 5), "bias": (4,)}}
RATES = {"features": 0.05, "head": 0.003}
BAD = [float("nan"), float("inf"), -float("inf")]


def parameters(seed: int = 0) -> dict[str, dict[str, nn.Parameter]]:
    rng = torch.Generator().manual_seed(seed)
    return {
        group: {name: nn.Parameter(torch.randn(shape, generator=rng)) for name, shape in named.items()}
        for group, named in SHAPES.items()
    }


def optimiser_of(held: dict[str, dict[str, nn.Parameter]]) -> Optimiser:
    return Optimiser({group: (named, RATES[group]) for group, named in held.items()}, BETAS, EPS)


def give_gradients(held: dict[str, dict[str, nn.Parameter]], seed: int) -> None:
    """Gradients that depend on the parameter's name and the seed, and on nothing else."""
    for group, named in held.items():
        for name, p in named.items():
            rng = torch.Generator().manual_seed(1000 * seed + len(name))
            p.grad = torch.randn(p.shape, generator=rng) * 10 ** (seed % 3 - 1.0) + len(group)


def values(held: dict[str, dict[str, nn.Parameter]]) -> dict[str, Tensor]:
    return {f"{group}.{name}": p.detach().clone() for group, named in held.items() for name, p in named.items()}


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def factor(step: int) -> float:
    return 1 / (1 + step)


def test_it_moves_as_adam_does_with_each_groups_rate_times_the_factor() -> None:
    held, plain = parameters(), parameters()
    mine = optimiser_of(held)
    theirs = torch.optim.Adam(
        [{"params": list(named.values()), "lr": RATES[group]} for group, named in plain.items()],
        betas=BETAS, eps=EPS, foreach=False, fused=False,
    )  # fmt: skip
    for step in range(25):
        give_gradients(held, step)
        give_gradients(plain, step)
        for group, name in zip(theirs.param_groups, plain, strict=True):
            group["lr"] = RATES[name] * factor(step)
        assert mine.step(factor(step)) == 0
        theirs.step()
        for name, value in values(plain).items():
            torch.testing.assert_close(values(held)[name], value, rtol=1e-5, atol=1e-6, msg=f"{name}, step {step}")
    mine.zero()
    assert all(p.grad is None for named in held.values() for p in named.values())


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", [("features", "table"), ("head", "bias")])
def test_a_gradient_that_is_not_finite_leaves_everything_as_it_was(bad: float, place: tuple[str, str]) -> None:
    """One bad number in one parameter: parameters, moments and counts stay, in all groups; later steps are as if it had
    never come."""
    held, spared = parameters(), parameters()
    mine, other = optimiser_of(held), optimiser_of(spared)
    for step in range(6):
        if step in (0, 3, 4):  # before the first good step too
            before, moments = values(held), copied(mine.state_dict())
            give_gradients(held, 100 + step)
            held[place[0]][place[1]].grad.view(-1)[2] = bad  # type: ignore[union-attr]
            assert mine.step(1.0) == 1
            assert equal(values(held), before)
            assert all(torch.equal(value, mine.state_dict()[name]) for name, value in moments.items())
        give_gradients(held, step)
        give_gradients(spared, step)
        assert mine.step(factor(step)) == 0 and other.step(factor(step)) == 0
        assert equal(values(held), values(spared)) and equal(mine.state_dict(), other.state_dict())


def test_what_has_no_gradient_stays() -> None:
    held = parameters()
    mine = optimiser_of(held)
    assert mine.step(1.0) == 0, "no gradients at all"
    give_gradients(held, 0)
    held["head"]["bias"].grad = None
    before = values(held)
    assert mine.step(1.0) == 0
    after = values(held)
    assert torch.equal(after["head.bias"], before["head.bias"])
    assert not torch.equal(after["head.weight"], before["head.weight"])


def test_empty_groups_are_left_out() -> None:
    mine = Optimiser({"features": ({}, 0.1), "head": ({"x": nn.Parameter(torch.ones(2))}, 0.1)}, BETAS, EPS)
    assert list(mine.names) == ["head"] and len(mine.adam.param_groups) == 1


def test_moments_are_kept_by_name_whatever_the_order() -> None:
    held = parameters()
    mine = optimiser_of(held)
    assert mine.state_dict() == {}
    for step in range(3):
        give_gradients(held, step)
        mine.step(1.0)
    state = copied(mine.state_dict())
    moments = ("step", "exp_avg", "exp_avg_sq")
    assert set(state) == {f"{g}.{n}.{m}" for g, named in SHAPES.items() for n in named for m in moments}
    assert all(state[f"{g}.{n}.step"] == 3 for g, named in SHAPES.items() for n in named)

    again = parameters(seed=9)
    with torch.no_grad():
        for group, named in again.items():
            for name, p in named.items():
                p.copy_(held[group][name])
    again = {group: dict(reversed(again[group].items())) for group in reversed(again)}
    other = optimiser_of(again)
    other.load_state_dict(state)
    assert equal(other.state_dict(), state)
    for step in range(3, 6):
        give_gradients(held, step)
        give_gradients(again, step)
        mine.step(1.0)
        other.step(1.0)
        assert equal(values(held), values(again))
    assert equal(mine.state_dict(), other.state_dict())


def test_a_parameter_that_grows_keeps_its_rows_moments() -> None:
    held = parameters()
    mine = optimiser_of(held)
    for step in range(3):
        give_gradients(held, step)
        mine.step(1.0)
    before, old = copied(mine.state_dict()), held["features"]["table"]
    rows = torch.tensor([6, 0, -1, 2, 2, -1, 5, 1, 3, 4])  # one is dropped nowhere, one is split, two are new
    grown = nn.Parameter(torch.randn(10, 3, generator=torch.Generator().manual_seed(5)))
    mine.replace("features", "table", grown, rows)
    held["features"]["table"] = grown

    after = mine.state_dict()
    for name in after:
        if not name.startswith("features.table.exp"):
            assert torch.equal(after[name], before[name])
            continue
        for new, source in enumerate(rows.tolist()):
            expected = torch.zeros(3) if source < 0 else before[name][source]
            assert torch.equal(after[name][new], expected)
    assert all(p is not old for group in mine.adam.param_groups for p in group["params"])
    assert old not in mine.adam.state

    # The next step moves every row as Adam's formula says, from those moments.
    first, second = (after[f"features.table.{m}"].clone().double() for m in ("exp_avg", "exp_avg_sq"))
    start = grown.detach().clone().double()
    give_gradients(held, 3)
    assert mine.step(0.5) == 0
    gradient = grown.grad.double()  # type: ignore[union-attr]
    first = BETAS[0] * first + (1 - BETAS[0]) * gradient
    second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
    moved = (first / (1 - BETAS[0] ** 4)) / ((second / (1 - BETAS[1] ** 4)).sqrt() + EPS)
    torch.testing.assert_close(grown.detach().double(), start - 0.5 * RATES["features"] * moved, rtol=1e-5, atol=1e-6)


def test_a_parameter_may_be_replaced_before_any_step() -> None:
    held = parameters()
    mine = optimiser_of(held)
    grown = nn.Parameter(torch.zeros(9, 3))
    mine.replace("features", "table", grown, torch.full((9,), -1))
    grown.grad = torch.ones(9, 3)
    assert mine.step(1.0) == 0
    torch.testing.assert_close(grown.detach(), torch.full((9, 3), -RATES["features"]))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_adam_without_the_compiler_is_pytorchs_bit_by_bit(kind: str, fused: bool) -> None:
    held, plain = parameters(), parameters()
    both = [
        getattr(module, kind)([p for named in ps.values() for p in named.values()], lr=0.05, fused=fused)
        for module, ps in ((adam, held), (torch.optim, plain))
    ]
    for step in range(5):
        for ps, optimiser in zip((held, plain), both, strict=True):
            give_gradients(ps, step)
            optimiser.step()
        assert equal(values(held), values(plain))


def test_a_run_does_not_load_the_compiler() -> None:
    """Its import takes longer than many steps."""
    code = """
import sys
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from tests.fakes import SMALL, GrayBallPrior, ask
settings = SMALL | {"steps": 2, "distillation.kind": "vsd", "distillation.learner": "network", "distillation.width": 8}
for progress in Trainer(resolve("balanced", settings, "a ball"), GrayBallPrior()).steps():
    pass
assert "torch._dynamo" not in sys.modules
"""
    done = program(["-c", code])
    assert done.returncode == 0, done.stderr
