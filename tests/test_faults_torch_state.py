"""Whatever state torch is in: the same asset to the bit, and the same state afterwards."""

from __future__ import annotations

import os
import random
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dreamfusion import Asset, UserError, generate, load_prior
from dreamfusion.export.turntable import preview_sheet, turntable
from dreamfusion.recorded import load_scene
from dreamfusion.run import Run
from dreamfusion.samples import sample_around
from dreamfusion.scene.mlp import MlpField
from dreamfusion.settings.presets import resolve
from dreamfusion.torch_state import kept_random, own_torch, plain_torch
from dreamfusion.trainer import Trainer
from dreamfusion.view.cameras import orbit_cameras
from dreamfusion.view.view import orbit_view
from tests.fakes import GrayBallPrior
from tests.faults import FILM, TINY, use

FAST = TINY | {"scene.fast": True}
"""The compiled renderer: it takes the types of what it is given as they are."""
MLP = TINY | {"scene.kind": "mlp", "scene.hidden": 16, "scene.depth": 2, "scene.fast": True}
del MLP["scene.levels"]
FILMED: Any = FILM | {"export.maps": "auto"}
PRIOR = GrayBallPrior()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def precision(name: str) -> Iterator[None]:
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextmanager
def deterministic(warn_only: bool) -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def grad_disabled() -> Iterator[None]:
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(before)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "set_grad_enabled": grad_disabled,
    "inference_mode": torch.inference_mode,
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "meta": lambda: default_device("meta"),
    "with meta": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "medium precision": lambda: precision("medium"),
    "deterministic": lambda: deterministic(False),
    "deterministic, warning": lambda: deterministic(True),
    "anomalies": lambda: torch.autograd.detect_anomaly(False),
}


def state() -> tuple[Any, ...]:
    """Everything that a caller may have set."""
    return (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(),
        str(torch.get_default_device()), torch.is_autocast_enabled("cpu"), torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled(), torch.get_num_threads(),
        torch.random.default_generator.get_state().numpy().tobytes(), random.getstate(), str(np.random.get_state()),  # noqa: NPY002
    )  # fmt: skip


def made(settings: dict[str, Any] = FAST, **more: Any) -> Asset:
    return generate("a ball", prior=PRIOR, **settings, **more)


def same(one: Asset, other: Asset) -> bool:
    meshes = np.array_equal(one.mesh.vertices, other.mesh.vertices) and np.array_equal(one.mesh.faces, other.mesh.faces)
    return meshes and np.array_equal(one.texture, other.texture)


@pytest.fixture(scope="module")
def plain() -> Asset:
    return made()


@pytest.fixture(scope="module")
def plain_mlp() -> Asset:
    return made(MLP)


@dataclass(frozen=True)
class Recorded:
    """A recorded run of a plain state, and what is made of it."""

    folder: Path
    colour: torch.Tensor
    asset: Asset
    sheet: np.ndarray


def looked_at(folder: Path, film: Path) -> Recorded:
    """Load a run; draw, export and film its scene."""
    scene, config = load_scene(Run.open(folder))
    drawn = scene.render(orbit_view(orbit_cameras([0, 90]), 8)).colour
    asset, sheet = Asset.from_scene(scene, config.export), preview_sheet(scene, 8, 1)
    turntable(film, scene, frames=2, size=16)
    return Recorded(folder, drawn, asset, sheet)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    place = tmp_path_factory.mktemp("recorded")
    made(FAST | FILMED, out=place / "plain")
    return looked_at(place / "plain", place / "film")


@pytest.mark.parametrize("name", STATES)
def test_the_same_asset_and_the_same_state(name: str, plain: Asset) -> None:
    with warnings.catch_warnings(action="ignore"), STATES[name]():  # anomalies and their speed
        before = state()
        asset = made()
        assert state() == before
    assert same(asset, plain)


@pytest.mark.parametrize("name", ["inference_mode", "float64", "with meta"])
def test_the_same_asset_of_an_mlp(name: str, plain_mlp: Asset) -> None:
    with STATES[name]():
        before = state()
        asset = made(MLP)
        assert state() == before
    assert same(asset, plain_mlp)


@pytest.mark.parametrize("name", ["inference_mode", "float64", "meta", "autocast"])
def test_a_recorded_run_and_what_is_made_of_it(
    name: str, recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(PRIOR, monkeypatch)
    with STATES[name]():
        before = state()
        made(FAST | FILMED, out=tmp_path / "run")
        generate(resume=tmp_path / "run", prior=PRIOR)
        found = looked_at(tmp_path / "run", tmp_path / "film")
        assert state() == before
    folders = recorded.folder, found.folder
    checkpoints = [next((folder / "checkpoint").glob("*.safetensors")).name for folder in folders]
    assert checkpoints[0] == checkpoints[1], "named after the SHA-256 of its tensors"
    for file in ("asset.glb", "preview.png", "turntable.gif", "turntable.mp4"):
        assert len({(folder / file).read_bytes() for folder in folders}) == 1, file
    assert found.colour.dtype == torch.float32 and torch.equal(found.colour, recorded.colour)
    assert same(found.asset, recorded.asset) and np.array_equal(found.sheet, recorded.sheet)


@pytest.mark.parametrize(
    "name", ["float64", "with meta", *(pytest.param(n, marks=pytest.mark.slow) for n in ("inference_mode", "autocast"))]
)
@pytest.mark.usefixtures("few_hypotheses")
def test_the_bundled_prior(name: str) -> None:
    def look() -> torch.Tensor:
        return sample_around(load_prior("bundled", "cpu"), "a red cup", views=1, seed=3)

    with STATES[name]():
        before = state()
        drawn = look()
        assert state() == before
    assert drawn.dtype == torch.float32 and torch.equal(drawn, sampled_once(look))


SAMPLED: list[torch.Tensor] = []


def sampled_once(look: Callable[[], torch.Tensor]) -> torch.Tensor:
    if not SAMPLED:
        SAMPLED.append(look())
    return SAMPLED[0]


def test_a_callback_sees_its_own_state() -> None:
    seen = []
    with torch.inference_mode(), default_dtype(torch.float64):
        made(callbacks=[lambda _: seen.append((torch.is_inference_mode_enabled(), torch.get_default_dtype()))])
    assert seen == [(True, torch.float64)] * 2


def test_a_loop_of_ones_own() -> None:
    config = resolve("balanced", FAST, "a ball")
    with torch.no_grad(), default_dtype(torch.float64):
        trainer = Trainer(config, PRIOR)
        for _ in trainer.steps():
            assert torch.zeros(1).dtype == torch.float64 and not torch.is_grad_enabled()
        tensors, meta = trainer.state()
        trainer.restore(tensors, meta)
    other = Trainer(config, PRIOR)
    for _ in other.steps():
        pass
    assert all(torch.equal(value, other.state()[0][name]) for name, value in tensors.items())


def test_the_caller_decides_on_gradients_of_a_rendering() -> None:
    scene = Trainer(resolve("balanced", FAST, "a ball"), PRIOR).scene
    view = orbit_view(orbit_cameras([0]), 8)
    assert scene.render(view).colour.requires_grad
    with torch.no_grad():
        assert not scene.render(view).colour.requires_grad


def test_state_is_put_back_after_an_exception() -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    with torch.inference_mode(), default_dtype(torch.float64):
        before = state()
        with pytest.raises(ZeroDivisionError):
            made(callbacks=[fail])
        with pytest.raises(UserError):
            load_prior("nowhere")
        assert state() == before


@pytest.mark.parametrize(("asked", "found"), [(0, 1), (0, 3), (1, 2), (2, 1), (2, 2)])
def test_the_thread_count_is_put_back(found: int, asked: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(found)
    seen: list[int] = []
    try:
        made(FAST | {"threads": asked, "steps": 1}, callbacks=[lambda _: seen.append(torch.get_num_threads())])
        assert torch.get_num_threads() == found
        assert seen == [asked or len(os.sched_getaffinity(0))]
    finally:
        torch.set_num_threads(before)


def test_networks_draw_nothing_from_the_global_streams() -> None:
    before = state()
    with kept_random():
        MlpField(resolve("balanced", MLP, "a ball").scene, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    assert state() == before
    torch.manual_seed(1)
    one = made()
    torch.manual_seed(2)
    assert same(one, made()), "nor do they depend on them"


def test_threads_that_overlap_put_the_shared_state_back_once() -> None:
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with own_torch():
            inside.set()
            leave.wait()

    with default_dtype(torch.float64):
        other = threading.Thread(target=work)
        other.start()
        inside.wait()
        with plain_torch():
            assert torch.get_default_dtype() == torch.float32
        assert torch.get_default_dtype() == torch.float32, "the other thread still needs it"
        leave.set()
        other.join()
        assert torch.get_default_dtype() == torch.float64


def test_nothing_is_changed_where_nothing_has_to_be() -> None:
    before = state()
    with plain_torch(), nullcontext():
        assert state() == before
    with own_torch():
        assert state() == before
