"""Whoever stops a run, and however: a checkpoint with all steps done is there. And what a run's upkeep may cost."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dreamfusion import Progress, Stopped, generate, loop
from dreamfusion.export.turntable import SHEET_SIZE
from dreamfusion.loop import PREVIEW_SHARE, PROBE_SIZE, Keeper, keep
from dreamfusion.run import Run
from dreamfusion.settings.config import RunSettings
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from tests.fakes import SMALL, GrayBallPrior

CONFIG = resolve("balanced", SMALL, "a ball")


@pytest.fixture(autouse=True)
def no_previews(monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamfusion import generation

    for module in (loop, generation):
        monkeypatch.setattr(module, "write_preview", lambda *_, **__: None)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run.create(tmp_path / "run", CONFIG)
    made.write_config(GrayBallPrior.id, GrayBallPrior.hash)
    return made


@pytest.fixture(scope="module")
def straight() -> dict[int, dict[str, torch.Tensor]]:
    """The state after each step of a run that nobody stopped."""
    trainer = Trainer(CONFIG, GrayBallPrior())
    return {p.step: {k: v.clone() for k, v in trainer.state()[0].items()} for p in trainer.steps()}


def is_saved(run: Run, step: int, straight: dict[int, dict[str, torch.Tensor]]) -> bool:
    tensors, meta = Run.open(run.path).load_checkpoint(resumable=True)
    expected = straight[step]
    steps = [entry["step"] for entry in run.read_log()]
    same = tensors.keys() == expected.keys() and all(torch.equal(tensors[k], expected[k]) for k in tensors)
    return same and meta["step"] == step and steps == list(range(1, step + 1))


def test_a_loop_that_is_left_by_break_has_saved_all_its_steps(run: Run, straight: Any) -> None:
    for progress in keep(Trainer(CONFIG, GrayBallPrior()), run):
        if progress.step == 3:
            break
    gc.collect()
    assert is_saved(run, 3, straight)


def test_an_exception_in_the_loop_leaves_a_checkpoint_and_goes_on_up(run: Run, straight: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        for progress in (steps := keep(Trainer(CONFIG, GrayBallPrior()), run)):
            if progress.step == 4:
                raise ZeroDivisionError
    assert not (run.path / "checkpoint").exists(), "an iterator that is kept is not left yet"
    steps.close()
    assert is_saved(run, 4, straight)


def test_an_exception_that_is_thrown_in_leaves_a_checkpoint(run: Run, straight: Any) -> None:
    steps = keep(Trainer(CONFIG, GrayBallPrior()), run)
    next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)
    assert is_saved(run, 1, straight)


def test_closing_leaves_a_checkpoint_and_closing_at_the_ends_does_no_harm(run: Run, straight: Any) -> None:
    steps = keep(Trainer(CONFIG, GrayBallPrior()), run)
    steps.close()
    assert not (run.path / "checkpoint").exists(), "nothing was done"
    trainer = Trainer(CONFIG, GrayBallPrior())
    steps = keep(trainer, run)
    next(steps), next(steps)
    steps.close()
    steps.close()
    assert is_saved(run, 2, straight)
    again = Trainer(CONFIG, GrayBallPrior())
    again.restore(*run.load_checkpoint(resumable=True))
    assert [p.step for p in keep(again, run)] == [3, 4, 5, 6]
    assert is_saved(run, 6, straight)
    saved = sorted(p.name for p in (run.path / "checkpoint").iterdir())
    assert list(keep(again, run)) == [] and sorted(p.name for p in (run.path / "checkpoint").iterdir()) == saved


def test_what_a_callback_raises_ends_the_run_with_a_checkpoint(tmp_path: Path, straight: Any) -> None:
    def raise_at_third(progress: Progress) -> None:
        if progress.step == 3:
            raise ZeroDivisionError

    place = tmp_path / "run"
    with pytest.raises(ZeroDivisionError):
        generate("a ball", out=place, prior=GrayBallPrior(), callbacks=[raise_at_third], **SMALL)
    assert is_saved(Run.open(place), 3, straight) and not (place / "asset.glb").exists()
    told: list[int] = []
    generate(resume=place, prior=GrayBallPrior(), callbacks=[lambda p: told.append(p.step)])
    assert told == [4, 5, 6] and is_saved(Run.open(place), 6, straight)


def test_a_stop_event_set_by_another_thread_ends_the_run_after_the_step(tmp_path: Path, straight: Any) -> None:
    stop, place = threading.Event(), tmp_path / "run"

    def ask_in_a_thread(progress: Progress) -> None:
        if progress.step == 2:
            other = threading.Thread(target=stop.set)
            other.start()
            other.join()

    with pytest.raises(Stopped, match=r"^stopped; resume with --resume .*run$") as caught:
        generate("a ball", out=place, prior=GrayBallPrior(), callbacks=[ask_in_a_thread], stop=stop, **SMALL)
    assert caught.value.folder == place and is_saved(Run.open(place), 2, straight)
    with pytest.raises(Stopped):
        generate(resume=place, prior=GrayBallPrior(), stop=stop)
    assert is_saved(Run.open(place), 3, straight), "the step in progress is done"
    stop.clear()
    generate(resume=place, prior=GrayBallPrior(), stop=stop)
    assert is_saved(Run.open(place), 6, straight) and (place / "asset.glb").is_file()


def test_a_stop_during_the_last_step_stops_nothing(tmp_path: Path) -> None:
    stop = threading.Event()

    def ask_at_the_end(progress: Progress) -> None:
        if progress.step == progress.steps:
            stop.set()

    asset = generate("a ball", prior=GrayBallPrior(), callbacks=[ask_at_the_end], stop=stop, **SMALL)
    assert len(asset.mesh.faces) > 0


def test_a_run_without_a_folder_can_be_stopped_too() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped, match=r"^stopped$") as caught:
        generate("a ball", prior=GrayBallPrior(), stop=stop, **SMALL)
    assert caught.value.folder is None


def test_generate_works_in_a_thread_and_leaves_signals_alone(tmp_path: Path) -> None:
    import signal

    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    seen: list[Any] = []

    def work() -> None:
        def look(_: Progress) -> None:
            seen.append([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)])

        generate("a ball", out=tmp_path / "run", prior=GrayBallPrior(), callbacks=[look], **SMALL | {"steps": 1})

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before] and (tmp_path / "run/asset.glb").is_file()


class Clock:
    """A time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Work:
    """A trainer whose steps take a second of the clock."""

    def __init__(self, clock: Clock, steps: int, **settings: float):
        self.clock, self.total, self.done = clock, steps, 0
        self.config = SimpleNamespace(run=RunSettings(**settings))
        self.scene = object()

    @property
    def stage(self) -> Any:
        return SimpleNamespace(finished=self.done == self.total)

    def steps(self) -> Iterator[Progress]:
        while self.done < self.total:
            self.done += 1
            self.clock.now += 1
            yield Progress(self.done, self.total, {"step": self.done}, self.done)  # type: ignore[arg-type]

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
        return {}, {"step": self.done}


class Folder:
    """Remembers when it was written to."""

    def __init__(self, clock: Clock):
        self.clock, self.path = clock, Path("nowhere")
        self.logged: list[int] = []
        self.saved: list[int] = []

    def log(self, metrics: Any) -> None:
        self.logged.append(metrics["step"])

    def save_checkpoint(self, tensors: Any, meta: Any) -> None:
        self.saved.append(meta["step"])


@pytest.mark.parametrize("cost", [0.001, 2.0, 40.0])
def test_previews_take_no_more_than_their_share_of_the_time(cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """``cost``: seconds of a usual preview. After the small first one, they never add up to more than 2 %."""
    clock, taken = Clock(), []
    monkeypatch.setattr(loop, "time", clock)

    def write(path: Path, scene: object, views: int, size: int) -> None:
        seconds = cost * (size / SHEET_SIZE) ** 2
        clock.now += seconds
        taken.append((clock.now - 1000, size, seconds, path.name, views))

    monkeypatch.setattr(loop, "write_preview", write)
    for _ in keep(Work(clock, 4000, preview_seconds=20), Folder(clock)):  # type: ignore[arg-type]
        pass
    sizes = [size for _, size, *_ in taken]
    assert sizes[0] == PROBE_SIZE and set(sizes[1:]) == {SHEET_SIZE}
    assert {name for *_, name, _ in taken} == {"preview.png"} and {views for *_, views in taken} == {4}
    spent = 0.0
    for when, _, seconds, *_ in taken:
        spent += seconds
        assert spent <= PREVIEW_SHARE * when or seconds == taken[0][2]
    assert min(later - earlier for (earlier, *_), (later, *_) in pairwise(taken)) >= 20
    if cost < 0.1:
        assert len(taken) > 0.9 * 4000 / 21, "cheap ones come as often as the setting says"
    else:
        limit = PREVIEW_SHARE * (clock.now - 1000)
        assert spent <= limit < spent + cost + 1, "dear ones come as often as they may"


def test_checkpoints_and_the_log_come_when_it_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)
    folder = Folder(clock)
    for progress in keep(Work(clock, 100, checkpoint_seconds=30, preview_seconds=1e9), folder):  # type: ignore[arg-type]
        assert progress.step - len(folder.logged) <= 1 + loop.LOG_SECONDS
    assert folder.saved == [31, 62, 93, 100] and folder.logged == list(range(1, 101))


def test_the_log_is_written_before_its_checkpoint(run: Run) -> None:
    """A run that is killed between the two has the lines of all steps that its checkpoint holds."""
    keeper = Keeper(trainer := Trainer(CONFIG, GrayBallPrior()), run)
    monkey: list[int] = []
    save = run.save_checkpoint

    def look(tensors: Any, meta: Any) -> None:
        monkey.append(len((run.path / "metrics.jsonl").read_text().splitlines()))
        save(tensors, meta)

    run.save_checkpoint = look  # type: ignore[method-assign]
    for progress in trainer.steps():
        keeper.after(progress)
    assert monkey == [6]
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6] and all(line["seconds"] > 0 for line in lines)
