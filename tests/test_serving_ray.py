"""A prior behind Ray Serve: runs that ask it together make the assets of runs that have their own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from dreamfusion import cli
from dreamfusion.errors import UserError
from dreamfusion.priors.served_prior import ServedPrior
from dreamfusion.priors.wire import Message
from dreamfusion.ray_cluster import free_ports
from dreamfusion.serving.prior_server import Replica, Serving, token_for
from tests.faults import environment
from tests.test_priors_served import noise_message, wire


def test_a_replica_wants_its_token_and_tells_its_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    wrong = Replica(Serving("bundlde", token="secret"))
    assert wrong.admits("Bearer secret") and not wrong.admits("Bearer secre") and not wrong.admits("")
    ((status, body),) = asyncio.run(wrong.together([b"x"]))
    assert status == 422 and b"did you mean 'bundled'" in body
    assert "served already" in Replica(Serving("ray://")).trouble
    assert "every run can load its own" in Replica(Serving("guide")).trouble
    monkeypatch.setenv("DREAMFUSION_PRIOR_TOKEN", "mine")
    assert token_for("127.0.0.1") == "" and token_for("0.0.0.0") == "mine"
    monkeypatch.delenv("DREAMFUSION_PRIOR_TOKEN")
    assert len(token_for("0.0.0.0")) > 20


@pytest.mark.parametrize(
    "words", [["--batch", "0"], ["--memory", "more"], ["--port", "0"], ["--ray", "there"], ["--timeout", "500"]]
)
def test_options_that_are_not_allowed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve-prior", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_port_that_is_taken_is_said_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (the extra 'batch')")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve-prior", "--port", str(port)]) == 2
    assert f"cannot listen at 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_ask_together(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (the extra 'batch')")
    (port,) = free_ports(1)
    words = ["serve-prior", "--port", str(port), "--wait-ms", "300", "--batch", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dreamfusion", *words], env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert f"--prior.id ray://127.0.0.1:{port}" in process.stdout.readline()
        from dreamfusion.loading import load_prior

        own, served = load_prior("bundled"), ServedPrior(f"ray://127.0.0.1:{port}")
        assert served.hash == own.hash
        messages = [noise_message(own, seed) for seed in range(2)]  # type: ignore[arg-type]
        found: dict[int, torch.Tensor] = {}

        def ask(k: int) -> None:
            found[k] = served.client.ask(messages[k]).tensors["answer0"]

        threads = [threading.Thread(target=ask, args=(k,)) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = served.client.ask(Message({"do": "counts", "version": messages[0]["version"], "sha256": ""}, {})).page
        assert counts["together"] == {"2": 1} and counts["occupancy"] == 2
        for k, message in enumerate(messages):
            question = wire.read_question(message["question"], message, torch.device("cpu"))
            alone = own.predict_noise(message.tensor("x"), message.tensor("t"), question, [question.words])[0]  # type: ignore[union-attr]
            assert torch.allclose(found[k], alone, atol=1e-4)
        with pytest.raises(UserError, match="malformed"):
            served.client.ask(Message(messages[0].page | {"about": 3}, messages[0].tensors))
    finally:
        process.terminate()
        process.wait(120)
    assert process.returncode == 128 + 15
