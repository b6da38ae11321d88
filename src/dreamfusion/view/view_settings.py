"""Settings of the views: cameras, lights, shading and background."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..schema import Azimuth, Elevation, Positive, Rate, Settings, Unit, Weight


class ViewSettings(Settings):
    azimuth_deg: tuple[Azimuth, Azimuth] = (-180.0, 180.0)
    """Azimuths to look from; 0 sees the front, 90 the side at +X."""
    elevation_deg: tuple[Elevation, Elevation] = (-30.0, 60.0)
    """Elevations to look from (the paper: -10 to 90)."""
    radius: tuple[Positive, Positive] = (2.3, 2.7)
    """Camera distances (the preset dreamfusion: 1.5 to 2.5)."""
    fov_deg: Annotated[float, Field(gt=1, lt=170)] = 47.0
    """Full field of view. At 47 the unit sphere just fills the frame from a distance of 2.5."""
    fit: bool = False
    """Widen the field of view of near cameras, so that the unit sphere fills the frame at every radius."""
    words: bool = True
    """Put 'a front view of', 'a side view of' … in front of the prompt."""
    front_deg: Annotated[float, Field(ge=0, le=180)] = 45.0
    """Largest |azimuth| of views that are called front."""
    back_deg: Annotated[float, Field(ge=0, le=180)] = 135.0
    """Smallest |azimuth| of views that are called back."""
    overhead_deg: Annotated[float, Field(ge=-90, le=91)] = 60.0
    """Views from above this elevation are called overhead."""
    light_above_deg: tuple[Elevation, Elevation] = (30.0, 30.0)
    """Elevation of the key light above the camera's own direction. The bundled prior is told it with the camera; without a camera,
    it expects 30."""
    light_around_deg: tuple[Azimuth, Azimuth] = (0.0, 0.0)
    """Rotation of the key light about the vertical, from the camera's own direction."""
    ambient: Unit = 0.5
    """Share of light that comes from everywhere; the rest is the Lambertian key light."""
    background: Literal["gray", "white", "black", "random", "learned", "augmented"] = "random"
    """What is behind the object when the prior is asked. The prior cannot see fog of the background's own colour, so
    'random' draws a colour for each picture. The bundled prior is given plain colours. 'augmented' is blurred noise,
    checkerboards and textures (Dream Fields)."""
    background_lr: Rate = 0.001
    """Adam's learning rate for the 'learned' background."""


class ShadingSettings(Settings):
    albedo: Weight = 0.0
    """Weight of views that show the albedo alone. The bundled prior knows that only where it is told the camera."""
    lambertian: Weight = 0.8
    """Weight of views with ambient + Lambertian light."""
    textureless: Weight = 0.2
    """Weight of views of the lit shape in plain white: 'a clay model of …'."""
    latent: Weight = 0.0
    """Weight of views of the latents themselves, for scenes that hold latents (scene.channels; Latent-NeRF)."""
    normals: Weight = 0.0
    """Weight of views of the normals, as colours in the camera's axes (Fantasia3D). The bundled prior knows them where it is told the
    camera, and is shown none where it is not."""
    depth: Weight = 0.0
    """Weight of views of the depth as hues (as RichDreamer distils depths, Qiu et al. 2023). From shaded views alone, hollows stay
    filled: an armchair has no seat. Only a prior that knows depths is asked about them: the bundled one, where it is told the
    camera. With others there are no such views."""
    albedo_until: Unit = 0.0
    """Share of the stage, at its start, that shows the albedo alone (the paper: 1000 of 15000 steps)."""
    textureless_words: bool = True
    """Ask for 'a clay model of …' in textureless views (a caption the bundled prior was trained on)."""

    @model_validator(mode="after")
    def _something_to_show(self) -> ShadingSettings:
        if self.albedo + self.lambertian + self.textureless + self.latent + self.normals + self.depth <= 0:
            raise ValueError("one of albedo, lambertian, textureless, latent, normals and depth must be above 0")
        return self
