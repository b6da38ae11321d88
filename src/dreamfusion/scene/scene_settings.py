"""Settings of the scenes, one class for each kind. ``SceneSettings`` is any of them, told apart by ``kind``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..schema import Positive, PositiveSchedule, Rate, Settings, Unit

Levels = Annotated[tuple[Annotated[int, Field(ge=2, le=512)], ...], Field(min_length=1, max_length=16)]


HOW = {
    "particles", "samples", "importance", "mean_importance", "hardening", "lr", "lr_head", "lr_shape", "fast", "file",
    "sketch", "sketch_width", "learns", "supersampling", "radius", "count", "opacity", "lr_scale", "lr_rotation", "lr_opacity", "lr_colour",
    "grow_every", "grow_from", "grow_until", "grow_above", "split_above", "prune_below", "most", "reset_every", "reset_to",
}  # fmt: skip
"""Settings that say how a scene begins, is rendered and learned, not what it is."""


class AnyScene(Settings):
    """What all scenes have."""

    channels: Annotated[int, Field(ge=3, le=32)] = 3
    """Channels of the scene's colour: 3 for colours, or the number of a latent prior's channels (Stable Diffusion: 4) for
    its latents."""
    particles: Annotated[int, Field(ge=1, le=64)] = 1
    """Scenes that learn side by side, one of them in each step, for rules that learn from all (VSD). The asset is the first."""
    lr_head: Rate = 0.001
    """Adam's learning rate for MLP weights."""
    fast: bool = True
    """Use the compiled CPU kernels if the scene has them; false runs the plain PyTorch renderer."""


class FieldSettings(AnyScene):
    """What all radiance fields have."""

    samples: Annotated[int, Field(ge=8, le=1024)] = 56
    """Samples along a ray through the whole unit sphere."""
    density_bias: float = 2.0
    """Height of the blob of density at the origin that every run starts from (the paper: 5). A thin, wide fog is better for
    a grid: a dense fog is carved away layer by layer, and some of it stays."""
    density_bias_width: Positive = 0.4
    """Standard deviation of that blob (the paper: 0.2); the radius of the ball that a signed distance starts from."""
    density_scale: Positive = 20.0
    """Density that a raw value of about one means, in 1 / world unit. For a signed distance: 1 / beta, the density inside, at the start of
    the stage."""
    hardening: PositiveSchedule = Field(default=[(0.0, 1.0), (0.7, 4.0)])
    """Factor by which the learned raw density has grown since the start of the stage. As it grows, surfaces get hard and fog gets thin (as
    in NeuS, Wang et al. 2021). A signed distance keeps its slope: its beta is divided by the factor."""
    sketch: str = ""
    """A mesh as a loose guide, as a file that a mesh scene could begin with; ``regularizers.sketch`` says how strong. --mesh names
    it in a run that has such a guide (Sketch-Shape)."""
    sketch_width: Positive = 0.3
    """Distance from the guide's surface, in world units, up to which the field is free: the standard deviation of a Gaussian."""


class GridSettings(FieldSettings):
    kind: Literal["grid"] = "grid"
    density: Literal["softplus", "sdf"] = "softplus"
    """Where the density comes from: 'softplus' of what is learned, or a learned signed distance, 'sdf', by the distribution
    function of a Laplace variable (VolSDF, Yariv et al. 2021; TextMesh). The surface of the latter is its zero."""
    levels: Levels = (16, 40, 96)
    """Vertices per side of each level (after Müller et al. 2022, dense instead of hashed)."""
    features: Annotated[int, Field(ge=1, le=8)] = 3
    """Colour features per vertex and level (one more channel is the density)."""
    hidden: Annotated[int, Field(ge=4, le=512)] = 16
    """Width of the colour head."""
    lr: Rate = 0.01
    """Adam's learning rate for grid features."""


class MlpSettings(FieldSettings):
    kind: Literal["mlp"] = "mlp"
    hidden: Annotated[int, Field(ge=4, le=512)] = 128
    """Width of the trunk (the paper: 128)."""
    depth: Annotated[int, Field(ge=1, le=12)] = 5
    """Number of hidden layers (the paper: 5)."""
    frequencies: Annotated[int, Field(ge=1, le=16)] = 8
    """Octaves of the integrated positional encoding."""
    importance: Annotated[int, Field(ge=0, le=1024)] = 0
    """Most samples a ray, placed where the occupancy remembers something; 0 takes all ``samples`` in occupied cells."""
    mean_importance: Annotated[float, Field(ge=0)] = 0
    """Most of these on average over a picture's rays, empty ones included, so that a step's cost is bounded; 0 is no
    limit."""


class MeshSettings(AnyScene):
    kind: Literal["mesh"] = "mesh"
    file: str = ""
    """A mesh to begin with: GLB, GLTF, OBJ, PLY, STL or OFF, with Y up and its front towards +Z. Its farthest vertex is put at 0.85 of
    the unit sphere."""
    shape: Literal["tetrahedra", "vertices"] = "tetrahedra"
    """What the shape is made of: 'tetrahedra', the zero of a signed distance in a tetrahedral grid, which may change its
    topology (DMTet); 'vertices', the mesh that it begins with, whose vertices move along their normals (Text2Mesh)."""
    learns: Literal["all", "shape", "texture"] = "all"
    """What moves in this stage."""
    resolution: Annotated[int, Field(ge=4, le=128)] = 32
    """Cubes per side of the tetrahedral grid; each holds 12 tetrahedra."""
    radius: Annotated[float, Field(gt=0, le=0.9)] = 0.5
    """Radius of the ball that a run without a mesh to begin with starts from."""
    shape_levels: Levels = (6, 12, 24)
    """Vertices per side of the grids whose sum moves the shape: coarse ones move large parts together."""
    reach: Positive = 0.1
    """Farthest that vertices move along their normals, in world units (Text2Mesh: 0.1)."""
    supersampling: Annotated[int, Field(ge=1, le=8)] = 2
    """Pixels drawn per side of each pixel of the picture."""
    material: Literal["matte", "pbr"] = "matte"
    """'matte' surfaces have an albedo. 'pbr' surfaces have a base colour, a roughness and a share of metal; lit pictures show
    them in the light of a studio, and GLB files keep all three (Fantasia3D)."""
    levels: Levels = (16, 40, 80)
    """Vertices per side of each level of the texture, which is a grid in space."""
    features: Annotated[int, Field(ge=1, le=8)] = 3
    """Colour features per vertex and level."""
    hidden: Annotated[int, Field(ge=4, le=512)] = 16
    """Width of the colour head."""
    lr: Rate = 0.01
    """Adam's learning rate for the texture's features."""
    lr_shape: Rate = 0.0005
    """Adam's learning rate for the shape, in world units a step and level."""

    @model_validator(mode="after")
    def _colours(self) -> MeshSettings:
        if self.material == "pbr" and self.channels != 3:
            raise ValueError("material=pbr needs channels=3: latents have no roughness")
        return self


class SplatSettings(AnyScene):
    kind: Literal["splats"] = "splats"
    file: str = ""
    """Splats, points or a mesh to begin with: a .ply of 3D Gaussian splatting, a .ply point cloud, or a mesh file."""
    count: Annotated[int, Field(ge=1, le=1_000_000)] = 5000
    """Splats that a run begins with."""
    radius: Annotated[float, Field(gt=0, le=0.9)] = 0.5
    """Radius of the ball of splats that a run starts from (DreamGaussian: 0.5)."""
    opacity: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Opacity of the first splats."""
    degree: Annotated[int, Field(ge=0, le=3)] = 0
    """Degree of the spherical harmonics of the colours: 0 for colours that are the same from all sides."""
    grow_every: Annotated[int, Field(ge=0)] = 20
    """Steps between two times at which splats are cloned, split and pruned; 0 never changes their number."""
    grow_from: Unit = 0.1
    """Share of the stage from which splats are cloned and split. They are pruned always."""
    grow_until: Unit = 0.6
    """Share of the stage at which that ends."""
    grow_above: Positive = 2.0
    """A splat is cloned or split if it is pulled about the picture this many times as much as the mean splat."""
    split_above: Positive = 0.03
    """Longest axis, in world units, from which a splat is split instead of cloned."""
    prune_below: Unit = 0.02
    """Splats of a lower opacity are removed (Kerbl et al. 2023: 0.005; DreamGaussian: 0.01)."""
    most: Annotated[int, Field(ge=1, le=10_000_000)] = 12_000
    """Largest number of splats that cloning and splitting may reach."""
    reset_every: Annotated[int, Field(ge=0)] = 0
    """Steps between resets of all opacities (Kerbl et al. 2023: 3000; DreamGaussian: 700); 0 for never."""
    reset_to: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Opacity that a reset leaves at most."""
    lr: Rate = 0.001
    """Adam's learning rate for the centres, in world units a step."""
    lr_colour: Rate = 0.01
    """Adam's learning rate for the colours."""
    lr_opacity: Rate = 0.05
    """Adam's learning rate for the opacities' logits."""
    lr_scale: Rate = 0.005
    """Adam's learning rate for the logarithms of the sizes."""
    lr_rotation: Rate = 0.005
    """Adam's learning rate for the rotations."""


def begins_with_file(settings: AnyScene) -> bool:
    """Whether a scene of these settings begins with a file, whatever came before it."""
    return isinstance(settings, MeshSettings | SplatSettings) and bool(settings.file)


def same_thing(one: AnyScene, other: AnyScene) -> bool:
    """Whether scenes of these settings have the same state."""
    return one.model_dump(exclude=HOW) == other.model_dump(exclude=HOW)


SceneSettings = Annotated[GridSettings | MlpSettings | MeshSettings | SplatSettings, Field(discriminator="kind")]
