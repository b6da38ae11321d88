"""What all tests share: one thread for each worker, and a finished run that nobody changes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # workers have a core each; before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny run. Copy it before anything is written into it."""
    from tests.faults import made_run

    return made_run(tmp_path_factory.mktemp("made") / "made")


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No embeddings from elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMFUSION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def no_previews() -> Iterator[None]:
    """Runs write no previews, which cost more than a few steps."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("generation", "loop"):
            patch.setattr(f"dreamfusion.{module}.write_preview", lambda *_, **__: None)
        yield


@pytest.fixture(scope="session")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion in a folder. Copy it before anything is changed."""
    pytest.importorskip("diffusers")
    from tests.tiny_pipelines import save

    return save("sd", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def no_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept anywhere yet, and nobody has been warned. ``tmp`` and ``xdg`` in ``tmp_path`` are the usual places."""
    import numba

    from dreamfusion.kernels import caching

    monkeypatch.setattr(caching, "WARNED", set())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.delenv("DREAMFUSION_CACHE", raising=False)
    (tmp_path / "tmp").mkdir()


@pytest.fixture(scope="module")
def few_hypotheses() -> Iterator[None]:
    """Let the bundled prior draw little to choose among, for questions whose answer that hardly touches."""
    from dreamfusion.priors import hypotheses, inference

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hypotheses, "ELEVATIONS_DEG", (0.0, 30.0))
        patch.setattr(inference, "POOL", 12)
        yield


@pytest.fixture
def few_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bundled prior look closely at few shapes before it recognises a picture, where the right one is plain."""
    from dreamfusion.priors import recognition

    monkeypatch.setattr(recognition, "SHAPES", 8)
    monkeypatch.setattr(recognition, "SCANNED", 4)


@pytest.fixture
def few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the sides of a thing with two shapes of its name, for questions that are not about which shape it is."""
    from dreamfusion.evaluation import facing

    meant = facing.shapes_meant
    monkeypatch.setattr(facing, "shapes_meant", lambda prompt: meant(prompt)[:2])


@pytest.fixture(scope="session")
def shared(made_once: Path) -> Iterator[Path]:
    """Everything in it can be read by all but what its name says."""
    from tests.faults import open_to_all

    with open_to_all() as folder:
        shutil.copytree(made_once, folder / "made")
        shutil.copytree(made_once, folder / "locked" / "in")
        for suffix in (".yaml", ".safetensors", ".txt", ".json"):
            (folder / "locked" / f"in{suffix}").write_text("x")
            (folder / f"unreadable{suffix}").write_text("x")
            (folder / f"unreadable{suffix}").chmod(0)
        (folder / "unreadable").mkdir(mode=0)
        for name in ("page", "checkpoint", "meta", "tensors", "log"):
            shutil.copytree(made_once, folder / name).chmod(0o777)
        (folder / "page" / "run.yaml").chmod(0)
        (folder / "checkpoint" / "checkpoint").chmod(0)
        (folder / "meta" / "checkpoint" / "checkpoint.json").chmod(0)
        (tensors,) = (folder / "tensors" / "checkpoint").glob("*.safetensors")
        tensors.chmod(0)
        (folder / "log" / "metrics.jsonl").chmod(0)
        (folder / "locked").chmod(0)
        yield folder
        (folder / "locked").chmod(0o700)


@pytest.fixture(scope="session", autouse=True)
def small_previews() -> Iterator[None]:
    """A run's previews are small: else they cost many times what its few steps do."""
    from dreamfusion.export import turntable

    drawn = turntable.preview_sheet
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turntable, "preview_sheet", lambda scene, size, views: drawn(scene, min(size, 8), 1))
        yield
