"""The wide prior's models: reading GLB files, the reviewed tables, and how the data set is built from them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "prior"))

import build_dataset
import card
import models as tables
from dataset import SHAPES_A_NAME
from glb import ModelError, load_glb, srgb
from models import (
    CAP,
    CATEGORIES,
    LICENCES,
    MODEL_COLUMNS,
    NAME_COLUMNS,
    TableError,
    attribution,
    check_folder,
    generals,
    instances,
    read_models,
    read_names,
    spread,
)
from render import RADIUS, Part
from vocabulary import MODELS

TOOLS = Path(__file__).parents[1] / "tools" / "prior"


def glb(mesh: trimesh.Trimesh, matrix: np.ndarray | None = None) -> bytes:
    """A mesh as a GLB file."""
    scene = trimesh.Scene()
    scene.add_geometry(mesh, transform=np.eye(4) if matrix is None else matrix)
    return scene.export(file_type="glb")


def points(parts: list[Part]) -> np.ndarray:
    """All corners (N, 3) of all parts."""
    return np.concatenate([p.vertices[:, :3] for p in parts])


def arrow() -> trimesh.Trimesh:
    """A box with a small one in front of it, on +Z."""
    nose = trimesh.creation.box((0.2, 0.2, 1.0))
    nose.apply_translation((0, 0, 1.5))
    return trimesh.util.concatenate([trimesh.creation.box((1.0, 1.0, 2.0)), nose])


def test_a_model_is_normalised_into_the_unit_sphere() -> None:
    mesh = trimesh.creation.box((1.0, 2.0, 4.0))
    mesh.apply_translation((10, -3, 7))
    xyz = points(load_glb(glb(mesh)))
    np.testing.assert_allclose((xyz.min(0) + xyz.max(0)) / 2, 0, atol=1e-6)
    assert np.linalg.norm(xyz, axis=1).max() == pytest.approx(RADIUS, abs=1e-6)
    size = xyz.max(0) - xyz.min(0)
    np.testing.assert_allclose(size / size[0], (1, 2, 4), rtol=1e-5)


@pytest.mark.parametrize(("turn", "axis", "sign"), [(0, 2, 1), (90, 0, 1), (-90, 0, -1), (180, 2, -1)])
def test_a_turn_of_90_brings_the_front_from_z_to_x(turn: float, axis: int, sign: int) -> None:
    xyz = points(load_glb(glb(arrow()), turn))
    along = sign * xyz[:, axis]
    tip = xyz[along > along.max() - 1e-3]
    rest = np.delete(tip, axis, axis=1)
    assert np.abs(rest).max() < 0.2 * along.max(), "the thin nose is there"


def test_nodes_place_their_meshes_and_normals_turn_with_them() -> None:
    matrix = trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0))
    upright = load_glb(glb(trimesh.creation.box((1.0, 1.0, 4.0)), matrix))
    size = points(upright).max(0) - points(upright).min(0)
    assert size.argmax() == 1
    normals, xyz = (np.concatenate([p.vertices[:, k : k + 3] for p in upright]) for k in (3, 0))
    assert (np.einsum("ij,ij->i", normals, xyz) > 0).all(), "they point outwards"
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)


def test_base_colours_are_linear_in_the_file_and_become_display_values() -> None:
    mesh = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=(0.5, 0.0, 1.0, 1.0))
    mesh.visual = trimesh.visual.TextureVisuals(material=material)
    (part,) = load_glb(glb(mesh))
    assert part.image is None and part.colours is None
    written = np.round(np.array([0.5, 0.0, 1.0]) * 255) / 255  # trimesh keeps bytes
    np.testing.assert_allclose(part.diffuse, srgb(written.astype(np.float32)), atol=0.01)


def test_vertex_colours_are_read() -> None:
    mesh = trimesh.creation.box()
    mesh.visual.vertex_colors = np.tile([255, 0, 0, 255], (len(mesh.vertices), 1))
    (part,) = load_glb(glb(mesh))
    assert part.colours is not None and part.colours.shape == (len(part.vertices), 3)
    np.testing.assert_allclose(part.colours, np.tile([1, 0, 0], (len(part.vertices), 1)), atol=1e-6)


def test_a_texture_is_read_with_its_rows_the_right_way_up() -> None:
    mesh = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False)
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2] = (255, 0, 0)  # the upper half is red
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(pixels))
    mesh.visual = trimesh.visual.TextureVisuals(uv=[[0, 0], [1, 0], [1, 1], [0, 1]], material=material)
    (part,) = load_glb(glb(mesh))
    assert part.image is not None and part.image.size == (4, 4) and part.image.getpixel((0, 0))[:3] == (255, 0, 0)
    high = part.vertices[part.vertices[:, 1] > 0]
    np.testing.assert_allclose(high[:, 7], 1, atol=1e-6)


def test_clear_glass_is_left_out() -> None:
    glass = trimesh.visual.material.PBRMaterial(baseColorFactor=(1.0, 1.0, 1.0, 0.1), alphaMode="BLEND")
    outer, inner = trimesh.creation.box((2, 2, 2)), trimesh.creation.icosphere()
    outer.visual = trimesh.visual.TextureVisuals(material=glass)
    scene = trimesh.Scene([outer, inner])
    assert sum(len(p.vertices) for p in load_glb(scene.export(file_type="glb"))) == 3 * len(inner.faces)


def broken_files() -> dict[str, bytes]:
    """Files that are no models, by what is wrong with them."""
    good = glb(trimesh.creation.box())
    return {
        "not a GLB file": b"solid cube",
        "cut off": good[: len(good) // 2],
        "JSON": good[:20] + b"!" + good[21:],
        "no triangles": _empty(),
    }


def _empty() -> bytes:
    """A GLB file without a mesh."""
    text = json.dumps({"asset": {"version": "2.0"}, "scenes": [{"nodes": []}], "scene": 0}).encode()
    text += b" " * (-len(text) % 4)
    head = len(text).to_bytes(4, "little") + b"JSON"
    return b"glTF" + (2).to_bytes(4, "little") + (20 + len(text)).to_bytes(4, "little") + head + text


@pytest.mark.parametrize("what", list(broken_files()))
def test_what_does_not_parse_is_said_in_one_line(what: str) -> None:
    with pytest.raises(ModelError, match=what) as caught:
        load_glb(broken_files()[what])
    assert "\n" not in str(caught.value)


# The tables


def test_the_tables_are_large_and_consistent() -> None:
    models, names = read_models(), read_names()
    shown = instances(models, names)
    phrases = len(names) + sum(len(n.synonyms) for n in names.values())
    assert len(names) >= 1200 and phrases >= 2000
    assert sum(len(found) >= 3 for found in shown.values()) >= 200
    assert max(map(len, shown.values())) == CAP
    assert {n.category for n in names.values()} == set(CATEGORIES)
    assert {m.licence for m in models} <= set(LICENCES) and all(m.maker and m.commit for m in models)
    assert set(MODELS) <= set(names), "the catalogue's names stay"
    of_file = {m.file: m.name for m in models}
    assert all(of_file[key] == name for name, key in MODELS.items())
    assert all(shown[name][0].file == key for name, key in MODELS.items()), "and show their names first"
    assert all(abs(m.turn_deg) in (0, 90, 180) for m in models)


def test_a_general_name_shows_its_kinds_too() -> None:
    models, names = read_models(), read_names()
    assert generals("snowy pine tree", names) == ["pine tree", "tree"]
    shown = instances(models, names)
    assert {m.name for m in shown["tree"]} > {"tree", "pine tree"}
    assert [m.name for m in shown["tree"]].count("tree") == CAP // 2
    assert shown == instances(models, names), "the choice is the same every time"


def test_spread_takes_one_of_each_group_in_turn() -> None:
    assert spread([[1, 2, 3], [10], [20, 21]], 5) == [1, 10, 20, 2, 21]
    assert spread([[1], [2]], 9) == [1, 2]


MODEL = ("a.glb", "dragon", "", "", "CC0-1.0", "somebody", "some/where", "0123abc", "a.glb")
NAME = ("dragon", "animal", "", "yes", "drake", "")


def table(path: Path, columns: tuple[str, ...], *rows: tuple[str, ...]) -> Path:
    """Write a table."""
    path.write_text("\n".join("\t".join(row) for row in (columns, *rows)) + "\n")
    return path


def changed(row: tuple[str, ...], columns: tuple[str, ...], **values: str) -> tuple[str, ...]:
    """A line with other values in some columns."""
    return tuple(values.get(c, x) for c, x in zip(columns, row, strict=True))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([MODEL, MODEL], "line 3: a.glb is there twice"),
        ([changed(MODEL, MODEL_COLUMNS, licence="GPL")], "line 2: licence 'GPL' is none of"),
        ([changed(MODEL, MODEL_COLUMNS, drop="broken")], "a name or a reason to drop a.glb, and not both"),
        ([changed(MODEL, MODEL_COLUMNS, name="")], "a name or a reason to drop a.glb, and not both"),
        ([changed(MODEL, MODEL_COLUMNS, turn="left")], "turn 'left' is not a number"),
        ([MODEL[:-1]], "line 2: 8 columns instead of 9"),
    ],
)
def test_bad_lines_of_the_models(tmp_path: Path, rows: list[tuple[str, ...]], said: str) -> None:
    with pytest.raises(TableError, match=said):
        read_models(table(tmp_path / "models.tsv", MODEL_COLUMNS, *rows))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([NAME, NAME], "line 3: 'dragon' means 'dragon' already"),
        ([NAME, changed(NAME, NAME_COLUMNS, name="lizard")], "line 3: 'drake' means 'dragon' already"),
        ([changed(NAME, NAME_COLUMNS, category="beast")], "category 'beast' is none of"),
        ([changed(NAME, NAME_COLUMNS, kind="reptile")], "of the kind 'reptile', which is not a name"),
        ([changed(NAME, NAME_COLUMNS, kind="dragon")], "go round in a circle"),
        ([changed(NAME, NAME_COLUMNS, front="maybe")], "front is 'yes' or 'no'"),
        ([changed(NAME, NAME_COLUMNS, name="Dragon")], "not a phrase in lower case"),
        ([changed(NAME, NAME_COLUMNS, plain="lizards")], "'lizards' is neither the name nor a synonym"),
    ],
)
def test_bad_lines_of_the_names(tmp_path: Path, rows: list[tuple[str, ...]], said: str) -> None:
    with pytest.raises(TableError, match=said):
        read_names(table(tmp_path / "names.tsv", NAME_COLUMNS, *rows))


def test_names_without_models_and_models_without_names(tmp_path: Path) -> None:
    models = read_models(table(tmp_path / "models.tsv", MODEL_COLUMNS, MODEL))
    names = read_names(table(tmp_path / "names.tsv", NAME_COLUMNS, NAME, ("orc", "people", "", "yes", "", "")))
    with pytest.raises(TableError, match="no model shows 'orc'"):
        instances(models, names)
    with pytest.raises(TableError, match=r"a.glb is a 'dragon', which names.tsv lacks"):
        instances(models, {})


def test_attribution_names_every_maker_who_asks_for_it() -> None:
    kept = [m for m in read_models() if m.name]
    text = attribution(kept)
    assert all(f"{m.name} ({m.maker})" in text for m in kept if m.licence.startswith("CC-BY"))
    assert all(m.repository in text for m in kept)


def test_card_and_notice_name_the_drawn_models(tmp_path: Path) -> None:
    assert card.drawn_models(tmp_path) == [], "the data may be of the catalogue's names alone"
    (tmp_path / "instances.json").write_text(
        json.dumps({"dog": ["dog", "3460_dog"], "fire truck": ["2547_fire_truck"]})
    )
    drawn = card.drawn_models(tmp_path)
    assert {m.file for m in drawn} == {"3460_dog.glb", "2547_fire_truck.glb", MODELS["dog"]}
    text = card.notice(drawn)
    assert "CC BY 3.0: Nathan Koenig, Open Source Robotics Foundation, Scopia." in text and "Quaternius" not in text
    assert text.startswith((TOOLS.parents[1] / "NOTICE").read_text()[:120]), "it begins as it does now"
    every = card.notice([m for m in read_models() if m.name])
    assert all(m.maker in " ".join(every.split()) for m in read_models() if m.name and m.licence.startswith("CC-BY"))


# Building


@pytest.fixture
def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one model, and tables that know it alone."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "a.glb").write_bytes(glb(arrow()))
    rows = table(tmp_path / "models.tsv", MODEL_COLUMNS, MODEL)
    names = table(tmp_path / "names.tsv", NAME_COLUMNS, NAME)
    monkeypatch.setattr(build_dataset, "read_models", lambda: read_models(rows))
    monkeypatch.setattr(build_dataset, "read_names", lambda: read_names(names))
    return folder


def fails(folder: Path, out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What ``build_dataset.py --models`` says when it ends with 2."""
    monkeypatch.setattr(sys, "argv", ["build_dataset", "--out", str(out), "--models", str(folder)])
    with pytest.raises(SystemExit) as caught:
        build_dataset.main()
    assert caught.value.code == 2 and not list(out.glob("*"))
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("what", ["empty", "broken", "unknown", "missing", "index"])
def test_bad_folders_end_in_one_line(
    what: str, wide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {
        "empty": "no .glb files",
        "broken": "a.glb: not a GLB file",
        "unknown": "models.tsv lacks b.glb",
        "missing": "lacks a.glb, which models.tsv names",
        "index": "a.glb is from somewhere else",
    }
    if what in ("empty", "missing"):
        (wide / "a.glb").rename(wide / ("b.txt" if what == "empty" else "b.glb"))
    if what == "broken":
        (wide / "a.glb").write_bytes(b"nothing")
    if what == "unknown":
        (wide / "b.glb").write_bytes(b"")
    if what == "index":
        (wide / "index.tsv").write_text("file\trepository\tcommit\tpath\na.glb\tsome/where/else\t0123abc\ta.glb\n")
    assert said[what] in fails(wide, tmp_path / "out", capsys, monkeypatch)


def test_a_small_set_needs_its_own_files_alone(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names by list or by file, with models and from the catalogue alone."""
    rows = (MODEL, changed(MODEL, MODEL_COLUMNS, file="b.glb", name="orc"))
    rows += (changed(MODEL, MODEL_COLUMNS, file="S#7", name="orc", repository=tables.DEBIAN),)
    models = table(tmp_path / "models.tsv", MODEL_COLUMNS, *rows)
    names = table(tmp_path / "names.tsv", NAME_COLUMNS, NAME, ("orc", "people", "", "yes", "", ""))
    monkeypatch.setattr(build_dataset, "read_models", lambda: read_models(models))
    monkeypatch.setattr(build_dataset, "read_names", lambda: read_names(names))
    with pytest.raises(TableError, match=r"lacks b.glb"):
        build_dataset.prepare_wide(wide, tmp_path)
    (tmp_path / "some.txt").write_text("dragon\n\ndragon\n")
    for asked in ("dragon", str(tmp_path / "some.txt")):
        assert [m.file for m in build_dataset.prepare_wide(wide, tmp_path, asked)] == ["a.glb"]
        assert json.loads((tmp_path / "instances.json").read_text()) == {"dragon": ["a"]}
    assert [m.file for m in build_dataset.prepare_wide(None, tmp_path, "orc")] == ["S#7"]
    assert json.loads((tmp_path / "instances.json").read_text()) == {"orc": ["S_7"]}
    for asked, said in (
        ("dragon,orc", "no model of the catalogue shows 'dragon'"),
        ("drago", "'drago' is not in names.tsv (did you mean 'dragon'?)"),
        (" , ", "has no names"),
    ):
        with pytest.raises(TableError, match=re.escape(said)):
            build_dataset.prepare_wide(None, tmp_path, asked)


def test_jobs_are_the_same_every_time_and_leave_the_catalogue_to_its_names(wide: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    drawn = build_dataset.prepare_wide(wide, out)
    assert json.loads((out / "instances.json").read_text()) == {"dragon": ["a"]}
    (job,) = build_dataset.wide_jobs(wide, tmp_path, out, 4, 1, drawn)
    assert (job.file, Path(job.target).name, job.views) == ("a.glb", "a.1.npz", 4)
    assert (job,) == tuple(build_dataset.wide_jobs(wide, tmp_path, out, 4, 1, drawn))
    narrow = build_dataset.narrow_jobs(tmp_path, out, 4, 0)
    assert Path(narrow[1].target).name == "office_chair.0.npz"
    every = [m for m in tables.read_models() if not m.is_glb]
    assert not {j.file for j in build_dataset.wide_jobs(wide, tmp_path, out, 4, 0, every)} & set(MODELS.values())


class _Painter:
    """Stands for the renderer: draws nothing, and may be interrupted."""

    stop = False

    def load(self, parts: list[Part]) -> None:
        assert points(parts).shape[1] == 3

    def draw(self, *camera: float) -> np.ndarray:
        if self.stop:
            raise KeyboardInterrupt
        return np.zeros((5, 64, 64), np.uint8)


def test_a_file_appears_whole_or_not_at_all(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painter = _Painter()
    monkeypatch.setattr(build_dataset, "_renderer", painter, raising=False)
    target = tmp_path / "a.0.npz"
    job = build_dataset.Job(str(wide), "a.glb", 0.0, str(target), (1, 0), 3)
    painter.stop = True
    with pytest.raises(KeyboardInterrupt):
        build_dataset.draw(job)
    assert not list(tmp_path.glob("*a.0.npz*"))
    painter.stop = False
    real = np.savez

    def interrupted(file: object, **arrays: np.ndarray) -> None:
        real(file, **arrays)
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_dataset.draw(job)
    assert not list(tmp_path.glob("*a.0.npz*"))
    monkeypatch.setattr(np, "savez", real)
    build_dataset.draw(job)
    with np.load(target) as stored:
        assert stored["pixels"].shape == (3, 5, 64, 64) and stored["cameras"].dtype == np.float32
    painter.stop = True
    assert build_dataset.draw(job) == "a.0.npz", "what is done is not drawn again"


@pytest.mark.parametrize("crashes", [1, 99])
def test_a_process_that_dies_is_replaced_once(crashes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [crashes]

    class Pool:
        """Draws in this process; the first ones die."""

        def __init__(self, *_: object, **__: object): ...
        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *_: object) -> None: ...
        def shutdown(self, **_: object) -> None: ...
        def map(self, draw: object, jobs: list[build_dataset.Job]) -> Iterator[str]:
            for job in jobs:
                if job.file == "b.glb" and left[0]:
                    left[0] -= 1
                    raise BrokenProcessPool("dead")
                Path(job.target).touch()
                yield job.file

    monkeypatch.setattr(build_dataset, "ProcessPoolExecutor", Pool)
    jobs = [build_dataset.Job("", f"{n}.glb", 0.0, str(tmp_path / n), (0, 0), 1) for n in "abc"]
    if crashes == 1:
        build_dataset.draw_all(jobs, 1)
        assert {p.name for p in tmp_path.iterdir()} == set("abc")
    else:
        with pytest.raises(ModelError, match=r"b\.glb: the process that draws it dies"):
            build_dataset.draw_all(jobs, 1)


def test_what_a_killed_build_left_is_swept_away(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for name in (f".a.0.npz.{dead.pid}.tmp", f".b.0.npz.{os.getpid()}.tmp", "c.0.npz"):
        (tmp_path / name).write_bytes(b"half")
    build_dataset.sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {f".b.0.npz.{os.getpid()}.tmp", "c.0.npz"}


def test_the_page_has_the_tables_numbers() -> None:
    models, names = read_models(), read_names()
    shown = instances(models, names)
    page = (TOOLS.parents[1] / "docs" / "training-the-prior.md").read_text()
    for text in (
        f"has {len(names):,} names ({len(names) + sum(len(n.synonyms) for n in names.values()):,} phrases",
        f"the {len(models):,} models",
        f"{sum(len(v) >= 3 for v in shown.values())} names have\nthree or more models",
        f"{sum(len(v) == 1 for v in shown.values())} have one",
        f"name are drawn, {len({m.file for v in shown.values() for m in v[:SHAPES_A_NAME]}):,} models",
        f"**Dropped**: {sum(bool(m.drop) for m in models)} models",
        f"{sum(n.front for n in names.values())} of the names have a front",
    ):
        assert text in page, text
    for model in models:
        assert not model.is_glb or (f"[{model.repository}]" in page and f"`{model.commit}`" in page)


def test_the_command_draws_a_model(tmp_path: Path) -> None:
    pytest.importorskip("moderngl")
    from render import Renderer

    try:
        renderer = Renderer(64)
    except Exception as error:
        pytest.skip(f"no off-screen OpenGL: {error}")
    mesh = arrow()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=(1.0, 0.0, 0.0, 1.0))
    mesh.visual = trimesh.visual.TextureVisuals(material=material)
    renderer.load(load_glb(glb(mesh)))
    front, side = renderer.draw(0, 0, 2.5), renderer.draw(90, 0, 2.5)
    assert (side[3] > 0).sum() > 1.5 * (front[3] > 0).sum()
    inside = side[:, 32, 30]
    assert inside[0] > 240 and inside[1] < 15 and inside[3] == 255
    help_text = subprocess.run(
        [sys.executable, str(TOOLS / "build_dataset.py"), "--help"],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    assert "--models DIR" in help_text.stdout


def test_check_folder_takes_its_own_table(wide: Path) -> None:
    check_folder(wide, build_dataset.read_models())
