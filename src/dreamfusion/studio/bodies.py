"""What the REST interface is asked for, and what it says about a run. ``GET /openapi.json`` describes these classes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ..prompts import LONGEST

Given = str | int | float | bool


class NewRun(BaseModel):
    """A run to be made."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    prompt: str = Field(max_length=4 * LONGEST, examples=["a red armchair"])
    preset: str = Field("balanced", max_length=60)
    settings: dict[str, Given] = Field(default_factory=dict, max_length=100)
    """Any of ``GET /settings``, by dotted names."""
    picture: str = Field("", max_length=120)
    """A reference picture: the id of ``POST /pictures``, or that of a run that was made with one. With it the prompt may be empty."""
    start: str = Field("", max_length=200)
    """The id of a run whose scene this one begins with."""


class Resume(BaseModel):
    """How to go on with a run."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    steps: int | None = Field(None, ge=1, le=1_000_000)
    """The new number of steps, for a run that is to get more."""
    settings: dict[str, Given] = Field(default_factory=dict, max_length=100)
    """Settings that hold from the run's checkpoint on: those of ``GET /settings`` that are "mid_run". A run in progress writes a
    checkpoint, and goes on with them at once."""


class Look(BaseModel):
    """From where to look at the run in progress, in degrees. Without an azimuth: from changing sides."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    azimuth: float | None = Field(None, ge=-3600, le=3600)
    elevation: float = Field(15.0, ge=-85, le=85)


class Export(BaseModel):
    """What file to make of an asset."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    format: str = Field("glb", max_length=10)
    faces: int = Field(20_000, ge=100, le=2_000_000)
    texture_size: int = Field(1024, ge=64, le=4096)
    compress: bool = False


class RunNow(BaseModel):
    """A run as it is now. It has more keys while it is in progress: the newest "metrics", the seconds that are "left", …"""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)
    id: str
    prompt: str
    preset: str
    seed: int
    state: str
    """One of queued, running, stopping, paused, stopped, done, failed, broken."""
    step: int
    steps: int
    files: list[str]
    """Which files ``GET /runs/ID/FILE`` has."""
    notes: list[str]
    """Warnings, a line each."""
    error: str | None = None
    """Why it failed, in one line."""


class WholeRun(RunNow):
    """A run with the curves of its log, and what repeats it."""

    curves: list[dict[str, int | float]]
    """At most 240 lines of the log: {"step", "residual_norm", "t", "opacity", …}."""
    again: NewRun | None = None
    """The body of a ``POST /runs`` that makes this run once more: ``settings`` are those that differ from the preset's."""
    left_out: list[str] = []
    """What such a body cannot say, a line each: settings that the studio does not change, and changes in mid-run."""
