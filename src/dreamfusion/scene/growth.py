"""How splats grow in number: clone, split, prune, reset (Kerbl et al. 2023, section 5.2 and algorithm 2). N splats."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .scene import Moments
from .scene_settings import SplatSettings
from .splatting import axes_of

CHILDREN, SHRINK = 2, 1.6
"""A splat that is split becomes this many, each smaller by this factor."""
LARGEST = 0.3
"""World units: a splat with a longer axis is removed."""


class Growing(Protocol):
    """What can grow: the parameters (N, …) of all splats by name, each in an optimiser's group of the same name."""

    def parts(self) -> dict[str, Tensor]: ...

    def take(self, splats: dict[str, Tensor]) -> None: ...


class Growth(nn.Module):
    """The strategy, and what it has seen since it last acted: the pull on each splat's place in the picture.

    The paper's threshold on the mean pull is absolute. It depends on the rule, the prior and the resolution, so ours is a
    multiple of the mean over all splats.
    """

    pull: Tensor
    seen: Tensor

    def __init__(self, settings: SplatSettings):
        super().__init__()
        self.settings = settings
        self.register_buffer("pull", torch.zeros(0))
        self.register_buffer("seen", torch.zeros(0))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        for name in ("pull", "seen"):  # as many as the checkpoint has
            if (value := state_dict.get(prefix + name)) is not None:
                setattr(self, name, torch.zeros_like(value, device=self.pull.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forget(self, like: Tensor) -> None:
        """Nothing has been seen of as many splats as a tensor (N, …) has."""
        self.pull, self.seen = like.new_zeros(len(like)), like.new_zeros(len(like))

    def observe(self, gradient: Tensor, kept: Tensor) -> None:
        """Count the gradient (B, N, 2) of B pictures by the splats' places, where they are drawn (kept (B, N) above 0)."""
        if len(self.pull) != gradient.shape[1]:
            self.forget(gradient[0])
        self.pull += torch.nan_to_num(gradient.norm(dim=-1), 0, 0, 0).sum(0)
        self.seen += (kept > 0).sum(0)

    def after_step(self, scene: Growing, step: int, steps: int, moments: Moments) -> None:
        """Act if it is time. All that is random depends on the step and the number of splats alone, so runs repeat."""
        s = self.settings
        if s.grow_every and step % s.grow_every == 0:
            progress = step / steps
            self.grow(scene, s.grow_from <= progress < s.grow_until, step, moments)
        if s.reset_every and step % s.reset_every == 0 and step / steps < s.grow_until:
            self.reset(scene, moments)

    def grow(self, scene: Growing, more: bool, seed: int, moments: Moments) -> None:
        """Prune; with ``more`` also clone small splats and split large ones, up to ``most``."""
        old = scene.parts()
        rng = torch.Generator().manual_seed(seed * 1_000_003 + len(old["centres"]))
        gone = self.useless(old)
        clone, split = self.chosen(old, ~gone) if more else (torch.zeros_like(gone), torch.zeros_like(gone))
        stays = (~gone & ~split).nonzero()[:, 0]
        made = [{name: v[stays] for name, v in shared(old, clone).items()}, copies(old, clone), pieces(old, split, rng)]
        rows = torch.cat([stays, stays.new_full((sum(len(m["centres"]) for m in made[1:]),), -1)])
        scene.take({name: torch.cat([m[name] for m in made]) for name in old})
        for name, parameter in scene.parts().items():
            assert isinstance(parameter, nn.Parameter)
            moments.replace(name, name, parameter, rows)
        self.forget(scene.parts()["centres"])

    def useless(self, splats: dict[str, Tensor]) -> Tensor:
        """Which (N,) to remove: the faint, the huge, and those outside the unit sphere. Of only such ones the most opaque stays."""
        faint = torch.sigmoid(splats["logits"]) < self.settings.prune_below
        gone = faint | (splats["log_scales"].amax(1) > math.log(LARGEST)) | (splats["centres"].norm(dim=1) > 1)
        if gone.all() and len(gone):
            gone[splats["logits"].argmax()] = False
        return gone

    def chosen(self, splats: dict[str, Tensor], alive: Tensor) -> tuple[Tensor, Tensor]:
        """Which (N,) to clone and which to split: those that are pulled most."""
        s, pull = self.settings, self.pull / self.seen.clamp_min(1)
        if len(pull) != len(alive) or not (self.seen > 0).any():
            return torch.zeros_like(alive), torch.zeros_like(alive)
        wants = alive & (pull > s.grow_above * pull[self.seen > 0].mean())
        room = max(0, s.most - int(alive.sum()))
        if wants.sum() > room:
            best = torch.where(wants, pull, -1.0).argsort(descending=True, stable=True)[:room]
            wants = torch.zeros_like(wants).index_fill(0, best, True)
        small = splats["log_scales"].amax(1) <= math.log(s.split_above)
        return wants & small, wants & ~small

    def reset(self, scene: Growing, moments: Moments) -> None:
        """Opacities fall to ``reset_to``, so that what is not needed can be pruned later."""
        parts = dict(scene.parts())
        most = math.log(self.settings.reset_to / (1 - self.settings.reset_to))
        parts["logits"] = parts["logits"].clamp_max(most)
        scene.take(parts)
        for name, parameter in scene.parts().items():
            assert isinstance(parameter, nn.Parameter)
            count = len(parameter)
            rows = torch.full((count,), -1) if name == "logits" else torch.arange(count)
            moments.replace(name, name, parameter, rows)


def shared(splats: dict[str, Tensor], clone: Tensor) -> dict[str, Tensor]:
    """The same splats, where cloned ones (N,) have the opacity 1 - sqrt(1 - opacity), of which two in the same place make the
    old one (Rota Bulò et al. 2024, "Revising densification in Gaussian splatting", section 3.3)."""
    left = torch.sigmoid(-splats["logits"]).sqrt().clamp(1e-6, 1 - 1e-6)
    halved = (1 - left).log() - left.log()
    return splats | {"logits": torch.where(clone, halved, splats["logits"])}


def copies(splats: dict[str, Tensor], clone: Tensor) -> dict[str, Tensor]:
    """A second one of each splat that is cloned."""
    return {name: v[clone] for name, v in shared(splats, clone).items()}


def pieces(splats: dict[str, Tensor], split: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
    """The smaller splats that take the place of those that are split, drawn from their own Gaussians."""
    made = {name: v[split].repeat_interleave(CHILDREN, 0) for name, v in splats.items()}
    noise = torch.randn(made["centres"].shape, generator=rng).to(made["centres"])
    axes = axes_of(made["rotations"], made["log_scales"])
    made["centres"] = made["centres"] + (axes @ noise[..., None])[..., 0]
    made["log_scales"] = made["log_scales"] - math.log(SHRINK)
    return made
