"""Adam over named groups. Moments are kept by name, so that scenes may grow and checkpoints say what is what."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .adam import Adam
from .view.backdrops import Groups


class Optimiser:
    """Fused Adam (Kingma & Ba 2015). It skips steps whose gradient is not finite, without waiting for the device."""

    def __init__(self, groups: Groups, betas: tuple[float, float], eps: float):
        self.rates = {name: rate for name, (_, rate) in groups.items()}
        self.names = {name: list(parameters) for name, (parameters, _) in groups.items() if parameters}
        self.adam = Adam(
            [{"params": list(groups[name][0].values()), "lr": self.rates[name], "name": name} for name in self.names],
            betas=betas, eps=eps, fused=True,
        )  # fmt: skip

    def zero(self) -> None:
        """Forget the gradients."""
        self.adam.zero_grad()

    def step(self, factor: float) -> Tensor:
        """Move all parameters, with rates multiplied by ``factor``. Returns 1 if the gradient was not finite and
        nothing was moved, else 0."""
        gradients = [p.grad.sum() for group in self.adam.param_groups for p in group["params"] if p.grad is not None]
        bad = 1 - torch.stack(gradients).isfinite().all().float() if gradients else torch.zeros(())
        for group in self.adam.param_groups:
            group["lr"] = self.rates[group["name"]] * factor
        # The fused step reads this flag on its own device and does nothing if it is 1 (GradScaler uses it in this way).
        self.adam.found_inf = bad  # type: ignore[attr-defined]
        self.adam.step()
        return bad

    def replace(self, group: str, name: str, parameter: nn.Parameter, rows: Tensor) -> None:
        """Replace the parameter ``name`` by another one; see ``scene.Moments``."""
        mine = next(g for g in self.adam.param_groups if g["name"] == group)
        place = self.names[group].index(name)
        old = mine["params"][place]
        state = self.adam.state.pop(old, {})
        mine["params"][place] = parameter
        self.adam.state[parameter] = {key: _grown(value, rows, old) for key, value in state.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The moments as {group.parameter.moment: tensor}."""
        return {f"{prefix}.{key}": value for prefix, p in self._named() for key, value in self.adam.state[p].items()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``state_dict``."""
        for prefix, p in self._named():
            held = {k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")}
            self.adam.state[p] = {k: v.to(p.device) for k, v in held.items()}

    def _named(self) -> list[tuple[str, Any]]:
        return [
            (f"{group['name']}.{name}", p)
            for group in self.adam.param_groups
            for name, p in zip(self.names[group["name"]], group["params"], strict=True)
        ]


def _grown(value: Tensor, rows: Tensor, old: Tensor) -> Tensor:
    """A moment of the old parameter's shape with the rows of the new one, zeros for rows that are new."""
    if value.shape != old.shape:
        return value  # the count of steps
    index = rows.to(value.device)
    grown = value[index.clamp_min(0)]
    grown[index < 0] = 0
    return grown
