"""Time the compiled rasteriser against its plain twin: the same mesh, the same views, in one run.

python benchmarks/raster.py [--threads N] [--size N] [--triangles N] [--repeats N]
"""

from __future__ import annotations

import argparse

import torch
from machine import machine
from timing import best

from dreamfusion.geometry.tetrahedra import body_centred_grid, marching_tetrahedra
from dreamfusion.geometry.topology import face_neighbours, vertex_normals
from dreamfusion.kernels.raster_fused import FUSED
from dreamfusion.scene.mesh_camera import clip_positions
from dreamfusion.scene.rasteriser import PLAIN, Rasteriser
from dreamfusion.view.cameras import orbit_cameras


def wavy_ball(triangles: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A ball with waves, of about this many triangles, as marching tetrahedra make it."""
    cubes = 8
    while True:
        points, tets = body_centred_grid(cubes)
        distance = points.norm(dim=-1) - 0.7 - 0.08 * (points * 9).sin().prod(-1)
        vertices, faces = marching_tetrahedra(points, distance, tets)
        if len(faces) >= triangles:
            return vertices, faces
        cubes += 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--triangles", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    vertices, faces = wavy_ball(options.triangles)
    neighbours, cameras = face_neighbours(faces), orbit_cameras([30.0], 15.0)
    values = torch.cat([vertex_normals(vertices, faces), vertices, torch.ones_like(vertices[:, :2])], 1)
    upstream = torch.randn(1, options.size, options.size, 8, generator=torch.Generator().manual_seed(0))
    print(
        f"{machine()}, {options.threads} thread(s); {len(faces)} triangles, {options.size} x {options.size} pixels, 8 channels"
    )
    print(f"{'rasteriser':<12}{'forward':>12}{'backward':>12}")

    times: dict[str, tuple[float, float]] = {}
    for name, made in (("plain", PLAIN), ("compiled", FUSED)):
        v, c = vertices.clone().requires_grad_(), values.clone().requires_grad_()

        def forward(made: Rasteriser = made, v: torch.Tensor = v, c: torch.Tensor = c) -> torch.Tensor:
            clip = clip_positions(v, cameras)
            face, weights = made.rasterise(clip, faces, options.size)
            return made.antialias(made.interpolate(c, faces, face, weights), face, clip, faces, neighbours)

        picture = forward()

        def backward(picture: torch.Tensor = picture, v: torch.Tensor = v, c: torch.Tensor = c) -> object:
            return torch.autograd.grad(picture, (v, c), upstream, retain_graph=True)

        times[name] = best(forward, options.repeats), best(backward, options.repeats)
        print(f"{name:<12}{times[name][0]:>9.1f} ms{times[name][1]:>9.1f} ms")
    ratios = [a / b for a, b in zip(times["plain"], times["compiled"], strict=True)]
    print(f"{'ratio':<12}{ratios[0]:>11.1f}x{ratios[1]:>11.1f}x")


if __name__ == "__main__":
    main()
