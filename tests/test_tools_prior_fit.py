"""Shapes that are learned from single rays of the drawn views: hulls, rays, a ball from beginning to packed weights."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from tests.views_of_a_ball import COLOUR, MIDDLE, RADIUS, cameras_around, views_of_a_ball

sys.path.insert(0, str(Path(__file__).parents[1] / "tools" / "prior"))

import unseen
from carve import hull
from dataset import Data, DataError, choose_left_out, left_out_of, own_names
from fit import fit, load_layout, main, rays_through
from looks import Look, held_out
from models import read_names, stem_of
from pack import pack, packed_planes
from rays import LookedUp, plainly_looked_up
from report import Item, errors_of, nearest_rows, ranks_of

from dreamfusion.loading import load_prior
from dreamfusion.priors.appearance import FACTORS, PROPORTIONS
from dreamfusion.priors.bundled_prior import BundledPrior
from dreamfusion.priors.layout import COVER, Layout, Sizes
from dreamfusion.priors.planes import HULL, looked_up
from dreamfusion.priors.question import Question
from dreamfusion.view.cameras import CONDITION_FOV_DEG, Cameras
from dreamfusion.view.view import orbit_view

SHOWN = {"armchair": ["armchair"], "office chair": ["office_chair"], "chair": ["armchair", "office_chair"]}
TOOLS = Path(__file__).parents[1] / "tools" / "prior"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shapes, both of them balls, and three names for them."""
    folder, camera = tmp_path_factory.mktemp("data"), cameras_around(32)
    stored = torch.cat([camera[:, :2].rad2deg(), camera[:, 2:]], 1).numpy()
    for name in ("armchair", "office_chair"):
        np.savez(folder / f"{name}.0.npz", pixels=views_of_a_ball(camera), cameras=stored)
    (folder / "instances.json").write_text(json.dumps(SHOWN))
    return folder


def arguments(data: Path, run: Path, rounds: int, **others: Any) -> argparse.Namespace:
    usual = {"init": None, "batch": 2, "rays": 192, "views": 8, "lr": 3e-2, "seed": 0, "side": 32, "leave_out": 0}
    return argparse.Namespace(data=data, run=run, rounds=rounds, **usual | {"device": "cpu"} | others)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was stopped in the middle and went on."""
    folder = tmp_path_factory.mktemp("run")
    fit(arguments(data, folder, 60))
    fit(arguments(data, folder, 350))
    return folder


def test_a_hull_holds_the_ball_and_little_more() -> None:
    camera = cameras_around()
    cells = hull(views_of_a_ball(camera), camera).view(HULL, HULL, HULL)
    line = (torch.arange(HULL) + 0.5) * (2 / HULL) - 1
    away = (torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1) - MIDDLE).norm(dim=-1)
    assert cells[away < RADIUS].all()
    assert cells[away > RADIUS + 0.2].float().mean() < 0.01


def test_rays_are_the_cameras_own() -> None:
    camera, g = cameras_around()[:5], torch.Generator().manual_seed(1)
    pixel = torch.randint(4096, (5,), generator=g)
    origin, towards, near, spacing, longer = rays_through(camera, pixel)
    azimuth, elevation, distance = camera.unbind(-1)
    cameras = Cameras(azimuth, elevation, distance, torch.full_like(distance, CONDITION_FOV_DEG).deg2rad())
    expected = cameras.rays(64)[1].flatten(1, 2)[torch.arange(5), pixel]
    torch.testing.assert_close(towards, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(origin, cameras.positions())
    torch.testing.assert_close(-(towards * cameras.axes()[2]).sum(-1) * longer, torch.ones(5))
    hits = spacing > 0
    torch.testing.assert_close((origin + towards * near[:, None]).norm(dim=-1)[hits], torch.ones(int(hits.sum())))


def test_looking_up_has_the_gradient_of_grid_sample() -> None:
    """Value and gradient against PyTorch's bilinear sampling, whose rows and columns are the planes' axes."""
    g = torch.Generator().manual_seed(0)
    planes = torch.randn(2, 3, 16, 16, 8, generator=g).requires_grad_(True)
    points, shape = torch.rand(300, 3, generator=g) * 2.2 - 1.1, torch.randint(2, (300,), generator=g)
    grid = torch.stack([points[:, [0, 1]], points[:, [2, 1]], points[:, [0, 2]]])[:, :, None]
    both = [F.grid_sample(p.permute(0, 3, 1, 2), grid, align_corners=False)[..., 0] for p in planes]
    expected = torch.stack(both)[shape, :, :, torch.arange(300)].flatten(1)
    found = LookedUp.apply(planes, points, shape)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    plain = plainly_looked_up(planes, points, shape)  # what another device than the CPU computes
    torch.testing.assert_close(plain, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(looked_up(planes[1], points)[shape == 1], expected[shape == 1], rtol=0, atol=1e-5)
    up = torch.randn(300, 24, generator=g)
    ours, plain, theirs = (torch.autograd.grad(x, planes, up)[0] for x in (found, plain, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    torch.testing.assert_close(plain, theirs, rtol=0, atol=1e-4)


def test_a_ball_is_learned_from_its_rays(run: Path) -> None:
    """Outline, colour and light from a camera that was not trained on."""
    layout = load_layout(run / "layout.safetensors")
    camera = torch.tensor([[0.7, 0.2, 2.45]])
    met = layout.meet(layout.thing(torch.tensor([0.0, 1.0])), camera)[0]
    seen = torch.from_numpy(views_of_a_ball(camera)[0]).float() / 255
    assert (met[COVER] - seen[3]).square().mean() < 0.01 < seen[3].var()
    inside = F.max_pool2d(-seen[None, 3:4], 5, 1, 2)[0, 0] < -0.99
    assert inside.sum() > 100
    torch.testing.assert_close(met[:3, inside].mean(1), torch.tensor(COLOUR), rtol=0, atol=0.03)
    shading = 0.5 + 0.5 * met[COVER + 1]
    assert (shading - seen[4])[inside].abs().mean() < 0.05


def test_a_training_that_went_on_counts_on(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "layout.jsonl").read_text().splitlines()]
    assert [line["seen"] for line in lines] == [200, 400, 600]
    stored = load_file(run / "layout.safetensors")
    assert int(stored["step"]) == 350 and int(stored["adam.step.8"]) == 350


def test_views_of_the_check_are_never_trained_on_and_looks_are_held_out(data: Path) -> None:
    found = Data(data)
    assert found.shapes == ["armchair", "office_chair"] and stem_of("BlendSwap-CC-0#86") == "armchair"
    for shape in (0, 1):
        assert len(found.validation[shape]) == 2 and len(found.rows[shape]) == 30
        assert not set(found.validation[shape]) & set(found.rows[shape])
    small = found.make(np.array([1]), [Look("red")], found.rows[1][:1], side=32)
    whole = found.make(np.array([1]), [Look()], found.rows[1][:1])
    torch.testing.assert_close(small.cover, F.avg_pool2d(whole.cover, 2))
    new = found.held_out_batch(20, 0, new_looks=True)
    assert torch.equal(new.look, found.held_out_batch(20, 0, new_looks=True).look)
    assert held_out("sofa", Look("red")) and (new.look.sum(1) > 0).all()


def test_packed_planes_are_within_half_a_step() -> None:
    planes = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.1], [1.0], [5.0]])
    packed, scale = packed_planes(planes)
    assert packed.dtype == torch.int8 and packed.abs().amax() <= 127
    error = (packed.float() * scale.float()[:, None] - planes).abs().amax(1)
    assert (error <= scale.float() * 0.52).all()


def test_packed_weights_draw_what_the_run_drew(data: Path, run: Path, tmp_path: Path) -> None:
    pack(run, data, tmp_path / "packed")
    prior = BundledPrior(tmp_path / "packed" / "bundled.safetensors")
    assert prior.names[:2] == ["armchair", "arm chair"] or "armchair" in prior.names
    camera = torch.tensor([[0.7, 0.2, 2.45]])
    azimuth, elevation, distance = camera.unbind(-1)
    cameras = Cameras(azimuth, elevation, distance, torch.full_like(distance, CONDITION_FOV_DEG).deg2rad())
    words = prior.embed(["a red armchair"])
    picture = prior.mean_picture(Question(words, orbit_view(cameras, 64), "camera"))
    layout = load_layout(run / "layout.safetensors")
    expected = layout.draw(layout.thing(words.shape[0]), words.look, camera, stretch=words.stretch[0])[:, :3]
    assert (picture - expected).abs().mean() < 0.01
    again = arguments(data, tmp_path / "again", 0)
    again.init = tmp_path / "packed" / "bundled.safetensors"
    fit(again)
    begun = load_layout(tmp_path / "again" / "layout.safetensors")
    assert torch.equal(begun.planes.weight, prior.layout.planes.weight.float())
    assert torch.equal(begun.point.weight, prior.layout.point.weight) and torch.equal(
        begun.name.weight, prior.layout.name.weight
    )


CHAIRS = {
    "armchair": ["armchair", "deck_chair"],
    "office chair": ["office_chair"],
    "chair": ["office_chair", "armchair"],
}


@pytest.fixture
def chairs(data: Path, tmp_path: Path) -> Path:
    """A third ball: two shapes of the armchair."""
    folder = tmp_path / "chairs"
    folder.mkdir()
    for stem, of in (("armchair", "armchair"), ("office_chair", "office_chair"), ("deck_chair", "armchair")):
        (folder / f"{stem}.0.npz").write_bytes((data / f"{of}.0.npz").read_bytes())
    (folder / "instances.json").write_text(json.dumps(CHAIRS))
    return folder


def test_a_small_prior_that_never_saw_a_shape_loads_as_any_other(chairs: Path, tmp_path: Path) -> None:
    """It begins with the readers of a prior that knows one name more."""
    init, run = tmp_path / "wide.safetensors", tmp_path / "run"
    wide = Layout(Sizes(4, 9, FACTORS, len(PROPORTIONS))).state_dict()
    planes = dict(zip(("planes.packed", "planes.scale"), packed_planes(wide.pop("planes.weight")), strict=True))
    save_file({f"layout.{key}": value for key, value in (wide | planes).items()}, init)
    init.with_suffix(".json").write_text(json.dumps({"vocabulary": {name: {} for name in ("sofa", *CHAIRS)}}))
    asked = {"side": 16, "leave_out": 1, "init": init}
    fit(arguments(chairs, run, 2, **asked))
    fit(arguments(chairs, run, 3, **asked))
    assert left_out_of(run) == {"armchair": "armchair"}, "the deck chair has a name of its own"
    pack(run, chairs, tmp_path / "packed")
    prior = load_prior(str(tmp_path / "packed" / "bundled.safetensors"))
    assert isinstance(prior, BundledPrior) and prior.layout.sizes == Sizes(3, 2, FACTORS, len(PROPORTIONS), 16)
    assert {name: entry["shapes"] for name, entry in prior.vocabulary.items()} == dict.fromkeys(CHAIRS, 1)
    torch.testing.assert_close(prior.layout.name.weight, wide["name.weight"][1:], rtol=0, atol=1e-3)
    assert prior.layout.shape_share(torch.eye(3)).tolist() == [[1, 0], [0, 1], [0, 1]], "of deck and office chair"
    with pytest.raises(DataError, match="has left out 1 shapes from its beginning"):
        fit(arguments(chairs, run, 3, **asked | {"leave_out": 0}))
    with pytest.raises(DataError, match="has planes of 16 squared"):
        fit(arguments(chairs, run, 3, **asked | {"side": 32}))
    init.with_suffix(".json").write_text(json.dumps({"vocabulary": {"sofa": {}, "chair": {}}}))
    with pytest.raises(DataError, match="cannot read 'armchair'"):
        fit(arguments(chairs, tmp_path / "other", 1, init=init))


def test_an_unseen_model_is_nearest_where_no_other_name_is_nearer(chairs: Path) -> None:
    """Pictures of a ball against the same ball in other colours and places."""
    data, names = Data(chairs), read_names()
    assert unseen.rivals_of(data, names, "armchair") == ["office chair"], "a chair may be an armchair"
    assert unseen.rivals_of(data, names, "office chair") == ["armchair"]
    items = unseen.choose(data, {"armchair": "deck_chair", "office chair": "office_chair"})
    assert [(i.name, data.shapes[i.shape]) for i in items[1:3]] == [
        ("armchair", "deck_chair"),
        ("office chair", "office_chair"),
    ]
    assert all(i.row in data.validation[i.shape] for i in items)
    errors = np.array([[9, 1, 2], [9, 3, 2], [1, 9, 2], [1, 9, 0]], float)  # of armchair, deck chair, office chair
    assert unseen.is_nearest_alone(data, names, items, errors).tolist() == [True, False, False, True]
    same = unseen.drawn(data, items, [i.shape for i in items], [i.row for i in items])
    found = errors_of(data, items, same)
    assert found.shape == (4, 3) and (found[range(4), [i.shape for i in items]] < 1e-9).all()
    assert (ranks_of(data, items, found) == 0).all()
    row = int(data.rows[0][5])
    assert data.cameras[nearest_rows(data, row)].tolist() == [data.cameras[row].tolist()] * 3


class Blind:
    """A judge that sees how red a picture is and reads whether a caption says 'office'."""

    def pictures(self, x: torch.Tensor) -> torch.Tensor:
        red = (x[:, 0] - x[:, 1]).mean((1, 2))
        return torch.stack([red, 0.1 - red], 1)

    def captions(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([[1.0, 0.0] if "office" in text else [0.0, 1.0] for text in texts])


def test_the_judge_may_prefer_more_general_names(chairs: Path) -> None:
    data = Data(chairs)
    items = [Item(name, Look("red"), 0, 0, False) for name in ("armchair", "office chair", "armchair")]
    gray, red = torch.full((3, 64, 64), 0.5), torch.stack([torch.ones(64, 64), *torch.zeros(2, 64, 64)])
    hits = unseen.is_judged(Blind(), data, read_names(), items, torch.stack([gray, red, red]))  # type: ignore[arg-type]
    assert hits.tolist() == [True, True, False]


def test_every_name_keeps_a_shape_and_loses_one_at_most() -> None:
    own = own_names()
    by_name: dict[str, list[str]] = {}
    for stem, name in own.items():
        by_name.setdefault(name, []).append(stem)
    shown = {name: by_name[name][:4] for name in ("apple", "barrel", "bowl", "cow", "teapot")}
    shown["food"] = [*shown["apple"][:1], *shown["cow"][:1]]
    out = choose_left_out(shown, own, 4)
    assert out == choose_left_out(shown, own, 4) and "teapot" not in out and "food" not in out
    assert all(own[stem] == name and stem in shown[name] for name, stem in out.items())
    assert all(len({*stems} & {*out.values()}) <= min(1, len(stems) - 1) for stems in shown.values())
    with pytest.raises(DataError, match="--leave-out 5 is too many: 4 names can spare a shape"):
        choose_left_out(shown, own, 5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--side", "2"), "fit: --side 2 is not allowed: 4 to 128"),
        (("--init", "nowhere.safetensors"), "fit: there is no file nowhere.safetensors to begin with"),
        (("--device", "abacus"), "fit: device 'abacus' cannot be used here"),
        (("--leave-out", "-1"), "fit: --leave-out -1 is not allowed: 0 or more"),
        (("--leave-out", "7"), "fit: --leave-out 7 is too many: 0 names can spare a shape"),
    ],
)
def test_options_that_cannot_be_used_end_in_one_line(
    data: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["fit.py", "--data", str(data), "--run", str(tmp_path / "run"), *words])
    with pytest.raises(SystemExit) as end:
        main()
    line = capfd.readouterr().err
    assert end.value.code == 2 and line.startswith(said) and line.count("\n") == 1


@pytest.mark.parametrize("broken", ["instances.json", "office_chair.0.npz"])
def test_missing_data_end_in_one_line(
    data: Path, tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in data.iterdir():
        if path.name != broken:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataError, match="build_dataset"):
        Data(tmp_path)
    words = [str(word) for word in (TOOLS / "fit.py", "--data", tmp_path, "--run", tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    said = capfd.readouterr().err
    assert end.value.code == 2 and said.startswith("fit: ") and said.count("\n") == 1
    if broken == "instances.json":  # so does a process of its own, which takes seconds to start
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (2, said)


def test_packing_half_a_run_writes_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fit\.py"):
        pack(tmp_path, data, tmp_path / "packed")
    assert not list((tmp_path / "packed").iterdir())
