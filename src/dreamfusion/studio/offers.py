"""What the studio's form offers: presets, settings, words; and what it says about a prompt before a run."""

from __future__ import annotations

import json
import threading
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..priors.prior_settings import PriorSettings
from ..prompts import check_prompt
from ..settings.building import build
from ..settings.catalogue import all_settings
from ..settings.names import as_text, flatten, full_names, may_change
from ..settings.presets import load_preset, preset_names, preset_text

REFUSED = (
    "prompt",
    "preset",
    "device",
    "threads",
    "prior.id",
    "prior.image",
    "prior.memory",
    "prior.text_8bit",
    "scene.file",
    "scene.sketch",
    "start",
)
"""Settings that a page cannot change: they name files, models to load, or what the machine has."""
MAIN = (
    "seed",
    "steps",
    "distillation.guidance_scale",
    "distillation.negative_prompt",
    "export.faces",
    "export.texture_size",
)
"""The few settings that are not folded away."""
NEED_A_FILE = ("text2mesh", "latent-paint", "sketch-shape")
"""Presets that need a mesh."""
OWN = ("bundled", "guide")
"""Priors that are in the package: nothing is ever fetched for a page."""


@cache
def presets() -> dict[str, dict[str, Any]]:
    """The presets that need no mesh and no model from elsewhere: what each is for, its values of ``MAIN``, and whether it needs a
    "picture"."""
    found = {}
    for name in preset_names():
        values = load_preset(name)
        if values.get("prior.id", PriorSettings().id) in OWN and name not in NEED_A_FILE:
            shown = flatten(build(values).model_dump())
            about = preset_text(name).splitlines()[0].lstrip("# ").replace("`", "")
            found[name] = {
                "about": about,
                "values": {k: as_text(shown[k]) for k in MAIN if k in shown},
                "picture": shown["prior.asks"] == "image",
            }
    return found


@cache
def settings() -> list[dict[str, Any]]:
    """Every setting that may be given: name, help, what is allowed, default, whether it is one of ``MAIN``, and
    whether a stopped run may be given it."""
    return [
        {
            "name": s.name,
            "help": " ".join(s.help.split()),
            "allowed": s.allowed,
            "default": as_text(s.default),
            "main": s.name in MAIN,
            "mid_run": may_change(s.name),
        }
        for s in all_settings().values()
        if s.name not in REFUSED
    ]


def check_settings(preset: str, given: dict[str, Any]) -> dict[str, str]:
    """The settings under their full names. UserError for a preset or a setting that the studio does not offer."""
    if preset not in presets():
        raise UserError(f"the studio has no preset {preset[:60]!r}; it has {', '.join(presets())}")
    found = full_settings(given)
    for name in found:
        if name in REFUSED or name.startswith("stages."):
            raise UserError(f"the studio does not change {name}; use the command line for that")
    return found


def full_settings(given: dict[str, Any]) -> dict[str, str]:
    """The settings that have a value, under their full names. UserError for an unknown one."""
    return full_names({str(name)[:100]: str(value) for name, value in given.items() if str(value).strip()})


@cache
def vocabulary() -> dict[str, list[str]]:
    """The words that the bundled prior knows: "things" (with synonyms), and "looks" that may stand before them."""
    from ..priors.bundled_prior import WEIGHTS

    record = json.loads(WEIGHTS.with_suffix(".json").read_bytes())
    things = [name for key, said in record.get("vocabulary", {}).items() for name in (key, *said.get("synonyms", ()))]
    looks = [name for key in ("colours", "materials", "patterns", "proportions") for name in record.get(key, ())]
    return {"things": sorted(set(things)), "looks": looks}


class Critic:
    """Says what the bundled prior will not make of a prompt. The prior is loaded by the first question."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.prior: Any = None

    def notes(self, prompt: str) -> list[str]:
        """A line for each thing that is worth knowing. UserError if it is no prompt."""
        prompt = check_prompt(prompt)
        from ..prompt_checks import prompt_notes

        with self.lock:
            return prompt_notes(self._loaded(), prompt)

    def seen(self, picture: Path) -> str:
        """What the bundled prior sees in a reference picture, and how sure it is. UserError if it is none."""
        from ..reference import read_reference

        with self.lock:
            return str(self._loaded().describe(read_reference(picture), ""))

    def _loaded(self) -> Any:
        from ..loading import load_prior

        self.prior = self.prior or load_prior("bundled", "cpu")
        return self.prior
