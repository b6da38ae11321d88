"""Judge one run: every figure of one asset."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..clip.clip import Clip
from ..recorded import load_scene
from ..run import CHECKPOINT, META, Run
from ..settings.building import stage_configs
from ..view.view_words import with_clay
from . import geometry
from .facing import azimuths, shapes_meant
from .fronts import has_front
from .inputs import is_held_out
from .janus import judge_ring, ring_belief
from .judged_views import draw, random_views, ring
from .retrieval import DEPTHS, check_judge, precision, ranks


@dataclass
class Judgement:
    """One asset's figures (JSON can hold them) and the pictures they come from, (B, 3, H, W) in [0, 1]."""

    figures: dict[str, Any]
    pictures: dict[str, Tensor]


def finite(value: float) -> float | None:
    """The value, or None where it is not finite: JSON has no NaN, and one broken asset must not cost all others their figures."""
    return value if math.isfinite(value) else None


class Judge:
    """A judge with its suite's captions read once; ``views`` pictures of each asset, drawn from ``seed``.

    Fronts are counted without it, by comparison with known shapes (``facing``). One that is not to see ``textureless`` renders ranks
    pictures, but judges no runs.
    """

    def __init__(self, clip: Clip, suite: list[str], views: int = 8, seed: int = 0, textureless: bool = True):
        check_judge(clip, ())
        self.clip, self.suite = clip, suite
        self.place = {prompt: k for k, prompt in enumerate(suite)}
        self.views, self.ring = random_views(views, seed), ring()
        # A textureless render has no colour to know the prompt by: of two colours of one thing neither is ahead.
        self.captions = {"": clip.captions(suite)}
        if textureless:
            self.captions["clay_"] = clip.captions([with_clay(p) for p in suite])

    @torch.no_grad()
    def rank(self, pictures: Tensor, prompt: str, kind: str = "") -> dict[str, Any]:
        """Ranks of the prompt for each picture, the precisions, and the mean similarity; names begin with ``kind``."""
        seen = torch.cat([self.clip.pictures(part) for part in pictures.split(32)])
        similarity = seen @ self.captions[kind].T
        places = ranks(similarity, self.place[prompt])
        figures: dict[str, Any] = {f"{kind}ranks": places.tolist()}
        figures |= {f"{kind}r{depth}": precision(places, depth) for depth in DEPTHS}
        return figures | {f"{kind}similarity": finite(float(similarity[:, self.place[prompt]].mean()))}

    def run(self, run: Run) -> Judgement:
        """All figures of a recorded run. UserError if this judge has guided it."""
        recorded = run.recorded.get("prior") or {}
        check_judge(self.clip, [str(recorded.get("sha256"))])
        scene, config = load_scene(run)
        steps = int(json.loads((run.path / CHECKPOINT / META).read_bytes())["state"]["step"])
        colour = draw(scene, self.views)
        clay = draw(scene, self.views, "textureless")
        opacity = draw(scene, self.views, "opacity")
        figures = {
            "run": str(run.path), "prompt": config.prompt, "preset": config.preset, "seed": config.seed,
            "steps": steps, "finished": steps == sum(c.steps for c in stage_configs(run.config)), "prior": recorded.get("id"),
            "held_out": is_held_out(config.prompt), "saturation": geometry.saturation(colour[::2]),
            "haze": geometry.haze(opacity),
        } | self.rank(colour, config.prompt) | self.rank(clay, config.prompt, "clay_")  # fmt: skip
        figures["janus"] = None
        if has_front(config.prompt) and shapes_meant(config.prompt):
            cover = draw(scene, self.ring, "opacity").mean(1)
            belief = ring_belief(azimuths(draw(scene, self.ring), cover, config.prompt))
            found = judge_ring(belief)
            figures["janus"] = asdict(found) | {
                "janus": found.janus,
                "belief": [finite(round(x, 3)) for x in belief.tolist()],
            }
        figures["geometry"] = geometry.report(run, scene)
        return Judgement(figures, {"colour": colour, "clay": clay})
