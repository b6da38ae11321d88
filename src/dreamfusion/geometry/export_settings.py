"""Settings of the surface, its texture and the film."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..schema import Positive, Settings


class ExportSettings(Settings):
    resolution: Annotated[int, Field(ge=16, le=512)] = 160
    """Samples per side of the density grid from which the surface is extracted."""
    level: Positive = 10.0
    """Density of the surface, in 1 / world unit."""
    fit: bool = True
    """Choose the level (from export.level down), the blur and the resolution (from export.resolution up) so that the mesh shows what
    the scene shows. Otherwise the surface is at export.level everywhere, and nothing is compared."""
    faces: Annotated[int, Field(ge=100, le=2_000_000)] = 50_000
    """Largest number of triangles."""
    texture_size: Annotated[int, Field(ge=64, le=8192)] = 1024
    """Side of the base-colour texture in texels."""
    turntable_frames: Annotated[int, Field(ge=0, le=2000)] = 120
    """Frames of the turntable; 0 makes none."""
    turntable_size: Annotated[int, Field(ge=16, le=2048)] = 512
    """Side of a frame in pixels."""
