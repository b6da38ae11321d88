"""Draw docs/rules.png: where each rule ends on a mixture of two normals in the plane. ``python tools/rules_plot.py``

The plane is the space of a prior whose score is known in closed form, and a point is a "picture" of two numbers. Each rule
moves the same 256 points until they rest. Needs matplotlib. The figure is the same in every run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
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


def cloud(count: int, rng: torch.Generator) -> Tensor:
    """The pictures (count, 2, 1, 1) that every rule starts with, from one broad normal."""
    return (0.6 * torch.randn(count, 2, 1, 1, generator=rng) + 1) / 2


def points_of(picture: Tensor) -> Tensor:
    """Pictures (count, 2, 1, 1) as points of the plane (count, 2)."""
    return picture.detach()[:, :, 0, 0] * 2 - 1


def settle(kind: str, steps: int = STEPS, count: int = COUNT, seed: int = 0, **settings: Any) -> Tensor:
    """Where ``count`` points (count, 2) are after so many steps of a rule."""
    given = {f"distillation.{name}": value for name, value in (PLAIN | settings).items()}
    prior = StraightPlane() if kind == "rfds" else Plane()
    rule = make_rule(build({"distillation.kind": kind, **given}).distillation, prior)
    rng = torch.Generator().manual_seed(seed)
    picture = cloud(count, rng).requires_grad_()
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
    return points_of(picture)


PLAIN: dict[str, Any] = {
    "guidance_scale": 0.0, "threshold": 0.0, "weight": "uniform", "t_min": 0.02, "t_max": [[0, 0.98], [0.4, 0.98], [0.5, 0.5], [1, 0.3]],
}  # fmt: skip
"""What the panels share. Less noise in the second half is ProlificDreamer's annealing; it brings every rule to rest."""

PANELS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("SDS, w = 0", "sds", {}),
    ("SDS, w = 4", "sds", {"guidance_scale": 4.0}),
    ("SJC", "sjc", {}),
    ("VSD", "vsd", {"learner": "network", "learner_lr": 3e-3, "width": 16}),
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


REACH = 1.25
"""Half a panel's side."""
BLUE, RED, GRAY = "#2b5c8a", "#c8283c", "#555555"


def share_left(points: Tensor) -> float:
    """The share of points (N, 2) that are nearer to the left mode of the words."""
    means = WANTED.means.flatten(1)
    return float(((points[:, None] - means).norm(dim=-1).argmin(1) == 0).float().mean())


def show(place: Any, title: str, points: Tensor, colour: str) -> None:
    """A panel: the words' density and modes, nothing, the negative words, and points (N, 2) over them."""
    axis = torch.linspace(-REACH, REACH, 200)
    means = WANTED.means.flatten(1)
    far = (torch.cartesian_prod(axis, axis)[:, None] - means).square().sum(-1)
    density = (WANTED.weights * torch.exp(-0.5 * far / WANTED.spread**2)).sum(1).reshape(200, 200).T
    place.contourf(
        axis, axis, density, levels=[0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], cmap="Blues", vmin=-0.1, vmax=0.9
    )
    turn = torch.linspace(0, 2 * torch.pi, 100)
    for other, style in ((NOTHING, "--"), (NEGATIVE, ":")):
        (x, y), reach = other.means.flatten().tolist(), other.spread
        place.plot(x + reach * turn.cos(), y + reach * turn.sin(), style, color=GRAY, linewidth=1.2)
    shown = points.clamp(-REACH + 0.03, REACH - 0.03)
    place.scatter(shown[:, 0], shown[:, 1], s=9, color=colour, alpha=0.5, linewidths=0, zorder=3)
    place.scatter(means[:, 0], means[:, 1], s=70, marker="+", color="black", linewidths=1.2, zorder=2.5)
    place.set_title(title, fontsize=12)
    place.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=(-1, 0, 1), yticks=(-1, 0, 1), aspect="equal")
    place.tick_params(labelsize=8, length=2, pad=2, labelleft=False, labelbottom=False)


def legend(figure: Any) -> None:
    """What the marks mean, in the cells of the last row that have no rule."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dot = {"marker": "o", "linestyle": "", "markersize": 6}
    marks = [
        Line2D([], [], color=GRAY, **dot),
        Line2D([], [], color=RED, **dot),
        Patch(color=BLUE, alpha=0.6),
        Line2D([], [], color="black", marker="+", linestyle="", markersize=9),
        Line2D([], [], color=GRAY, linestyle="--"),
        Line2D([], [], color=GRAY, linestyle=":"),
    ]
    words = [
        f"where the {COUNT} points start, in every panel",
        "where the rule takes them (those outside are on the edge)",
        "density of the words: 70 % left, 30 % right",
        "the words' two modes",
        'one standard deviation of "nothing"',
        "one standard deviation of the negative words",
    ]
    figure.legend(marks, words, loc="lower right", bbox_to_anchor=(0.985, 0.045), fontsize=12, frameon=False)


def draw(path: Path = PAGE) -> None:
    """The figure: the start, a panel for each rule, and the legend; all on the same axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows, across = 4, 5
    figure, places = plt.subplots(rows, across, figsize=(12, 10.9), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.07)
    cells = list(places.flat)
    show(cells[0], "the start", points_of(cloud(COUNT, torch.Generator().manual_seed(0))), GRAY)
    for place, (title, kind, settings) in zip(cells[1:], PANELS, strict=False):
        points = settle(kind, **settings)
        said = f"{title}: {100 * share_left(points):.0f} % left"
        show(place, said, points, RED)
        print(said, flush=True)
    shown = 1 + len(PANELS)
    for k, place in enumerate(cells[:shown]):
        place.tick_params(labelleft=k % across == 0, labelbottom=k + across >= shown)
    for place in cells[shown:]:
        place.axis("off")
    legend(figure)
    figure.suptitle(
        "Where each rule ends, on words whose pictures are a mixture of two normals in the plane\n"
        "In the titles: the share of the points that end nearer to the left mode",
        fontsize=14,
    )
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """As a small PNG of few colours."""
    figure.set_dpi(90)
    figure.canvas.draw()
    Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]).quantize(128, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    draw()
