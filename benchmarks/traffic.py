"""What a run sends and keeps: bytes of a served prior's questions, of checkpoints and of a run's folder, and the paper model of many
nodes that follows from them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from dreamfusion import generate
from dreamfusion.batch.ray_crew import HEARTBEATS, MESSAGES
from dreamfusion.loading import load_prior
from dreamfusion.priors.prior import Prior
from dreamfusion.priors.prior_client import PriorClient
from dreamfusion.priors.served_prior import ServedPrior
from dreamfusion.priors.wire import Message, pack, unpack
from dreamfusion.run import CHECKPOINT
from dreamfusion.serving.prior_desk import Desk
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer

STEPS = 3
HTTP_BYTES = 400
"""About what the headers of a request and its reply take."""


class Counting(PriorClient):
    """Asks a desk in this process, and counts the messages and their bytes by what is asked."""

    def __init__(self, desk: Desk):
        super().__init__("ray://")
        self.desk = desk
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()

    def ask(self, message: Message) -> Message:
        data = pack(message)
        (reply,) = self.desk.answer([data])
        what = message["do"]
        self.messages[what] += 1
        self.sent[what] += len(data)
        self.received[what] += len(reply.body)
        return unpack(reply.body)


def question_bytes(preset: str, **settings: Any) -> dict[str, float]:
    """Per step of a preset with a served bundled prior: messages, and bytes to and from the server without HTTP; and once per run,
    the bytes of all else (words, captions)."""
    prior = load_prior("bundled")
    assert isinstance(prior, Prior)
    client = Counting(Desk(prior))
    trainer = Trainer(
        resolve(preset, {"threads": 1} | settings, "a red armchair"), ServedPrior("ray://", client=client)
    )
    begin = {name: sum(counter.values()) for name, counter in _counters(client).items()}
    for _ in range(STEPS):
        trainer.step()
    end = {name: sum(counter.values()) for name, counter in _counters(client).items()}
    return {f"{name}_per_step": (end[name] - begin[name]) / STEPS for name in end} | {
        "bytes_once": begin["sent"] + begin["received"]
    }


def _counters(client: Counting) -> dict[str, Counter[str]]:
    return {"messages": client.messages, "sent": client.sent, "received": client.received}


def folder_bytes(preset: str, place: Path, **settings: Any) -> dict[str, float]:
    """Bytes of a checkpoint, which has the same size at every step, and of all files of a run's folder."""
    place.parent.mkdir(parents=True, exist_ok=True)
    asset = place / "asset.glb"
    if not asset.exists():
        generate("a red armchair", preset, out=place, steps=STEPS, threads=1, **settings)
    kept = sum(path.stat().st_size for path in (place / CHECKPOINT).iterdir())
    every = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    return {"checkpoint": kept, "folder": every}


def model(figures: dict[str, float], run: dict[str, float], nodes: int, runs_each: int) -> dict[str, float]:
    """What so many nodes ask of what they share, each with so many runs at a time.

    figures: those of a preset. run: {steps, seconds_per_step, checkpoint_seconds}. Bytes a second: ``storage`` to the shared folder (a
    checkpoint every so often and one at the end, and the run's other files), ``prior`` to and from a prior that all share.
    ``messages``: a second, to the driver of the batch.
    """
    runs = nodes * runs_each
    seconds = run["steps"] * run["seconds_per_step"]
    checkpoints = 1 + int(seconds // run["checkpoint_seconds"])
    kept = checkpoints * figures["checkpoint"] + figures["folder"] - figures["checkpoint"]
    moved = figures["sent_per_step"] + figures["received_per_step"] + HTTP_BYTES * figures["messages_per_step"]
    return {
        "runs": runs,
        "assets_per_hour": 3600 * runs / seconds,
        "storage": runs * kept / seconds,
        "prior": runs * moved / run["seconds_per_step"],
        "questions_per_second": runs * figures["messages_per_step"] / run["seconds_per_step"],
        "messages": min(MESSAGES, 2 * runs) + min(HEARTBEATS, runs),
    }
