"""Pictures as prompts, as benchmarks/images.py measures them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dreamfusion.errors import UserError
from dreamfusion.loading import load_prior
from dreamfusion.reference import read_reference

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def paths(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("benchmarks", "tools"):
        monkeypatch.syspath_prepend(str(ROOT / folder))


def views(path: Path) -> None:
    """Twelve views of a red square in the middle, fully lit on its left half; the first is from too high."""
    pixels = np.zeros((12, 6, 64, 64), np.uint8)
    pixels[:, 0, 16:48, 16:48] = pixels[:, 3, 16:48, 16:48] = 255
    pixels[:, 4, 16:48, 16:32] = 255
    cameras = np.array([[30 * k, 80 if k == 0 else 10, 47, 2.5] for k in range(12)], np.float32)
    np.savez(path, pixels=pixels, cameras=cameras)


def test_a_view_becomes_a_lit_picture_and_its_albedo_the_truth(tmp_path: Path) -> None:
    from images import NOVEL, Truth

    views(tmp_path / "box.0.npz")
    truth = Truth.read(tmp_path / "box.0.npz")
    assert len(truth.cameras) == 1 + NOVEL
    assert torch.rad2deg(truth.cameras.azimuth[0]).item() == pytest.approx(30)  # not that from above
    picture = np.asarray(truth.picture())
    assert picture[32, 20].tolist() == [255, 0, 0, 255] and picture[32, 40].tolist() == [
        128,
        0,
        0,
        255,
    ]  # half is ambient
    assert picture[2, 2, 3] == 0
    seen = truth.over_gray()
    assert seen.shape == (1 + NOVEL, 3, 64, 64)
    assert seen[0, :, 32, 40].tolist() == [1, 0, 0] and seen[0, :, 2, 2].tolist() == [0.5, 0.5, 0.5]


def test_psnr_is_that_of_the_mean_squared_error() -> None:
    from images import psnr

    wanted = torch.zeros(2, 3, 4, 4)
    found = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 0.01)])
    assert psnr(found, wanted) == pytest.approx((20 + 40) / 2)


def test_things_come_from_all_over_the_vocabulary_and_a_wrong_folder_is_one_line(tmp_path: Path) -> None:
    from images import choose

    with pytest.raises(UserError, match=r"has no instances.json; tools/clip/draw.py writes it"):
        choose(tmp_path, ["a"], 1)
    (tmp_path / "instances.json").write_text(json.dumps({n: [f"0_{n}", f"1_{n}"] for n in "abcdef"}))
    for name in "abdef":
        views(tmp_path / f"0_{name}.0.npz")
    assert choose(tmp_path, list("fedcba"), 2) == {"a": "0_a", "d": "0_d"}
    with pytest.raises(UserError, match="has views of 5 names, --things asks for 6"):
        choose(tmp_path, list("abcdef"), 6)


@pytest.mark.usefixtures("few_guesses")
def test_a_drawing_is_recognised_or_not(tmp_path: Path) -> None:
    from drawings import THINGS, drawing
    from images import meant, recognised

    prior: Any = load_prior("bundled")
    assert all(name in prior.vocabulary for name in THINGS)
    drawing("mug").save(tmp_path / "mug.png")
    picture = read_reference(tmp_path / "mug.png")
    assert picture.shape == (4, 128, 128)
    found = recognised(prior, "mug", picture)
    assert found["right"] and found["share"] > 0.5 and "mug (" in found["said"] and "sure, seen from" in found["said"]
    other = recognised(prior, "house", picture)
    assert other["said"] == found["said"] and not other["right"] and other["share"] == 0
    from dreamfusion.view.cameras import orbit_cameras

    seen = meant(prior, picture, orbit_cameras([0.0, 180.0]))
    cover = (seen - 0.5).abs().amax(1) > 0.02
    assert seen.shape == (2, 3, 64, 64) and 0 <= seen.min() and seen.max() <= 1
    assert 0.02 < cover.float().mean() < 0.9


def test_the_summary_and_the_page_say_what_the_records_say() -> None:
    from images import summary
    from page.images import images

    row = {"right": True, "turned_by": 4.0, "psnr_prior": 24.0, "psnr_gray": 10.0, "cpu_seconds": 60.0}
    things = {"a": row | {"psnr": 22.0}, "b": row | {"psnr": 18.0, "right": False}}
    unmade = {"right": True, "turned_by": 9.0}
    assert summary({"a": unmade})["assets"] == 0 and summary({**things, "c": unmade})["psnr"]["value"] == 20
    found = summary(things)
    assert (
        found["assets"] == 2
        and found["right"]["value"] == 0.5
        and found["psnr"]["value"] == 20
        and found["psnr_right"]["value"] == 22
    )
    origin = {"commit": "abc", "date": "2026-01-02", "machine": "a machine", "novel": 8}
    drawings = {"mug": {"right": True, "said": "a mug"}, "star": {"right": False, "said": "a coin"}}
    said = "\n".join(images({"summary": found, "drawings": drawings, **origin}))
    assert "| 50.0 % (9 to 91) |" in said and "| 20.0 dB (18.0 to 22.0) |" in said
    assert "1 of 2 drawings are recognised" in said
    bare = "\n".join(images({"summary": summary({"a": unmade}), "drawings": drawings, **origin}))
    assert "No asset of theirs is measured yet." in bare and "PSNR" not in bare
    assert "No result is kept yet." in "\n".join(images(None))
