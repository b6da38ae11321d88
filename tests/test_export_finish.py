"""Roughness and metal in every format that can hold them, read back by other readers than the one that wrote them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from dreamfusion.asset import Asset, in_green_and_blue
from dreamfusion.cli import main
from dreamfusion.export.formats import FileOptions, write_asset, write_lods
from dreamfusion.export.relief import Relief
from dreamfusion.export.texture import Picture, bake, sample_texture, unwrap
from dreamfusion.generation import generate
from dreamfusion.geometry.mesh import Mesh
from dreamfusion.settings.presets import resolve
from tests.fakes import GrayBallPrior
from tests.test_scene_mesh import MESH

SIZE = 256


def finish_at(points: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
    """Rougher to the right, more metal to the front."""
    return torch.stack([0.5 + 0.4 * points[:, 0], 0.5 + 0.3 * points[:, 2]], 1)


def expected(vertices: np.ndarray) -> np.ndarray:
    """Roughness and metal (V, 2) at vertices of a file, where the ball is 1 m tall and stands on the ground."""
    radial = (vertices - [0, 0.5, 0]) / 0.5
    return finish_at(torch.from_numpy(np.array(radial) * 0.8), torch.zeros(1)).numpy()


def is_as_expected(roughness: np.ndarray, metal: np.ndarray, uv: np.ndarray, vertices: np.ndarray) -> None:
    """Gray maps (S, S), read where a file's vertices are."""
    seen = np.stack([sample_texture(np.repeat(m[..., None], 3, 2), uv)[:, 0] for m in (roughness, metal)], 1)
    off = np.abs(seen - expected(vertices))
    assert off.mean() < 0.006 and off.max() < 0.06, (off.mean(), off.max())


@pytest.fixture(scope="module")
def ball() -> tuple[Mesh, Picture, Picture]:
    """A ball of radius 0.8, its colours and its finish."""
    body = trimesh.creation.icosphere(subdivisions=4, radius=0.8)
    vertices = np.asarray(body.vertices)
    mesh = unwrap(Mesh(vertices, np.asarray(body.faces, np.int64), vertices / 0.8), SIZE)
    colours = bake(mesh, lambda p, n: 0.5 + 0.5 * p, SIZE)
    return mesh, colours, bake(mesh, in_green_and_blue(finish_at), SIZE)


def obj_maps(path: Path) -> tuple[dict[str, str], trimesh.Trimesh]:
    """What the material of an OBJ says, and its mesh as trimesh reads it."""
    body = trimesh.load_mesh(path, process=False)
    (library,) = (line.split(None, 1)[1] for line in path.read_text().splitlines() if line.startswith("mtllib"))
    lines = [line.split(None, 1) for line in (path.parent / library).read_text().splitlines() if line[:1] != "#"]
    return {row[0]: row[1] for row in lines if len(row) == 2}, body


def gray(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    assert image.mode == "L"
    return np.asarray(image)


def check_obj(path: Path) -> None:
    said, body = obj_maps(path)
    assert (float(said["Pr"]), float(said["Pm"])) == (1, 1)  # readers multiply
    maps = [gray((path.parent / said[name]).read_bytes()) for name in ("map_Pr", "map_Pm")]
    is_as_expected(*maps, body.visual.uv, np.asarray(body.vertices))


def check_usdz(path: Path) -> None:
    usd, shade, geometry = (pytest.importorskip(f"pxr.{name}") for name in ("Usd", "UsdShade", "UsdGeom"))
    stage = usd.Stage.Open(str(path))
    surface = shade.Shader(stage.GetPrimAtPath("/Asset/Material/Surface"))
    maps = []
    for name, channel in (("roughness", "g"), ("metallic", "b")):
        (source,) = surface.GetInput(name).GetConnectedSources()[0]
        texture = shade.Shader(source.source.GetPrim())
        assert texture.GetIdAttr().Get() == "UsdUVTexture" and source.sourceName == channel
        assert texture.GetInput("sourceColorSpace").Get() == "raw"
        with zipfile.ZipFile(path) as archive:
            picture = np.asarray(Image.open(io.BytesIO(archive.read(texture.GetInput("file").Get().path))))
        maps.append(picture[..., "rgb".index(channel)])
    mesh = geometry.Mesh(stage.GetPrimAtPath("/Asset/Mesh"))
    uv = np.array(geometry.PrimvarsAPI(mesh).GetPrimvar("st").Get())
    is_as_expected(*maps, uv, np.array(mesh.GetPointsAttr().Get()))
    validation = pytest.importorskip("pxr.UsdValidation")
    rules = validation.ValidationRegistry().GetOrLoadAllValidators()
    complaints = validation.ValidationContext(rules).Validate(stage)
    assert [str(c.GetMessage()) for c in complaints] == []


def check_glb(path: Path) -> None:
    (body,) = trimesh.load_scene(path, process=False).geometry.values()
    material = body.visual.material
    assert material.metallicFactor == material.roughnessFactor == 1
    picture = np.asarray(material.metallicRoughnessTexture.convert("RGB"))
    is_as_expected(picture[..., 1], picture[..., 2], body.visual.uv, np.asarray(body.vertices))


CHECKS = {"glb": check_glb, "obj": check_obj, "usdz": check_usdz}


@pytest.mark.parametrize("kind", CHECKS)
def test_another_reader_finds_roughness_and_metal(ball, tmp_path: Path, kind: str) -> None:
    mesh, colours, finish = ball
    write_asset(tmp_path / f"a ball.{kind}", mesh, colours, "a ball", {}, FileOptions(finish=finish))
    CHECKS[kind](tmp_path / f"a ball.{kind}")


def test_a_binary_layer_says_the_same(ball, tmp_path: Path) -> None:
    """``--compress``: the whole asset is in the binary layer, and not only its header."""
    pytest.importorskip("pxr.Usd")
    mesh, colours, finish = ball
    write_asset(tmp_path / "a.usdz", mesh, colours, "a ball", {}, FileOptions(finish=finish, compress=True))
    assert zipfile.ZipFile(tmp_path / "a.usdz").namelist() == ["asset.usdc", "texture.png", "finish.png"]
    check_usdz(tmp_path / "a.usdz")


@pytest.mark.parametrize("kind", CHECKS)
def test_coarser_versions_have_a_finish_of_their_own(ball, tmp_path: Path, kind: str) -> None:
    mesh, colours, finish = ball
    written = write_lods(tmp_path / f"a.{kind}", mesh, colours, 2, "a ball", FileOptions(finish=finish))
    assert len(written) == 2
    for _, files in written:
        CHECKS[kind](next(file for file in files if file.suffix == f".{kind}"))


def test_a_finish_lies_beside_other_maps(ball, tmp_path: Path) -> None:
    """All pictures of a material at once, each under its own name."""
    mesh, colours, finish = ball
    relief = Relief(np.full((64, 64, 3), (128, 128, 255), np.uint8), np.full((64, 64), 255, np.uint8))
    for kind in ("obj", "usdz"):
        write_asset(tmp_path / f"a.{kind}", mesh, colours, "x", {}, FileOptions(finish=finish), relief)
        CHECKS[kind](tmp_path / f"a.{kind}")
    pictures = ["a-metal.png", "a-normals.png", "a-occlusion.png", "a-roughness.png", "a.png"]
    assert sorted(p.name for p in tmp_path.glob("*.png")) == pictures
    assert {"map_Bump", "norm", "map_Pr", "map_Pm", "map_Kd"} <= set(obj_maps(tmp_path / "a.obj")[0])
    names = zipfile.ZipFile(tmp_path / "a.usdz").namelist()
    assert names == ["asset.usda", "texture.png", "finish.png", "normals.jpg", "occlusion.jpg"]


def test_a_matte_asset_is_matte_in_every_format(ball, tmp_path: Path) -> None:
    shade, usd = pytest.importorskip("pxr.UsdShade"), pytest.importorskip("pxr.Usd")
    for kind in ("obj", "usdz"):
        write_asset(tmp_path / f"a.{kind}", *ball[:2], "x", {})
    said, _ = obj_maps(tmp_path / "a.obj")
    assert (float(said["Pr"]), float(said["Pm"])) == (0.9, 0) and not {"map_Pr", "map_Pm"} & set(said)
    stage = usd.Stage.Open(str(tmp_path / "a.usdz"))
    surface = shade.Shader(stage.GetPrimAtPath("/Asset/Material/Surface"))
    assert surface.GetInput("roughness").Get() == pytest.approx(0.9) and surface.GetInput("metallic").Get() == 0
    assert not surface.GetInput("roughness").HasConnectedSource()


def test_export_gives_coarser_versions_the_finish_of_a_run(tmp_path: Path) -> None:
    given = MESH | {"scene.material": "pbr", "export.faces": "600", "export.texture_size": "128", "export.fit": False}
    generate(config=resolve("balanced", given, "a ball"), out=tmp_path / "run", prior=GrayBallPrior())
    out = ["--lods", "1", "--format", "glb,obj", "--out", str(tmp_path / "made")]
    assert main(["export", str(tmp_path / "run"), *out]) == 0
    whole, coarse = (Asset.load(tmp_path / "made" / f"asset{k}.glb").finish for k in ("", "_lod1"))
    assert whole is not None and coarse is not None and (whole[..., 0] == 255).all()
    assert np.abs(whole.mean((0, 1)) - coarse.mean((0, 1))).max() < 8 and coarse[..., 1].mean() > 100
    for name in ("asset", "asset_lod1"):
        assert "map_Pr" in obj_maps(tmp_path / "made" / f"{name}.obj")[0]
