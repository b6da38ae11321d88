"""Batches on a Ray cluster: nodes may die, and the assets are those of undisturbed runs."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamfusion import cli
from dreamfusion.batch import crew, ray_crew
from dreamfusion.batch.jobs import Job
from dreamfusion.errors import UserError
from tests.faults import environment
from tests.test_batch import LINES, OFTEN, command, made, undisturbed, worker

STEPS = 40
ROOT = Path(__file__).parents[1]


def here(folder: Path, patch: pytest.MonkeyPatch, wait: float = 0.0) -> None:
    """Work in a folder, with a prior that waits before each answer."""
    patch.chdir(folder)
    for name, value in environment().items():
        patch.setenv(name, value)
    patch.setattr(crew, "WORKER", worker(wait))
    Path("p.txt").write_text(LINES)


def test_without_ray_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here(tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main([*command(), "--ray", "auto"]) == 2
    said = capsys.readouterr().err
    assert said == "dreamfusion: error: Ray is not installed; install it with: pip install 'dreamfusion[batch]'\n"
    for address in ("ray://head:10001", "head", ""):
        assert cli.main([*command(), "--ray", address]) == 2
        assert "HOST:PORT" in capsys.readouterr().err
    assert not Path("set").exists()


def test_places_are_counted_by_what_is_scarce() -> None:
    def node(cpus: float, memory_mb: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
        return {"Alive": alive, "Resources": {"CPU": cpus, "memory": memory_mb * 1e6, "GPU": gpus}}

    nodes = [node(8, 1e5), node(8, 4000), node(0, 1e5), node(8, 1e5, alive=False)]
    assert ray_crew.places(nodes, 1, 0) == 8 + 2
    assert ray_crew.places(nodes, 3, 0) == 2 + 2
    assert ray_crew.places(nodes, 1, 1) == 0
    assert ray_crew.places([*nodes, node(8, 1e5, 2)], 1, 1) == 2
    assert ray_crew.places(nodes, 9, 0) == 0


def test_a_node_says_what_keeps_it_out(tmp_path: Path) -> None:
    from dreamfusion import __version__

    (tmp_path / "mark").touch()
    site = ray_crew.Site(str(tmp_path), "mark", __version__, {})
    assert site.trouble() == ""
    other = ray_crew.Site(str(tmp_path / "elsewhere"), "mark", __version__, {})
    assert "put --out into a folder that all nodes share" in other.trouble()
    assert list(ray_crew.make_on_node(other, (), {})) == [{"error": other.trouble(), "kind": "node"}]
    assert "and the batch is of 0.0" in ray_crew.Site(str(tmp_path), "mark", "0.0", {}).trouble()


def test_all_cores_of_a_node_are_not_asked_for(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="say how many"),
        ray_crew.ray_crew("local", [Job(tmp_path, "x", settings={"threads": "0"})], 0, tmp_path),
    ):
        pass


def test_what_ray_says_is_cut_short() -> None:
    assert ray_crew._first_line(RuntimeError("\n The node is dead. See the logs.\nline 2")) == "The node is dead"
    assert ray_crew._first_line(RuntimeError()) == "RuntimeError"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes with a CPU each."""
    pytest.importorskip("ray", reason="Ray is not installed (the extra 'batch')")
    from dreamfusion.ray_cluster import simulated

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
        patch.setenv("OMP_NUM_THREADS", "1")
        with simulated(2) as found:
            yield found


def when(condition: Any, act: Any) -> threading.Thread:
    """Do something once, as soon as a condition holds."""

    def wait() -> None:
        until = time.monotonic() + 900
        while not condition() and time.monotonic() < until:
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_a_stopped_batch_and_a_node_that_dies(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """First a Ctrl-C, then the same command, during which a node is killed."""
    import signal

    here(tmp_path, monkeypatch, wait=0.1)
    asked = [*command(STEPS, **OFTEN), "--ray", cluster.address]
    checkpoints = lambda: len(list(Path("set").glob("*/checkpoint/checkpoint.json")))  # noqa: E731
    stopper = when(lambda: checkpoints() >= 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert cli.main(asked) == 128 + signal.SIGINT
    stopper.join()
    assert "the same command goes on" in capfd.readouterr().err
    assert not list(Path("set").glob("*/asset.glb"))
    before = {path: path.read_bytes() for path in Path("set").glob("*/checkpoint/checkpoint.json")}

    (victim,) = cluster.worker_nodes
    killer = when(
        lambda: sum(path.read_bytes() != data for path, data in before.items() if path.exists()) >= 2,
        lambda: cluster.remove_node(victim, allow_graceful=False),
    )
    code = cli.main(asked)
    said = capfd.readouterr().err
    killer.join()
    assert code == 0, said
    assert "was lost" in said and "it will be tried again" in said
    assert said.count(": made in") == 3  # none twice
    assert made() == undisturbed(tmp_path / "alone", STEPS)
    assert not list(Path("set").glob(".shared-*")) and not list(Path("set").glob("workers*.log"))
