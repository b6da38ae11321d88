"""Draw docs/rules.png: where each rule ends on a mixture of two Gaussians in the plane. ``python tools/rules_plot.py``

The plane is the space of a prior whose score is known in closed form, and a point is a "picture" of two numbers. Each rule
moves the same 256 points until they rest. Needs matplotlib. The figure is the same in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from dreamfusion.distillation.rules import make_rule
from dreamfusion.distillation.times import draw_times
from dreamfusion.priors.prior import Prior, cosine_schedule, levels
from dreamfusion.priors.question import Question, Tokens, Words
from dreamfusion.settings.names import build
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view

PAGE = Path(__file__).parents[1] / "docs" / "rules.png"
COUNT, STEPS, RATE = 256, 800, 0.02
SPREAD = 0.12
WANTED = torch.tensor([[-0.45, 0.1], [0.5, -0.1]]), torch.tensor([0.7, 0.3]), SPREAD
"""Means, weights and spread of the words."""
NOTHING = torch.tensor([[0.0, 0.0]]), torch.tensor([1.0]), 0.5
NEGATIVE = torch.tensor([[0.0, 0.55]]), torch.tensor([1.0]), 0.3
Mixture = tuple[Tensor, Tensor, float]


def mixture_noise(z_t: Tensor, alpha: Tensor, sigma: Tensor, mixture: Mixture) -> Tensor:
    """E[e | z_t] (B, 2) where z is of the mixture; alpha, sigma (B, 1).

    A component makes z_t normal with mean alpha m and variance v = alpha^2 s^2 + sigma^2, and then the mean of e is sigma
    (z_t - alpha m) / v. They are weighted by how likely each has made z_t.
    """
    means, weights, spread = mixture
    variance = alpha**2 * spread**2 + sigma**2
    far = z_t[:, None] - alpha[:, None] * means
    share = (weights.log() - 0.5 * far.square().sum(-1) / variance).softmax(1)
    return sigma * (share[..., None] * far).sum(1) / variance


class Plane(Prior):
    """A prior over (B, 2, 1, 1); its words are the row of ``mixtures`` that they mean."""

    id, hash, resolution, device, channels = "plane", "0" * 64, 1, torch.device("cpu"), 2
    mixtures = (WANTED, NEGATIVE)

    def embed(self, captions: Sequence[str], images: Sequence[Image] = ()) -> Tokens:
        rows = torch.tensor([float(caption.startswith("not")) for caption in captions])
        return Tokens(rows[:, None, None], torch.ones(len(captions), 1, dtype=torch.bool))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return cosine_schedule(t)

    def encode(self, picture: Tensor) -> Tensor:
        return picture * 2 - 1

    def decode(self, z: Tensor) -> Tensor:
        return (z + 1) / 2

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, 2, 1, 1)

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        alpha, sigma = levels(self, t, z_t[:, :, 0, 0])
        answers = []
        for words in about:
            row = NOTHING if words is None else self.mixtures[int(words.tokens[0, 0, 0])]  # type: ignore[attr-defined]
            answers.append(mixture_noise(z_t[:, :, 0, 0], alpha, sigma, row)[..., None, None])
        return tuple(answers)


class StraightPlane(Plane):
    """The same as a rectified flow."""

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t


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
    means, weights, spread = WANTED
    far = (grid[:, None] - means).square().sum(-1)
    density = (weights * torch.exp(-0.5 * far / spread**2)).sum(1).reshape(200, 200).T
    figure, places = plt.subplots(4, 4, figsize=(11, 11.6), constrained_layout=True)
    turn = torch.linspace(0, 2 * torch.pi, 100)
    for place, (title, kind, settings) in zip(places.flat, PANELS, strict=True):
        points = settle(kind, **settings)
        place.contourf(axis, axis, density, levels=12, cmap="Blues", alpha=0.75)
        for mean, reach, style in ((NOTHING[0][0], NOTHING[2], "--"), (NEGATIVE[0][0], NEGATIVE[2], ":")):
            place.plot(mean[0] + reach * turn.cos(), mean[1] + reach * turn.sin(), style, color="gray", linewidth=1)
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
