"""Time the grid field's fused renderer against the plain one: same scene, same rays, in one run.

python benchmarks/renderer.py [--threads N] [--repeats N]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from machine import machine
from timing import best

from dreamfusion.scene.grid import GridField
from dreamfusion.scene.make import make_scene
from dreamfusion.scene.rays import Rays, camera_rays
from dreamfusion.scene.scene_settings import GridSettings
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.lights import camera_lights


def solid_scene(fast: bool) -> GridField:
    """A hard-surfaced ball with a noisy skin, as a trained scene would be; it fills about 40 % of the frame."""
    settings = GridSettings(fast=fast, samples=96, density_bias=0.0)
    field = make_scene(settings, torch.Generator().manual_seed(0))
    assert isinstance(field, GridField)
    start = 0
    with torch.no_grad():
        for side in field.settings.levels:
            axis = torch.linspace(-1, 1, side)
            radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
            level = field.table[start : start + side**3, 0]
            level += ((0.71 - radius) * 20).clamp(-1, 4).reshape(-1)
            start += side**3
    field.occupancy.refresh(field.density, 0)
    return field


def soft_scene(fast: bool) -> GridField:
    """A wide blob with noise in all of space, as a scene is early in a run: most rays end behind it."""
    settings = GridSettings(fast=fast, samples=64, density_bias=5.0, density_bias_width=0.4)
    field = make_scene(settings, torch.Generator().manual_seed(0))
    assert isinstance(field, GridField)
    with torch.no_grad():
        field.table[:, 0] *= 20  # up to 0.2 a level, as some tens of steps of Adam leave behind
    field.occupancy.refresh(field.density, 0)
    return field


SCENES = {"solid": solid_scene, "soft": soft_scene}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--resolution", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    print(f"{machine()}, {options.threads} thread(s)")
    print(f"{options.resolution}x{options.resolution} rays, shortest of {options.repeats}")
    for name, make in SCENES.items():
        compare(name, make, options.resolution, options.repeats)


def compare(title: str, make: Callable[[bool], GridField], resolution: int, most: int) -> None:
    """Print one scene's table."""
    cameras = orbit_cameras([30.0], 15.0)
    rays: Rays = camera_rays(cameras, resolution)
    lights = camera_lights(cameras, torch.full((1,), 0.5), torch.zeros(1)).expand_as(rays.origins).contiguous()
    upstream = torch.randn(rays.origins.shape, generator=torch.Generator().manual_seed(1)) * 1e-3
    fields = {"plain": make(False), "fused": make(True)}
    times: dict[str, list[float]] = {}
    for name, field in fields.items():

        def forward(field: GridField = field) -> torch.Tensor:
            generator = torch.Generator().manual_seed(2)
            return field.render_rays(rays, "lambertian", lights, 0.5, generator).colour

        def both(field: GridField = field) -> None:
            field.zero_grad()
            forward(field).backward(upstream)

        repeats = most if name == "fused" else max(most // 4, 3)
        times[name] = [best(forward, repeats), best(both, repeats)]
    optimiser = torch.optim.Adam(fields["fused"].parameters(), lr=1e-9, eps=1e-15, fused=True)
    adam = best(optimiser.step, most)
    with torch.no_grad():
        opacity = fields["fused"].render_rays(rays, "albedo", lights, 0.5).opacity.mean()

    settings = fields["fused"].settings
    print(f"\n{title} scene: levels {settings.levels}, {settings.samples} samples, mean opacity {opacity:.2f}\n")
    print(f"{'renderer':<10}{'forward':>12}{'forward + backward':>22}")
    for name, (first, second) in times.items():
        print(f"{name:<10}{first:>9.1f} ms{second:>19.1f} ms")
    ratios = [a / b for a, b in zip(times["plain"], times["fused"], strict=True)]
    print(f"{'ratio':<10}{ratios[0]:>11.1f}x{ratios[1]:>20.1f}x")
    print(f"\nAdam over all parameters: {adam:.1f} ms")


if __name__ == "__main__":
    main()
