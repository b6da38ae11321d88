"""What is optimised and can be rendered and exported."""

from dreamfusion.scene.base import Rays, Rendering, Scene, Shading
from dreamfusion.scene.make import make_scene

__all__ = ["Rays", "Rendering", "Scene", "Shading", "make_scene"]
