"""One run in progress: scene, optimiser, captions and counters, and the step that moves the scene."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from . import regularizers
from .captions import Captions
from .settings.config import Config
from .schema import scheduled
from .distillation import check_rule, direction
from .errors import UserError
from .priors.prior import Prior
from .priors.palette import latent_palette
from .scene.make import make_scene
from .view.backdrops import LearnedBackground, augmented_backgrounds, background_colours, composite
from .scene.rays import camera_rays, to_pictures
from .view.cameras import sample_cameras
from .view.lights import sample_lights
from .view.shadings import choose_shading


class Trainer:
    """One run in progress: scene, optimiser and counters; ``step`` moves the scene once.

    Every random number of step k comes from a generator seeded with (seed, k), so a resumed run needs no random state;
    with ``distillation.repeat_views`` k starts again from 0 after so many steps.
    """

    def __init__(self, config: Config, prior: Prior):
        check_rule(config.distillation.kind, prior)
        self.config, self.prior = config, prior
        self.device = pick_device(config.device)
        self.scene: Any = make_scene(config.scene, torch.Generator().manual_seed(config.seed), self.device)
        self.background = LearnedBackground().to(self.device) if config.view.background == "learned" else None
        if config.scene.channels != 3:
            self.scene.set_palette(*latent_palette(prior, config.scene.channels))
        groups = self.scene.parameter_groups()
        head = [*groups["head"], *(self.background.parameters() if self.background else ())]
        opt = config.optimizer
        self.groups: list[dict[str, Any]] = [
            {"params": groups["grid"], "lr": opt.lr},
            {"params": head, "lr": opt.lr_head},
        ]
        self.groups = [g for g in self.groups if g["params"]]
        self.rates = [g["lr"] for g in self.groups]
        self.optimizer = torch.optim.Adam(self.groups, betas=opt.betas, eps=opt.eps, fused=True)
        self.captions = Captions(prior, config)
        self.done = 0
        self.skipped = 0
        self.skipped_in_a_row = 0

    def step(self) -> dict[str, float]:
        """Render, ask the prior, move the scene; the figures of the step.

        A step whose gradient is not finite changes nothing and is counted; ``run.bad_steps`` of them in a row raise.
        """
        config, start = self.config, time.perf_counter()
        progress = self.done / config.steps
        turn = self.done % (config.distillation.repeat_views or config.steps)
        rng = torch.Generator().manual_seed((config.seed * 1_000_003 + turn) % 2**63)
        count, size = config.views_per_step, config.resolution
        cameras = sample_cameras(config.view, count, rng)
        lights = sample_lights(config.view, cameras, rng).to(self.device)
        latent = config.scene.channels != 3 and progress < config.shading.latent_until
        shading = "albedo" if latent else choose_shading(config.shading, progress, rng)
        rays = camera_rays(cameras.to(self.device), size)
        lights = lights.repeat_interleave(size * size, 0)
        rendering = self.scene.render(rays, shading, lights, config.view.ambient, rng, latent=latent)
        if latent:
            behind = torch.full((count, config.scene.channels), 0.5, device=self.device)  # the mean latent
        elif self.background is not None:
            behind = self.background(count)
        elif config.view.background == "augmented":
            drawn = augmented_backgrounds(count, size, rng)
            behind = drawn.permute(0, 2, 3, 1).reshape(-1, 3).to(self.device)
        else:
            behind = background_colours(config.view.background, count, rng).to(self.device)  # type: ignore[arg-type]
        picture = to_pictures(composite(rendering.colour, rendering.opacity, behind), size)
        rendered = time.perf_counter()

        t_min, t_max = (scheduled(x, progress) for x in (config.distillation.t_min, config.distillation.t_max))
        t = t_min + (t_max - t_min) * ((torch.arange(count) + torch.rand(count, generator=rng)) / count)
        noise = torch.randn(self.prior.noise_shape(count), generator=rng).to(self.device)
        condition = self.captions.condition(cameras, shading == "textureless")
        if not latent and len(behind) == count:
            condition = condition.with_background(behind.detach())
        answer = direction(picture.detach(), self.prior, condition, t.to(self.device), noise, config.distillation)
        asked = time.perf_counter()

        penalty, terms = regularizers.total(config.regularizers, rendering, size, progress)
        self.optimizer.zero_grad()
        roots: list[Tensor] = [picture]
        gradients: list[Tensor | None] = [answer.gradient / (count * size * size)]
        if penalty.requires_grad:
            roots.append(penalty)
            gradients.append(None)
        torch.autograd.backward(roots, gradients)
        walked = time.perf_counter()
        self._update(progress)
        self.done += 1
        end = time.perf_counter()
        return {
            "step": self.done, "seconds": end - start, "seconds_prior": asked - rendered, "seconds_render": rendered - start,
            "seconds_backward": walked - asked, "seconds_update": end - walked, "opacity": float(rendering.opacity.detach().mean()),
            "shading": {"albedo": 0.0, "lambertian": 1.0, "textureless": 2.0}[shading], "skipped": self.skipped,
            **answer.metrics, **terms,
        }  # fmt: skip

    def _update(self, progress: float) -> None:
        parameters = [p for group in self.groups for p in group["params"]]
        finite = all(bool(torch.isfinite(p.grad.sum())) for p in parameters if p.grad is not None)
        if not finite:
            self.skipped += 1
            self.skipped_in_a_row += 1
            if self.skipped_in_a_row >= self.config.run.bad_steps:
                raise UserError(
                    f"the gradient was not finite in {self.skipped_in_a_row} steps in a row (step {self.done}); "
                    "lower optimizer.lr or distillation.guidance_scale, the last good checkpoint is kept"
                )
            return
        self.skipped_in_a_row = 0
        factor = scheduled(self.config.optimizer.lr_factor, progress)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        hardening, next_progress = self.config.optimizer.hardening, (self.done + 1) / self.config.steps
        growth = scheduled(hardening, next_progress) / scheduled(hardening, progress)
        if growth != 1:
            self.scene.harden(growth)
        self.scene.after_step(self.done + 1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that the next step depends on: tensors and counters; after the last step, the scene alone."""
        tensors = {f"scene.{k}": v for k, v in self.scene.state_dict().items()}
        if self.background is not None:
            tensors |= {f"background.{k}": v for k, v in self.background.state_dict().items()}
        if self.done < self.config.steps:
            for i, p in enumerate(p for group in self.groups for p in group["params"]):
                tensors |= {f"adam.{i}.{k}": v for k, v in self.optimizer.state.get(p, {}).items()}
        return tensors, {"step": self.done, "skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}

    def restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """The inverse of ``state``."""
        load_state(self.scene, tensors, "scene.")
        if self.background is not None:
            load_state(self.background, tensors, "background.")
        for i, p in enumerate(p for group in self.groups for p in group["params"]):
            prefix = f"adam.{i}."
            self.optimizer.state[p] = {
                k[len(prefix) :]: v.to(self.device) for k, v in tensors.items() if k.startswith(prefix)
            }
        self.done, self.skipped, self.skipped_in_a_row = meta["step"], meta["skipped"], meta["skipped_in_a_row"]


def load_state(module: torch.nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    """Load a module's part of a checkpoint; UserError where the tensors are another scene's."""
    try:
        module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    except RuntimeError as error:
        raise UserError(
            f"the checkpoint does not fit this configuration: {str(error).splitlines()[-1].strip()}"
        ) from None


def pick_device(name: str) -> torch.device:
    """'auto' is the first of CUDA, MPS and CPU that is there; UserError for a device that is not."""
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); try 'auto' or 'cpu'"
        ) from None
    return device
