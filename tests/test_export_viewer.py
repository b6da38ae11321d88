"""The GLB in another renderer: <model-viewer> in a headless chromium shows what our own rasteriser shows."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("playwright.sync_api", reason="the browser tests need pip install playwright")

from PIL import Image
from playwright import sync_api as api

import dreamfusion.studio
from dreamfusion.export.formats import place, write_asset
from dreamfusion.export.texture import Picture, bake, unwrap
from dreamfusion.geometry.mesh import Mesh, extract_surface, with_normals
from dreamfusion.scene.silhouettes import faces_seen
from dreamfusion.view.cameras import orbit_cameras
from tests.test_export_files import colour, density
from tools.studio_pictures import GPU

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
VIEWER = Path(dreamfusion.studio.__file__).parent / "static" / "model-viewer.min.js"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="there is no chromium (apt-get install chromium)"),
]

SITE = "http://asset.invalid/"  # answered by the test itself
SIZE, RADIUS, FOV_DEG = 256, 2.6, 35.0
TARGET = np.array([0.0, 0.5, 0.0])
ORBITS = ((20.0, 15.0), (130.0, -10.0), (-80.0, 50.0))
"""Azimuth and elevation in degrees; model-viewer says 90 degrees less the elevation."""
PAGE = f"""<!doctype html><meta charset="utf-8"><style>body {{ margin: 0 }}
model-viewer {{ width: {SIZE}px; height: {SIZE}px; background: transparent; --poster-color: transparent }}</style>
<script type="module" src="viewer.js"></script>
<model-viewer src="asset.glb" interaction-prompt="none" shadow-intensity="0" field-of-view="{FOV_DEG}deg"
  camera-target="{TARGET[0]}m {TARGET[1]}m {TARGET[2]}m" min-camera-orbit="-Infinity 0deg 0m" max-camera-orbit="Infinity 180deg 100m"
  min-field-of-view="1deg" max-field-of-view="180deg"></model-viewer>"""
LOOK = """async orbit => {
  const viewer = document.querySelector('model-viewer');
  viewer.constructor.minimumRenderScale = 1;
  viewer.cameraOrbit = orbit;
  await viewer.updateComplete;
  viewer.jumpCameraToGoal();
  for (let k = 0; k < 3; k++) await new Promise(requestAnimationFrame);
  const {theta, phi, radius} = viewer.getCameraOrbit();
  return {picture: viewer.toDataURL('image/png'), orbit: [theta, phi, radius], fov: viewer.getFieldOfView()};
}"""


@pytest.fixture(scope="module")
def model() -> tuple[Mesh, Picture]:
    """A body with a red knob at its front and a blue one at +X, higher up: no two of its sides look alike."""
    mesh = unwrap(with_normals(extract_surface(density, 40, 20.0)), 256)
    return mesh, bake(mesh, colour, 256)


@pytest.fixture(scope="module")
def page(model: tuple[Mesh, Picture], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A page that shows the asset's GLB and nothing else."""
    path = tmp_path_factory.mktemp("viewer") / "asset.glb"
    write_asset(path, *model, "a knobbly thing", {})
    answers = {
        "": (PAGE.encode(), "text/html"),
        "viewer.js": (VIEWER.read_bytes(), "text/javascript"),
        "asset.glb": (path.read_bytes(), "model/gltf-binary"),
    }

    def answer(route: Any) -> None:
        body, kind = answers.get(route.request.url.removeprefix(SITE), (b"", ""))
        route.fulfill(body=body, content_type=kind) if kind else route.abort()

    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=list(GPU))
        found = browser.new_page(viewport={"width": SIZE, "height": SIZE}, device_scale_factor=1)
        found.set_default_timeout(240_000)
        found.route("**/*", answer)
        found.goto(SITE)
        found.wait_for_function("document.querySelector('model-viewer').loaded")
        yield found
        browser.close()


def shown(page: Any, azimuth: float, elevation: float) -> np.ndarray:
    """The viewer's picture (S, S, 4), uint8, over nothing, from where the test wants to look."""
    seen = page.evaluate(LOOK, f"{azimuth}deg {90 - elevation}deg {RADIUS}m")
    theta, phi, radius = seen["orbit"]
    assert np.allclose(np.degrees([theta, phi]), [azimuth, 90 - elevation], atol=0.01) and radius == pytest.approx(
        RADIUS
    )
    assert seen["fov"] == pytest.approx(FOV_DEG)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(seen["picture"].partition(",")[2]))).convert("RGBA"))
    assert picture.shape == (SIZE, SIZE, 4)
    return picture


def drawn(mesh: Mesh, azimuth: float, elevation: float) -> np.ndarray:
    """The face (S, S) that our rasteriser sees at each pixel, -1 for none."""
    placed = place(mesh)
    moved = Mesh(placed.vertices - TARGET, placed.faces)
    camera = orbit_cameras([azimuth], elevation, RADIUS, FOV_DEG)
    return faces_seen(moved, camera, SIZE)[0]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("azimuth, elevation", ORBITS)
def test_a_browser_shows_the_silhouette_that_we_draw(model, page: Any, azimuth: float, elevation: float) -> None:
    silhouette = shown(page, azimuth, elevation)[..., 3] > 127
    ours = drawn(model[0], azimuth, elevation) >= 0
    assert 0.1 < ours.mean() < 0.6 and not silhouette[0].any()
    assert iou(silhouette, ours) >= 0.97
    turned = drawn(model[0], -azimuth, elevation) >= 0  # so the measure tells one side from another
    assert iou(silhouette, turned) < 0.93


def test_a_browser_shows_the_colours_where_we_draw_them(model, page: Any) -> None:
    """The two knobs, by the faces that our rasteriser sees."""
    mesh, _ = model
    picture, face = shown(page, 40.0, 15.0), drawn(mesh, 40.0, 15.0)
    middles = torch.from_numpy(mesh.vertices[mesh.faces].mean(1)).float()
    true = colour(middles, middles).numpy()[face]
    for channel, other in ((0, 2), (2, 0)):
        some = (face >= 0) & (true[..., channel] > 0.9)
        seen = picture[some].astype(float)
        assert some.mean() > 0.01 and (seen[:, channel] > seen[:, other] + 40).mean() > 0.97
