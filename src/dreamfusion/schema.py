"""What settings are made of: the base class, number types with their ranges, and schedules.

Angles are in degrees, lengths in world units (the object lives in the unit sphere), times ``t`` in [0, 1].
A *schedule* is a number, or a list of ``[progress, value]`` knots (progress = step / steps in [0, 1], linear between).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Unit = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1)]
Azimuth = Annotated[float, Field(ge=-360, le=360)]
Elevation = Annotated[float, Field(ge=-90, le=90)]
Schedule = float | list[tuple[float, float]]
UnitSchedule = Unit | Annotated[list[tuple[Unit, Unit]], Field(min_length=1)]
PositiveSchedule = Positive | Annotated[list[tuple[Unit, Positive]], Field(min_length=1)]
WeightSchedule = Weight | Annotated[list[tuple[Unit, Weight]], Field(min_length=1)]


def scheduled(value: Schedule, progress: float) -> float:
    """Value of a schedule at ``progress`` in [0, 1]: piecewise linear, constant beyond its ends."""
    if isinstance(value, int | float):
        return float(value)
    knots = sorted(value)
    if progress <= knots[0][0]:
        return knots[0][1]
    for (x0, y0), (x1, y1) in pairwise(knots):
        if progress <= x1:
            return y0 + (y1 - y0) * (progress - x0) / max(x1 - x0, 1e-9)
    return knots[-1][1]


def ever(schedule: Schedule) -> bool:
    """Whether a schedule of weights is above 0 anywhere."""
    return any(value > 0 for _, value in schedule) if isinstance(schedule, list) else schedule > 0


class Settings(BaseModel):
    """Base of all groups: unknown names are errors, values are checked on assignment too."""

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="after")
    @classmethod
    def _ordered_range(cls, value: object, info: ValidationInfo) -> object:
        if info.field_name in ("betas", "levels", "shape_levels"):  # tuples, but not ranges
            return value
        numbers = isinstance(value, tuple) and len(value) == 2 and all(isinstance(x, int | float) for x in value)
        if numbers and value[0] > value[1]:  # type: ignore[index]
            raise ValueError("the first number of a range must not exceed the second")
        return value
