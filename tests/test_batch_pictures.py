"""From where a worker's pictures look, and how often, while somebody turns the object."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dreamfusion.batch import live_pictures
from dreamfusion.batch import worker as serving


def test_pictures_look_from_where_somebody_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Around the object by itself; from one side, and more often, while somebody turns it."""
    looked: list[tuple[float, float]] = []
    monkeypatch.setattr(
        serving, "picture_of", lambda scene, azimuth, elevation, size: looked.append((azimuth, elevation)) or ""
    )
    clock = [0.0]
    for module in (serving, live_pictures):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    gaze = serving.Gaze()
    monkeypatch.setattr(gaze, "moved", lambda patience: False)
    telling = serving.Telling(lambda message: None, every=1.0, live=8, gaze=gaze)

    def steps(count: int) -> list[tuple[float, float]]:
        looked.clear()
        for _ in range(count):
            clock[0] += 0.25
            now = SimpleNamespace(step=1, steps=9, seconds=clock[0], metrics={}, scene=object(), glimpse=None)
            telling.step(now)  # type: ignore[arg-type]
        return list(looked)

    assert steps(8) == [(0.0, 15.0), (20.0, 15.0)]
    gaze.turn((-70.0, 40.0))
    assert steps(7) == [(-70.0, 40.0)] * 7  # each step for a while
    assert steps(8) == [(-70.0, 40.0)] * 2  # it stays there
    gaze.turn(None)
    assert steps(1) == [(40.0, 15.0)]


def test_pictures_follow_the_mouse_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller ones, until they have taken as long as the step before them, or the mouse rests."""
    clock, looked, sent = [0.0], [], []
    gaze = serving.Gaze()

    def draw(scene: object, azimuth: float, elevation: float, size: int) -> str:
        clock[0] += 0.1
        looked.append((azimuth, size))
        return "drawn"

    monkeypatch.setattr(serving, "picture_of", draw)
    for module in (serving, live_pictures):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    telling = serving.Telling(sent.append, every=1.0, live=160, gaze=gaze)

    def step(mouse: list[float]) -> list[tuple[float, int]]:
        """A second of work, then as many moves of the mouse as are looked for."""
        looked.clear()
        clock[0] += 1.0
        moves = iter(mouse)
        gaze.turn((next(moves), 15.0))
        news = lambda patience: (at := next(moves, None)) is not None and gaze.turn((at, 15.0)) is None  # noqa: E731
        monkeypatch.setattr(gaze, "moved", news)
        now = SimpleNamespace(step=1, steps=9, seconds=clock[0], metrics={}, scene=object(), glimpse=None)
        telling.step(now)  # type: ignore[arg-type]
        return list(looked)

    assert step([1.0, 2.0, 3.0]) == [(1.0, 128), (2.0, 128), (3.0, 128)]
    assert [message["picture"] for message in sent] == ["drawn"] * 3 and {m["step"] for m in sent} == {1}
    assert [azimuth for azimuth, _ in step([float(k) for k in range(50)])] == list(range(10))


def test_a_move_of_the_mouse_is_news_once() -> None:
    gaze = live_pictures.Gaze()
    assert not gaze.moved(0)
    gaze.turn((3.0, 15.0))
    assert gaze.moved(0) and gaze.next() == (3.0, 15.0) and not gaze.moved(0)
    gaze.turn(None)
    assert not gaze.moved(0)
