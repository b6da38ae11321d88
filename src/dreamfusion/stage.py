"""One stage of a run: a scene, its background, a rule with its prior, and the step that moves the scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import regularizers
from .captions import Captions
from .device import pick_device
from .distillation.clipping import clip_pixels
from .distillation.glimpse import Glimpse
from .distillation.rule import Direction, Rule
from .distillation.rule_settings import DistillationSettings
from .distillation.rules import make_rule
from .distillation.times import draw_times
from .errors import UserError
from .metrics import Metrics, clock_of
from .optimiser import Optimiser
from .priors.palette import latent_palette
from .priors.prior import Frozen, Prior, Scorer, cosine_schedule
from .scene.make import make_scene
from .scene.scene import Scene
from .scene.scene_settings import FieldSettings, MeshSettings, SceneSettings, SplatSettings, begins_with_file
from .schema import ever, scheduled
from .settings.config import Config
from .view.backdrops import Backdrop
from .view.looks import sample_view
from .view.shadings import known_shadings

LOOK_EVERY = 16
"""Steps between checks of the count of bad steps, on devices where a check waits for the device."""


@dataclass(frozen=True)
class Makers:
    """What makes a stage's scene and its rule. A program that brings kinds of its own passes its own functions."""

    scene: Callable[[SceneSettings, torch.Generator, torch.device], Scene] = make_scene
    rule: Callable[[DistillationSettings, Prior | Scorer], Rule] = make_rule


class Stage:
    """``step`` moves the scene once. Every random number of step k comes from a generator seeded with (seed, k), so a
    resumed run needs no random state."""

    def __init__(
        self,
        config: Config,
        prior: Prior | Scorer,
        number: int = 0,
        previous: Stage | None = None,
        makers: Makers = Makers(),
        start: Scene | None = None,
        restored: bool = False,
    ):
        """``number``: the stage's number, from 0; ``previous``: the stage before it, whose scene this one starts from; ``start``:
        such a scene without a stage; ``restored``: ``restore`` follows.

        UserError for settings that do not go together.
        """
        if config.views_per_step % config.prior.views:
            raise UserError(
                f"views_per_step = {config.views_per_step} must be a multiple of prior.views = {config.prior.views}"
            )
        if config.prior.asks == "views" and not prior.joint:
            raise UserError(f"the prior {prior.id!r} answers each view alone; set prior.asks to 'words' or 'camera'")
        told = config.prior.asks in ("camera", "image")
        if isinstance(config.scene, FieldSettings) and ever(config.regularizers.sketch) and not config.scene.sketch:
            raise UserError("regularizers.sketch needs a mesh as the guide; give one with --mesh FILE")
        self.config, self.number, self.device = config, number, pick_device(config.device)
        self.shading = known_shadings(config.shading, prior.knows_depth, told)
        self.schedule_steps = config.schedule_steps or config.steps
        self.clock = clock_of(self.device)
        self.rule = makers.rule(config.distillation, prior)
        self.scene: Scene = start_scene(
            config, prior, number, previous.scene if previous else start, self.device, makers, restored
        )
        self.backdrop: Backdrop = Backdrop(config.view).to(self.device)
        if previous and previous.backdrop.state_dict().keys() == self.backdrop.state_dict().keys():
            self.backdrop.load_state_dict(previous.backdrop.state_dict())
        self.captions = Captions(prior, config)
        self.alpha_sigma = prior.alpha_sigma if isinstance(prior, Prior) else cosine_schedule
        self.optimiser = self._new_optimiser()
        self.done = 0
        self.glimpse: Glimpse | None = None
        self.skipped = torch.zeros((), device=self.device)
        self.skipped_in_a_row = torch.zeros((), device=self.device)

    def _new_optimiser(self) -> Optimiser:
        groups = self.scene.groups() | self.backdrop.groups()
        return Optimiser(groups, self.config.optimizer.betas, self.config.optimizer.eps)

    def step(self, before: int = 0) -> Metrics:
        """Look, ask the prior, move the scene. ``before``: the steps of earlier stages.

        A step whose gradient is not finite leaves the scene as it was and is counted; ``run.bad_steps`` of them in a row
        raise.
        """
        config, progress = self.config, min(1.0, self.done / self.schedule_steps)
        marks = {"start": self.clock()}
        rng = torch.Generator().manual_seed((config.seed * 1_000_003 + self.rule.turn(before + self.done)) % 2**63)
        view = sample_view(
            config.view, self.shading, progress, rng,
            count=config.views_per_step, size=config.resolution, group=config.prior.views,
        )  # fmt: skip
        rendering = self.scene.look(view, rng)
        view = self.backdrop.behind(view, rng)
        assert view.background is not None
        picture = rendering.over(view.background)
        marks["render"] = self.clock()
        t = self._times(progress, rng)
        noise = torch.randn(self.rule.noise_shape(config.views_per_step), generator=rng).to(self.device)
        question = self.captions.ask(view)
        rule = self.rule.at(progress)
        direction = rule.direction(picture.detach(), question, t, noise)
        self.glimpse = rule.glimpse()
        direction = clip_pixels(direction, scheduled(config.distillation.clip_pixels, progress))
        marks["prior"] = self.clock()
        penalty, terms = regularizers.total(config.regularizers, rendering, progress)
        self._backward(picture, direction, penalty)
        marks["backward"] = self.clock()
        self._move(progress)
        learned = self.rule.learn(picture.detach(), question, rng)
        marks["update"] = self.clock()
        numbers = {"step": before + self.done, "stage": self.number + 1, "shading": _SHADINGS[view.shading]}
        figures = {"opacity": rendering.opacity.detach().mean(), "skipped": self.skipped.clone()}
        return Metrics(numbers, figures | direction.figures | terms | learned, marks)

    def _times(self, progress: float, rng: torch.Generator) -> Tensor:
        """A noise level (B,) for each look, the same inside a group."""
        config, group = self.config, self.config.prior.views
        t = draw_times(config.distillation, progress, config.views_per_step // group, rng, self.alpha_sigma)
        return t.repeat_interleave(group).to(self.device)

    def _backward(self, picture: Tensor, direction: Direction, penalty: Tensor) -> None:
        self.optimiser.zero()
        roots, gradients = [], []
        if (
            picture.requires_grad
        ):  # a mesh of which only the texture learns has no gradient where only its shape is shown
            roots, gradients = [picture], [direction.gradient / len(picture)]
        if penalty.requires_grad:
            roots.append(penalty)
            gradients.append(torch.ones_like(penalty))
        if roots:
            torch.autograd.backward(roots, gradients)

    def _move(self, progress: float) -> None:
        bad = self.optimiser.step(scheduled(self.config.optimizer.lr_factor, progress))
        self.done += 1
        self.skipped += bad
        self.skipped_in_a_row = (self.skipped_in_a_row + 1) * bad
        waits = self.device.type != "cpu"
        if (not waits or self.done % LOOK_EVERY == 0) and self.skipped_in_a_row >= self.config.run.bad_steps:
            raise UserError(
                f"the gradient was not finite in {int(self.skipped_in_a_row)} steps in a row (step {self.done}); "
                "lower scene.lr or distillation.guidance_scale, the last good checkpoint is kept"
            )
        self.scene.after_step(self.done, self.schedule_steps, self.optimiser)

    @property
    def finished(self) -> bool:
        """Whether all steps of this stage are done."""
        return self.done >= self.config.steps

    def state(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Everything that the next step depends on, by name: tensors and counters. After the last step too, since more
        steps may be asked for."""
        parts = {
            "scene": self.scene.state_dict(), "background": self.backdrop.state_dict(),
            "rule": self.rule.state_dict(), "optimiser": self.optimiser.state_dict(),
        }  # fmt: skip
        tensors = {f"{part}.{name}": value for part, held in parts.items() for name, value in held.items()}
        counters = {"skipped": int(self.skipped), "skipped_in_a_row": int(self.skipped_in_a_row)}
        return tensors, {"stage": self.number, "stage_step": self.done} | counters

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, int]) -> None:
        """The inverse of ``state``. UserError if the tensors are another scene's."""
        load_part(self.scene, tensors, "scene")
        load_part(self.backdrop, tensors, "background")
        self.optimiser = self._new_optimiser()  # a scene that has grown has other parameters
        self.rule.load_state_dict(part_of(tensors, "rule"))
        self.optimiser.load_state_dict(part_of(tensors, "optimiser"))
        self.done = meta["stage_step"]
        self.skipped.fill_(meta["skipped"])
        self.skipped_in_a_row.fill_(meta["skipped_in_a_row"])


_SHADINGS = {"albedo": 0.0, "lambertian": 1.0, "textureless": 2.0, "latent": 3.0, "normals": 4.0, "depth": 5.0}


def start_scene(
    config: Config,
    prior: Frozen,
    number: int,
    previous: Scene | None,
    device: torch.device,
    makers: Makers,
    restored: bool = False,
) -> Scene:
    """The scene that a stage begins with: that of the file that it names; or one with all that the previous one has learned, where
    both are the same kind of thing; or a fresh one that looks like the previous one; or a fresh one.

    One that is ``restored`` needs no file to begin with, since its checkpoint holds the shape. But a field reads its guide
    again, for that is in no checkpoint."""
    rng = torch.Generator().manual_seed((config.seed + number) % 2**63)
    scene = makers.scene(config.scene, rng, device)
    if begins_with_file(config.scene):
        previous, number = None, 0
    if previous is not None and scene.is_like(previous):
        scene.load_state_dict(previous.state_dict())
        return scene
    if config.scene.channels != 3:
        if not isinstance(prior, Prior):
            raise UserError(f"scene.channels is {config.scene.channels}, but {prior.id!r} scores pictures; set it to 3")
        scene.set_palette(*latent_palette(prior, config.scene.channels))
    if previous is not None:
        scene.begin_from(previous, rng)
    elif number == 0 and not (restored and isinstance(config.scene, MeshSettings | SplatSettings)):
        scene.begin()  # a later stage without the one before it is restored from a checkpoint
    return scene


def part_of(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of one part of a checkpoint, by their names in it."""
    return {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}


def load_part(module: torch.nn.Module, tensors: dict[str, Tensor], part: str) -> None:
    """Load a module's part of a checkpoint; UserError if the tensors are another scene's."""
    try:
        module.load_state_dict(part_of(tensors, part))
    except RuntimeError as error:
        raise UserError(
            f"the checkpoint does not fit this configuration: {str(error).splitlines()[-1].strip()}"
        ) from None
