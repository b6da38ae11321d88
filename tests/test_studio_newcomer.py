"""The whole way with nothing in the place of anything: a browser, the studio, the worker, the bundled prior, and the export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio needs pip install 'dreamfusion[studio]'")
pytest.importorskip("playwright.sync_api", reason="the browser tests need pip install playwright")

from dreamfusion.asset import Asset
from dreamfusion.geometry.surface import TOLERATED
from dreamfusion.studio.desk import Desk
from tests.faults import environment
from tests.test_studio_browser import PATIENCE, browser, picture, pytestmark, until  # noqa: F401
from tools.studio_pictures import served

SMALL = {"export.faces": "600", "export.texture_size": "64", "export.resolution": "40", "export.fit": "false"}
"""Of a run of ten steps; its film is left out as well."""


def test_a_newcomer_makes_turns_and_exports_a_red_armchair(
    browser: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    with served(Desk(tmp_path / "runs", threads=1)) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(2 * PATIENCE)
        page.goto(address)
        page.fill("#prompt", "a red armchair")
        page.wait_for_selector("#notes .good")
        page.fill("#steps", "20")
        page.click("#make summary")
        for name, value in (SMALL | {"export.turntable_frames": "0"}).items():
            page.fill(f"[id='set-{name}']", value)
        page.click("#make .primary")
        page.wait_for_selector(".card:has-text('a red armchair') .badge.done")
        page.click(".card:has-text('a red armchair') > button")
        until(page, "document.querySelector('model-viewer')?.loaded === true")
        page.wait_for_selector("#viewer .plot[data-key=residual_norm] path")
        orbit = "document.querySelector('model-viewer').getCameraOrbit().theta"
        box, before = page.query_selector("model-viewer").bounding_box(), page.evaluate(orbit)
        page.mouse.move(box["x"] + 200, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 300, box["y"] + 100, steps=3)
        page.mouse.up()
        until(page, f"Math.abs({orbit} - {before}) > 0.1")
        picture(page, "newcomer")
        page.click("#viewer button:has-text('Export')")
        page.fill("#export-faces", "300")
        page.select_option("#export-texture", "512")
        with page.expect_download() as download:
            page.click("#export button:has-text('Export and download')")
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        page.close()
    assert path.name == "a-red-armchair-0.glb"
    asset = Asset.load(path)
    assert 100 < len(asset.mesh.faces) <= 300 * TOLERATED and asset.texture.shape[:2] == (512, 512)
    assert 0.3 < np.ptp(asset.mesh.vertices, axis=0).max() < 2.1  # inside of the unit sphere
    red, green, blue = np.asarray(asset.texture, dtype=float)[..., :3].reshape(-1, 3).mean(0)
    assert red > max(green, blue) + 5  # twenty steps make it reddish; without words it would stay gray
