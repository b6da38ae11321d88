"""Several scenes of the same kind in one run: each step shows one of them, and a rule with a memory learns from all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..geometry.export_settings import ExportSettings
from ..geometry.surface import Surface
from ..view.backdrops import Groups
from ..view.view import View
from .scene import Moments, Rendering, Scene
from .transfer import Volume


class Particles(Scene):
    """n scenes that start from different random numbers (Wang et al. 2023, ProlificDreamer, algorithm 1).

    A rendering with a generator shows the scene that the generator picks, so that each is trained in 1/n of the steps. One
    without a generator shows ``shown``, the first scene: previews, films and the asset are of that one.
    """

    def __init__(self, scenes: Sequence[Scene]):
        super().__init__()
        self.scenes = torch.nn.ModuleList(scenes)

    @property
    def each(self) -> list[Scene]:
        """The scenes."""
        return [scene for scene in self.scenes if isinstance(scene, Scene)]

    @property
    def shown(self) -> Scene:
        """The scene that stands for all outside of training."""
        return self.each[0]

    def render(self, view: View, rng: torch.Generator | None = None) -> Rendering:
        if rng is None:
            return self.shown.render(view)
        return self.each[int(torch.randint(len(self.each), (1,), generator=rng))].render(view, rng)

    def groups(self) -> Groups:
        return {f"{k}-{name}": group for k, scene in enumerate(self.each) for name, group in scene.groups().items()}

    def after_step(self, step: int, steps: int, moments: Moments) -> None:
        for k, scene in enumerate(self.each):
            scene.after_step(step, steps, _Prefixed(moments, k))

    def as_volume(self) -> Volume | None:
        return self.shown.as_volume()

    def surface(self, settings: ExportSettings) -> Surface:
        return self.shown.surface(settings)

    def begin(self) -> None:
        for scene in self.each:
            scene.begin()

    def set_palette(self, weight: Tensor, bias: Tensor) -> None:
        for scene in self.each:
            scene.set_palette(weight, bias)

    def begin_from(self, previous: Scene, rng: torch.Generator) -> None:
        """Each scene from the one of the same place, or all from the one there is."""
        before = previous.each if isinstance(previous, Particles) else [previous]
        for k, scene in enumerate(self.each):
            old = before[k % len(before)]
            if scene.is_like(old):
                scene.load_state_dict(old.state_dict())
            else:
                scene.begin_from(old, rng)


def shown_of(scene: Scene) -> Scene:
    """The scene that previews, films and the asset show: the scene itself, or the first of several."""
    return scene.shown if isinstance(scene, Particles) else scene


class _Prefixed:
    """The moments of one scene's groups."""

    def __init__(self, moments: Moments, number: int):
        self.moments, self.number = moments, number

    def replace(self, group: str, name: str, parameter: torch.nn.Parameter, rows: Tensor) -> None:
        self.moments.replace(f"{self.number}-{group}", name, parameter, rows)
