"""Settings of the surface, its texture and the film."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..schema import Positive, Settings, Weight

Maps = Literal["auto", "none", "normal", "occlusion", "both"]
"""Which maps of detail a texture set has beside its base colour."""


class ExportSettings(Settings):
    resolution: Annotated[int, Field(ge=16, le=512)] = 160
    """Samples per side of the density grid from which the surface is extracted."""
    level: Positive = 10.0
    """Density of the surface, in 1 / world unit."""
    fit: bool = True
    """Choose the level (from export.level down), the blur and the resolution (from export.resolution up) so that the mesh shows what
    the scene shows. Otherwise the surface is at export.level everywhere, and nothing is compared."""
    faces: Annotated[int, Field(ge=100, le=2_000_000)] = 20_000
    """Largest number of triangles."""
    texture_size: Annotated[int, Field(ge=64, le=8192)] = 1024
    """Side of the base-colour texture in texels."""
    unwrap_seconds: Weight = 120.0
    """Seconds after which a mesh is unwrapped no further, and its texture is projected from six sides instead; 0 projects at once."""
    maps: Maps = "auto"
    """Maps of what decimation took, beside the base colour, of half its side: normal, occlusion (ambient), both, or none. auto is
    occlusion, and normal as well where the mesh's own normals are more than 1 degree off on average."""
    turntable_frames: Annotated[int, Field(ge=0, le=2000)] = 120
    """Frames of the turntable; 0 makes none."""
    turntable_size: Annotated[int, Field(ge=16, le=2048)] = 512
    """Side of a frame in pixels."""
