"""A mesh with a texture, drawn by a differentiable rasteriser. B looks, S pixels per side as drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..geometry.distance import surface_samples
from ..geometry.export_settings import ExportSettings
from ..geometry.mesh import Mesh, decimate, fill_cavities, remove_floaters, with_normals
from ..geometry.mesh_file import read_mesh
from ..geometry.surface import Surface
from ..geometry.topology import edge_pairs, face_neighbours, laplacian, normal_consistency, vertex_normals
from ..torch_state import plain_torch
from ..view.backdrops import Groups
from ..view.view import View
from .fitted import shown_surface
from .level_grid import Texture
from .mesh_camera import clip_positions
from .pbr import lit
from .rasteriser import PLAIN, Rasteriser
from .scene import Penalties, Rendering, Scene
from .scene_settings import MeshSettings, same_thing
from .shading import shade
from .shapes import Shape, Tetrahedra, Vertices

SAMPLED = ExportSettings(resolution=96, faces=20_000)
"""How finely the surface of the scene before is taken."""
COLOURED = 40_000  # points of that surface whose colours are taken
SEEN = ("colour", "opacity", "depth", "normal")
SHELL = 0.02  # world units; the texture is learned this far above and below it, since the surface will move


@dataclass(frozen=True)
class Body:
    """The mesh of one step: vertices (V, 3), faces (F, 3), their neighbours (F, 3), and the pairs (2, E) of half-edges."""

    vertices: Tensor
    faces: Tensor
    neighbours: Tensor
    pairs: Tensor


class MeshScene(Scene):
    """A shape (``shapes``) and a texture (``level_grid``). The texture does not feel where the surface goes: colours do not
    move the shape, but light and silhouettes do."""

    def __init__(self, settings: MeshSettings, generator: torch.Generator):
        super().__init__()
        self.settings = settings
        made = Tetrahedra if settings.shape == "tetrahedra" else Vertices
        self.shape: Shape = made(settings, generator)
        self.texture = Texture(settings, generator)

    def groups(self) -> Groups:
        head = dict(self.texture.named_parameters())
        features = head.pop("grid.table")
        shape = ({"table": self.shape.grid.table}, self.settings.lr_shape)
        texture = {"features": ({"table": features}, self.settings.lr), "head": (head, self.settings.lr_head)}
        return {"all": {"shape": shape} | texture, "shape": {"shape": shape}, "texture": texture}[self.settings.learns]

    def set_palette(self, weight: Tensor, bias: Tensor) -> None:
        assert isinstance(self.texture.palette, nn.Linear)
        with torch.no_grad():
            self.texture.palette.weight.copy_(weight)
            self.texture.palette.bias.copy_(bias)

    def is_like(self, other: Scene) -> bool:
        return isinstance(other, MeshScene) and same_thing(self.settings, other.settings)

    def begin(self) -> None:
        if self.settings.file:
            self.shape.begin(read_mesh(self.settings.file))
        self.shape.triangles()  # says what is missing

    def begin_from(self, previous: Scene, rng: torch.Generator) -> None:
        """Take the surface of the scene before, and learn its colours."""
        before = shown_surface(previous, SAMPLED)
        self.shape.begin(before.mesh)
        where, normals = (torch.from_numpy(x).float() for x in surface_samples(before.mesh, COLOURED))
        colours = before.colour(where, normals).float()
        device = self.shape.grid.table.device
        aside = where + normals * (torch.rand(len(where), 1, generator=rng) * 2 - 1) * SHELL
        self.texture.fit(aside.to(device), colours.to(device), rng)

    def rasteriser(self) -> Rasteriser:
        """The fastest one for where the scene is."""
        if not self.settings.fast:
            return PLAIN
        device = self.shape.grid.table.device
        if device.type == "cpu":
            from ..kernels.raster_fused import FUSED  # the compiler is slow to load

            return FUSED
        from .raster_nvdiffrast import nvdiffrast

        return (nvdiffrast() if device.type == "cuda" else None) or PLAIN

    def body(self) -> Body:
        """The mesh as it is now, with gradients by what the shape learns."""
        learning = torch.is_grad_enabled() and self.settings.learns != "texture"
        with torch.set_grad_enabled(learning):
            vertices, faces = self.shape.triangles()
        pairs = edge_pairs(faces)
        return Body(vertices, faces, face_neighbours(faces, pairs), pairs)

    @plain_torch()
    def render(self, view: View, rng: torch.Generator | None = None) -> Rendering:
        body = self.body()
        if torch.is_grad_enabled():
            return self.draw(body, view, self.penalties(body))
        parts = [self.draw(body, view[i], {}) for i in range(len(view))]  # one by one, to bound the memory
        colour, opacity, depth, normal = (torch.cat([getattr(part, name) for part in parts]) for name in SEEN)
        return Rendering(colour, opacity, depth, normal)

    def penalties(self, body: Body) -> Penalties:
        """Of the shape, by name; none where it does not learn."""
        if self.settings.learns == "texture":
            return {}
        smooth = partial(normal_consistency, body.vertices, body.faces, body.pairs)
        fair = partial(laplacian, body.vertices, body.faces)
        return {"normal_consistency": smooth, "laplacian": fair, **self.shape.penalties()}

    def draw(self, body: Body, view: View, penalties: Penalties) -> Rendering:
        """Pictures of a mesh: shaded at each drawn pixel's centre, softened along silhouettes, averaged over the picture's
        pixels."""
        made, device = self.rasteriser(), body.vertices.device
        cameras, fine = view.cameras.to(device), self.settings.supersampling
        clip = clip_positions(body.vertices, cameras)
        face, weights = made.rasterise(clip, body.faces, view.size * fine)
        around = torch.cat([body.vertices, vertex_normals(body.vertices, body.faces)], 1)
        seen = (face >= 0).nonzero(as_tuple=True)
        at = made.interpolate(around, body.faces, face, weights)[seen]
        points, towards = at[:, :3], cameras.positions()[seen[0]] - at[:, :3]
        depth = towards.norm(dim=-1, keepdim=True)
        normal = torch.nn.functional.normalize(at[:, 3:], dim=-1, eps=1e-9)
        normal = torch.where(self.turned(body, face[seen], towards)[:, None], -normal, normal)
        albedo, finish, light = None, None, view.lights.to(device)[seen[0]]
        if view.shading != "textureless":
            learning = torch.is_grad_enabled() and self.settings.learns != "shape"
            with torch.set_grad_enabled(learning):
                if self.texture.pbr and view.shading == "lambertian":
                    albedo, finish = self.texture.material(points.detach())
                else:
                    albedo = self.texture(points.detach(), view.shading == "latent")
        if albedo is not None and finish is not None:
            colour = lit(albedo, finish, normal, towards / depth, light, view.ambient)
        else:
            colour = shade(albedo, normal, light, view.ambient, view.shading)
        what = torch.cat([colour, torch.ones_like(depth), depth, normal], 1)
        picture = what.new_zeros(*face.shape, what.shape[1]).index_put(seen, what)
        picture = made.antialias(picture, face, clip, body.faces, body.neighbours)
        picture = picture.reshape(len(face), view.size, fine, view.size, fine, -1).mean((2, 4)).permute(0, 3, 1, 2)
        shown, opacity, far, facing = picture.split([colour.shape[1], 1, 1, 3], 1)
        return Rendering(shown, opacity, far, facing, penalties)

    def turned(self, body: Body, face: Tensor, towards: Tensor) -> Tensor:
        """Whether faces (N,) show their back to a camera in the direction ``towards`` (N, 3): inside of a mesh with holes."""
        a, b, c = body.vertices.detach()[body.faces[face]].unbind(1)
        return (torch.linalg.cross(b - a, c - a) * towards.detach()).sum(-1) < 0

    @torch.no_grad()
    def surface(self, settings: ExportSettings) -> Surface:
        vertices, faces = self.shape.triangles()
        mesh = Mesh(vertices.cpu().double().numpy(), faces.cpu().numpy())
        if self.settings.shape == "tetrahedra":
            mesh = fill_cavities(remove_floaters(mesh))
        made = with_normals(decimate(mesh, settings.faces))
        notes = {
            name: f"export.{name} = {getattr(settings, name):g} is for fields; a mesh is its own surface"
            for name in ("level", "resolution")
        }
        if settings.faces > len(mesh.faces):
            notes["faces"] = f"export.faces = {settings.faces}, but the mesh has {len(mesh.faces)} triangles"
        return Surface(made, self.albedo, notes, mesh, self.finish if self.texture.pbr else None)

    @plain_torch()
    @torch.no_grad()
    def albedo(self, points: Tensor, normals: Tensor) -> Tensor:
        """Albedo (N, 3) at points (N, 3) of the surface, on the CPU."""
        return self.texture(points.float().to(self.shape.grid.table.device)).cpu()

    @plain_torch()
    @torch.no_grad()
    def finish(self, points: Tensor, normals: Tensor) -> Tensor:
        """Roughness and metal (N, 2) at points (N, 3) of the surface, on the CPU."""
        return self.texture.material(points.float().to(self.shape.grid.table.device))[1].cpu()
