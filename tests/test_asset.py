"""From a scene to an asset and back from a file."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dreamfusion.asset import Asset
from dreamfusion.errors import UserError
from dreamfusion.export.formats import FileOptions
from dreamfusion.export.texture import sample_texture
from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.geometry.surface import Surface, volume_surface

SETTINGS = ExportSettings(resolution=64, faces=3000, texture_size=256, level=20)


class Torus:
    """A ring about the vertical, coloured by position; density beyond the unit sphere is not the object's."""

    def density(self, points: Tensor) -> Tensor:
        ring = torch.stack([points[:, [0, 2]].norm(dim=-1) - 0.55, points[:, 1]], -1).norm(dim=-1)
        return 40 * torch.sigmoid((0.2 - ring) * 60) + 40 * (points.norm(dim=-1) > 1.2)

    def albedo(self, points: Tensor) -> Tensor:
        return (0.5 + 0.5 * points).clamp(0, 1)

    def surface(self, settings: ExportSettings) -> Surface:
        return volume_surface(self.density, self.albedo, settings)


@pytest.fixture(scope="module")
def asset() -> Asset:
    return Asset.from_scene(Torus(), SETTINGS, "a ring", {"seed": 3})  # type: ignore[arg-type]


def test_the_report_tells_the_shape(asset: Asset):
    report = asset.geometry_report()
    assert report["watertight"] and report["components"] == 1
    assert report["euler"] == 0 and report["genus"] == 1
    assert 1500 < report["triangles"] <= 3000
    assert report["volume"] == pytest.approx(2 * math.pi**2 * 0.55 * 0.2**2, rel=0.05)
    assert np.allclose(report["bounds"], [[-0.75, -0.2, -0.75], [0.75, 0.2, 0.75]], atol=0.02)


def test_the_texture_shows_the_albedo_of_the_surface(asset: Asset):
    seen = sample_texture(asset.texture, asset.mesh.uv)
    exact = 0.5 + 0.5 * asset.mesh.vertices
    assert np.abs(seen - exact).mean() < 0.012  # the shell reaches a little below the surface


def test_a_glb_comes_back_whole(asset: Asset, tmp_path: Path):
    assert asset.save(tmp_path / "deep" / "ring.glb") == [tmp_path / "deep" / "ring.glb"]
    loaded = Asset.load(tmp_path / "deep" / "ring.glb")
    assert (loaded.prompt, loaded.metadata) == ("a ring", {"seed": 3})
    assert np.array_equal(loaded.texture, asset.texture)
    report, before = loaded.geometry_report(), asset.geometry_report()
    assert all(report[k] == before[k] for k in ("watertight", "components", "triangles", "euler", "genus"))
    assert np.allclose(
        sample_texture(loaded.texture, loaded.mesh.uv), sample_texture(asset.texture, asset.mesh.uv), atol=1e-3
    )
    again = Asset.load(loaded.save(tmp_path / "again.glb")[0])
    assert np.allclose(again.mesh.vertices, loaded.mesh.vertices, atol=1e-6)
    assert np.allclose(again.mesh.normals, asset.mesh.normals, atol=1e-6)


@pytest.mark.parametrize("content", [None, b"", b"solid nothing", b"glTF" + bytes(40)])
def test_what_is_no_asset_is_refused_in_one_line(tmp_path: Path, content: bytes | None):
    path = tmp_path / "a.glb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.glb") as caught:
        Asset.load(path)
    assert "\n" not in str(caught.value)


def test_a_cut_off_file_is_refused(asset: Asset, tmp_path: Path):
    whole = asset.save(tmp_path / "ring.glb")[0].read_bytes()
    for length in (16, 100, len(whole) // 2, len(whole) - 8):
        (tmp_path / "cut.glb").write_bytes(whole[:length])
        with pytest.raises(UserError):
            Asset.load(tmp_path / "cut.glb")


def test_a_compressed_file_is_refused_for_what_it_is(asset: Asset, tmp_path: Path):
    pytest.importorskip("DracoPy")
    (path,) = asset.save(tmp_path / "small.glb", FileOptions(compress=True))
    with pytest.raises(UserError, match="is compressed and cannot be loaded"):
        Asset.load(path)


def test_an_empty_scene_cannot_become_an_asset():
    class Empty(Torus):
        def density(self, points: Tensor) -> Tensor:
            return torch.zeros(len(points))

    with pytest.raises(UserError, match="the scene is empty"):
        Asset.from_scene(Empty(), SETTINGS)  # type: ignore[arg-type]
