"""Time the MLP field of the preset `dreamfusion`, plain against fast: one view, same rays, in turns, in one run.

python benchmarks/mlp.py [--threads N] [--repeats N] [--resolution N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from machine import machine

from dreamfusion.scene import ray_samples as sampling
from dreamfusion.scene.make import make_scene
from dreamfusion.scene.mlp import MlpField
from dreamfusion.scene.rays import camera_rays
from dreamfusion.settings.presets import resolve
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.lights import camera_lights

ROWS: dict[str, dict[str, Any]] = {
    "plain, regular samples": {"scene.fast": False, "scene.importance": 0},
    "plain, placed samples": {"scene.fast": False},
    "fast, regular samples": {"scene.importance": 0},
    "fast, placed samples": {},
}


def blob(field: MlpField) -> None:
    """As a run begins: a small blob in empty space."""


def solid(field: MlpField) -> None:
    """A large object in empty space."""
    field.settings.density_bias_width = 0.3


def spread(field: MlpField) -> None:
    """A fog of about 0.6 / world unit in all of space, around the blob: what a run must not be slow in."""
    with torch.no_grad():
        field.out.bias[0] = 1.5


def made(change: Callable[[MlpField], None], overrides: dict[str, Any]) -> MlpField:
    """The preset's scene, changed, and looked around in once."""
    field = make_scene(resolve("dreamfusion", overrides, "a ball").scene, torch.Generator().manual_seed(0))
    assert isinstance(field, MlpField)
    change(field)
    field.occupancy.after_step(field.density, 0)
    return field


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def compare(change: Callable[[MlpField], None], resolution: int, repeats: int) -> None:
    """Print one scene's table."""
    cameras = orbit_cameras([30.0], 15.0)
    rays = camera_rays(cameras, resolution)
    lights = camera_lights(cameras, torch.full((1,), 0.5), torch.zeros(1)).expand_as(rays.origins).contiguous()
    near, far = sampling.unit_sphere(rays.origins, rays.directions)
    offset = torch.full_like(near, 0.5)
    fields = {name: made(change, overrides) for name, overrides in ROWS.items()}
    works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
    points = {}
    for name, field in fields.items():

        def picture(field: MlpField = field) -> None:
            with torch.no_grad():
                field.render_rays(rays, "lambertian", lights, 0.5)

        def step(field: MlpField = field) -> None:
            field.zero_grad()
            seen = field.render_rays(rays, "lambertian", lights, 0.5, torch.Generator().manual_seed(1))
            (seen.colour.sum() + seen.orientation.sum()).backward()

        works[name] = picture, step
        where = field.samples_along(rays, near, far, field.settings.samples, offset)
        places = rays.origins[:, None] + where.distance[..., None] * rays.directions[:, None]
        points[name] = int((where.inside.reshape(-1) & field.occupied(places.reshape(-1, 3))).sum())
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in works}
    for turn in range(repeats + 1):  # the first one wakes compilers and caches
        for name, (one, other) in works.items():
            found = seconds(one), seconds(other)
            if turn:
                times[name][0].append(found[0])
                times[name][1].append(found[1])
    middle = {name: (median(a), median(b)) for name, (a, b) in times.items()}
    base = middle["plain, regular samples"]
    print(f"\n{(change.__doc__ or '').splitlines()[0]}\n")
    print(f"{'':<24}{'points':>9}{'picture':>12}{'ratio':>8}{'step':>12}{'ratio':>8}")
    for name, (a, b) in middle.items():
        ratios = f"{a * 1e3:>9.0f} ms{base[0] / a:>7.1f}x{b * 1e3:>9.0f} ms{base[1] / b:>7.1f}x"
        print(f"{name:<24}{points[name]:>9}{ratios}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--resolution", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine()}, {options.threads} thread(s)")
    print(f"one view of {options.resolution}x{options.resolution}; medians of {options.repeats}")
    print("picture: without gradients; step: forward and backward, lit, with the orientation penalty")
    for change in (blob, solid, spread):
        compare(change, options.resolution, options.repeats)


if __name__ == "__main__":
    main()
