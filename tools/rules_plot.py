"""Draw docs/rules.png: where each rule ends on a mixture of two Gaussians in the plane. ``python tools/rules_plot.py``

The plane is the space of a prior whose score is known in closed form, and a point is a "picture" of two numbers. Each rule
moves the same 256 points until they rest. Needs matplotlib. The figure is the same in every run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamfusion.distillation.rules import make_rule
from dreamfusion.distillation.times import draw_times
from dreamfusion.priors.question import Question
from dreamfusion.settings.building import build
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.oracles import FlowOracle, Normals, Oracle

PAGE = Path(__file__).parents[1] / "docs" / "rules.png"
COUNT, STEPS, RATE = 256, 800, 0.02


def normals(means: list[list[float]], spread: float, weights: list[float]) -> Normals:
    """A mixture in the plane, of pictures of two channels and one pixel."""
    return Normals(torch.tensor(means)[..., None, None], spread, torch.tensor(weights))


WANTED = normals([[-0.45, 0.1], [0.5, -0.1]], 0.12, [0.7, 0.3])
"""What the words mean."""
NOTHING = normals([[0.0, 0.0]], 0.5, [1.0])
NEGATIVE = normals([[0.0, 0.55]], 0.3, [1.0])


class Plane(Oracle):
    """A prior over (B, 2, 1, 1) whose score is known in closed form."""

    id, channels = "plane", 2

    def __init__(self) -> None:
        super().__init__({"not": NEGATIVE, "it": WANTED, "": NOTHING})

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, 2, 1, 1)


class StraightPlane(Plane, FlowOracle):
    """The same as a rectified flow."""


def settle(kind: str, steps: int = STEPS, count: int = COUNT, seed: int = 0, **settings: Any) -> Tensor:
    """Where ``count`` points (count, 2) are after so many steps of a rule; they start from one broad normal."""
    given = {f"distillation.{name}": value for name, value in (PLAIN | settings).items()}
    prior = StraightPlane() if kind == "rfds" else Plane()
    rule = make_rule(build({"distillation.kind": kind, **given}).distillation, prior)
    rng = torch.Generator().manual_seed(seed)
    picture = ((0.6 * torch.randn(count, 2, 1, 1, generator=rng) + 1) / 2).requires_grad_()
    start = picture.detach().clone()
    view = orbit_view(orbit_cameras([0.0] * count), 1)
    question = Question(prior.embed(["it"] * count), view, "words", prior.embed(["not it"] * count))
    adam = torch.optim.Adam([picture], RATE / 2, betas=(0.9, 0.99))
    for step in range(steps):
        progress = step / steps
        turn = torch.Generator().manual_seed(rule.turn(step) + seed)
        t = draw_times(rule.settings, progress, count, turn, prior.alpha_sigma)  # type: ignore[attr-defined]
        t = t[torch.randperm(count, generator=turn)]
        noise = torch.randn(count, 2, 1, 1, generator=turn)
        adam.param_groups[0]["lr"] = RATE / 2 * min(1.0, 2 * (1 - progress))
        picture.grad = rule.at(progress).direction(picture.detach(), question, t, noise).gradient
        adam.step()
        rule.learn(picture.detach(), question, rng)
    assert not torch.equal(start, picture.detach())
    return picture.detach()[:, :, 0, 0] * 2 - 1


PLAIN: dict[str, Any] = {
    "guidance_scale": 0.0, "threshold": 0.0, "weight": "uniform", "t_min": 0.02, "t_max": [[0, 0.98], [0.4, 0.98], [0.5, 0.5], [1, 0.3]],
}  # fmt: skip
"""What the panels share. Less noise in the second half is ProlificDreamer's annealing; it brings every rule to rest."""

PANELS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("SDS, w = 0", "sds", {}),
    ("SDS, w = 4", "sds", {"guidance_scale": 4.0}),
    ("SJC", "sjc", {}),
    ("VSD (small network)", "vsd", {"learner": "network", "learner_lr": 3e-3, "width": 16}),
    ("CSD", "csd", {"guidance_scale": 1.0}),
    ("SSD", "ssd", {"guidance_scale": 1.0}),
    ("NFSD, w = 1", "nfsd", {"guidance_scale": 1.0}),
    ("HiFA, 4 steps", "hifa", {"image_weight": 0.0}),
    ("ISM", "ism", {"interval": 0.1}),
    ("SDI", "sdi", {"inversion_guidance": 0.0}),
    ("ASD", "asd", {}),
    ("Bridge", "bridge", {"guidance_scale": 1.0}),
    ("Consistent3D", "consistent3d", {}),
    ("RFDS (flow)", "rfds", {}),
    ("RFDS-Rev (flow)", "rfds", {"revised": True}),
    ("Ancestral", "ancestral", {"sample_steps": 10}),
)
"""Title, kind and settings of each panel; in the order of docs/rules.md."""


def draw(path: Path = PAGE) -> None:
    """The figure: a panel for each rule, its points over the density of the words."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    axis = torch.linspace(-1.25, 1.25, 200)
    grid = torch.cartesian_prod(axis, axis)
    means = WANTED.means.flatten(1)
    far = (grid[:, None] - means).square().sum(-1)
    density = (WANTED.weights * torch.exp(-0.5 * far / WANTED.spread**2)).sum(1).reshape(200, 200).T
    figure, places = plt.subplots(4, 4, figsize=(11, 11.6), constrained_layout=True)
    turn = torch.linspace(0, 2 * torch.pi, 100)
    for place, (title, kind, settings) in zip(places.flat, PANELS, strict=True):
        points = settle(kind, **settings)
        place.contourf(axis, axis, density, levels=12, cmap="Blues", alpha=0.75)
        for other, style in ((NOTHING, "--"), (NEGATIVE, ":")):
            (x, y), reach = other.means.flatten().tolist(), other.spread
            place.plot(x + reach * turn.cos(), y + reach * turn.sin(), style, color="gray", linewidth=1)
        shown = points.clamp(-1.23, 1.23)
        place.scatter(shown[:, 0], shown[:, 1], s=7, color="#d1495b", alpha=0.6, linewidths=0, zorder=3)
        share = ((points[:, None] - means).norm(dim=-1).argmin(1) == 0).float().mean()
        place.set_title(f"{title}: {share:.0%} left", fontsize=11)
        place.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), xticks=[], yticks=[], aspect="equal")
        print(f"{title}: {share:.0%} left", flush=True)
    figure.suptitle(
        "Where 256 points end. Blue: the words (70 % left, 30 % right). Dashed: nothing. Dotted: the negative words.\n"
        "Every panel starts from the same broad cloud. Points outside of a panel are on its edge.",
        fontsize=11,
    )
    figure.savefig(path, dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    torch.set_num_threads(1)
    draw()
