"""Processes that are forked after torch has worked: the same asset, on one thread."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from typing import Any

import pytest
import torch

from dreamfusion import UserError, torch_state
from dreamfusion.settings.presets import resolve
from dreamfusion.torch_state import own_torch, threads
from dreamfusion.trainer import Trainer
from tests.faults import TINY
from tests.test_faults_torch_state import FAST, MLP, PRIOR, made


def in_a_child(queue: Any, settings: dict[str, Any]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asset = made(settings)
        made(settings)
    said = [str(w.message) for w in caught if "forked" in str(w.message)]
    queue.put((asset.mesh.vertices.tobytes(), asset.texture.tobytes(), said, torch.get_num_threads()))


@pytest.mark.parametrize("kind", ["grid", "mlp", "plain"])
def test_generate_works_in_a_forked_child_after_one_in_the_parent(kind: str) -> None:
    """The threads of OpenMP and of our pools are not in the child; it would wait for them for ever."""
    settings = {"grid": FAST, "mlp": MLP, "plain": TINY}[kind]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made(settings | {"threads": 2})
        torch.randn(512, 512) @ torch.randn(512, 512)
        fork = multiprocessing.get_context("fork")
        queue = fork.Queue()
        child = fork.Process(target=in_a_child, args=(queue, settings | {"threads": 2}))
        child.start()
        vertices, texture, said, count = queue.get(timeout=60)
        child.join(10)
    finally:
        torch.set_num_threads(before)
    alone = made(settings | {"threads": 1})
    assert vertices == alone.mesh.vertices.tobytes() and texture == alone.texture.tobytes()
    assert count == 1 and len(said) == 1 and "it works on one thread" in said[0] and "spawn" in said[0]


def test_a_trainer_of_the_parent_goes_on_in_a_child() -> None:
    config = resolve("balanced", FAST | {"threads": 2, "steps": 4}, "a ball")
    with threads(2):
        trainer = Trainer(config, PRIOR)
        trainer.step()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            trainer.step()
            os.write(write, b"done")
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        assert answer.read() == b"done"
    os.waitpid(child, 0)


def test_what_torch_refuses_in_a_forked_process_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, …"
    with pytest.raises(RuntimeError, match="re-initialize"), own_torch():
        raise RuntimeError(said)
    monkeypatch.setattr(torch_state._FORK, "happened", True)
    with pytest.raises(UserError, match="start it with multiprocessing's 'spawn' instead"), own_torch():
        raise RuntimeError(said)
