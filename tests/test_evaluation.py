"""Rankings, intervals, Janus and geometry against closed forms."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from dreamfusion.clip.clip import Clip
from dreamfusion.errors import UserError
from dreamfusion.evaluation import compare as compare_two
from dreamfusion.evaluation import geometry
from dreamfusion.evaluation.comparison import by_prompt
from dreamfusion.evaluation.comparison import table as comparison_table
from dreamfusion.evaluation.fronts import has_front, reviewed
from dreamfusion.evaluation.janus import VIEWS, front_belief, judge_ring, ring_belief
from dreamfusion.evaluation.judged_views import random_views, ring
from dreamfusion.evaluation.retrieval import check_judge, precision, ranks
from dreamfusion.evaluation.statistics import bootstrap, wilson
from dreamfusion.evaluation.summary import shown, summarise, table, value_of, with_ceiling
from dreamfusion.priors.bundled_prior import WEIGHTS
from dreamfusion.scene.field import RadianceField
from dreamfusion.scene.scene_settings import GridSettings
from dreamfusion.settings.config import Config
from dreamfusion.view.backdrops import Groups


def test_ranks_of_a_matrix_made_by_hand() -> None:
    similarity = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.3, 0.8], [0.7, 0.6, 0.1]])
    assert ranks(similarity, torch.tensor([0, 1, 2])).tolist() == [1, 2, 3]
    assert ranks(similarity, 2).tolist() == [2, 1, 3]
    assert precision(ranks(similarity, 2), 1) == pytest.approx(1 / 3) and precision(
        ranks(similarity, 2), 2
    ) == pytest.approx(2 / 3)
    assert math.isnan(precision(torch.zeros(0), 1))


def test_ties_are_chance_and_nan_is_last() -> None:
    assert ranks(torch.ones(1, 153), 7).tolist() == [77.0], "all alike: the middle, not the first"
    assert ranks(torch.tensor([[0.5, 0.5, 0.1]]), 0).tolist() == [1.5]
    assert ranks(torch.tensor([[0.5, math.nan, 0.1]]), 0).tolist() == [3.0]


def test_a_judge_that_guided_is_refused() -> None:
    clip = SimpleNamespace(id="x", hash="a" * 64, role="any")
    check_judge(clip, ["b" * 64])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="guided a run"):
        check_judge(clip, ["b" * 64, "a" * 64])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="never be a judge"):
        check_judge(SimpleNamespace(id="x", hash="c" * 64, role="guide"), [])  # type: ignore[arg-type]


def test_wilson_is_the_root_of_its_quadratic() -> None:
    for share, count in ((0.0, 10), (0.786, 153), (1.0, 24), (0.5, 1)):
        for end in wilson(share, count):
            # The ends are where the normal test just rejects: |share - p| = z sqrt(p (1 - p) / n).
            assert abs(share - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / count), abs=1e-6)
    assert wilson(0.3, 0) == (0.0, 1.0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_wilson_covers(p: float) -> None:
    count = 40
    covered = 0.0
    for k in range(count + 1):
        low, high = wilson(k / count, count)
        covered += math.comb(count, k) * p**k * (1 - p) ** (count - k) * (low <= p <= high)
    assert 0.92 < covered < 0.985


def test_bootstrap_covers_a_known_mean() -> None:
    rng = np.random.default_rng(0)
    hits, widths = 0, []
    for k in range(300):
        low, high = bootstrap(rng.exponential(2.0, 50).tolist(), draws=500, seed=k)
        hits += low <= 2.0 <= high
        widths.append(high - low)
    assert 0.88 < hits / 300 < 0.98
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 2 / math.sqrt(50), rel=0.1)
    assert bootstrap([3.0, 3.0]) == (3.0, 3.0) and math.isnan(bootstrap([])[0])


def bumps(*azimuths_deg: float, width_deg: float = 45) -> Tensor:
    """Beliefs around the ring: 1 within ``width_deg`` of the given azimuths."""
    at = torch.arange(VIEWS) * (360 / VIEWS)
    turn = torch.stack([((at - a + 180) % 360 - 180).abs() for a in azimuths_deg])
    return (turn <= width_deg).any(0).float() * 0.9


def test_one_front_is_no_janus_wherever_it_is() -> None:
    for azimuth in range(0, 360, 30):
        found = judge_ring(bumps(azimuth))
        assert (found.fronts, found.back_is_front, found.janus) == (1, False, False)
        assert abs((found.facing_deg or 0) - azimuth) % 360 in (0, 30, 330)


def test_two_fronts_are_a_janus() -> None:
    assert judge_ring(bumps(0, 180)).fronts == 2 and judge_ring(bumps(0, 180)).janus
    assert judge_ring(bumps(30, 150)).fronts == 2 and judge_ring(bumps(30, 150)).janus
    assert judge_ring(bumps(0, 120, 240)).fronts == 3


def test_a_front_all_round_is_a_janus_and_none_is_none() -> None:
    everywhere = judge_ring(torch.full((VIEWS,), 0.8))
    assert everywhere.fronts == 1 and everywhere.back_is_front and everywhere.janus
    nowhere = judge_ring(torch.full((VIEWS,), 0.2))
    assert (nowhere.fronts, nowhere.facing_deg, nowhere.janus) == (0, None, False)


def test_a_single_doubtful_view_splits_no_front() -> None:
    belief = bumps(0, width_deg=60)
    belief[1] = 0.4
    assert judge_ring(belief).fronts == 1
    belief[2] = 0.4
    assert judge_ring(bumps(330)).fronts == 1 and judge_ring(belief).fronts == 1


def test_front_belief_is_the_share_within_45_degrees() -> None:
    told = torch.zeros(3, 12)
    told[0, 0], told[1, [1, 11]], told[2, [2, 10]] = 1, 0.5, 0.5
    assert front_belief(told).tolist() == [1, 1, 0]


def test_a_view_is_read_together_with_its_neighbours() -> None:
    right = torch.eye(VIEWS)  # view i is said to be from azimuth 30 i
    assert ring_belief(right).tolist() == front_belief(right).tolist()
    misread = right.clone()
    misread[6] = right[0]
    assert judge_ring(front_belief(misread)).janus and not judge_ring(ring_belief(misread)).janus
    two_faced = right[[0, 1, 2, 9, 10, 11, 0, 1, 2, 9, 10, 11]]
    assert judge_ring(ring_belief(two_faced)).fronts == 2 and judge_ring(ring_belief(right[[0] * VIEWS])).janus


def test_every_name_the_prior_knows_is_reviewed() -> None:
    record = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert set(record.get("vocabulary") or record["names"]) <= set(reviewed())


def test_the_list_of_fronts_is_the_table_of_names() -> None:
    with (Path(__file__).parents[1] / "tools" / "prior" / "names.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    words = {w: r["front"] == "yes" for r in rows for w in (r["name"], *r["synonyms"].split("; ")) if w}
    assert reviewed() == words, "run: python tools/fronts.py"
    assert len(rows) == 1343 and sum(r["front"] == "yes" for r in rows) == 551


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("a red armchair", True), ("a basketball", False), ("a basketball hoop", True), ("a rocking horse", True),
        ("a Blue HORSE!", True), ("a unicorn", None), ("a dog on a skateboard", False), ("a scarecrow", None),
        ("a dog house and a high-speed train", True), ("a red and blue Jack-o'-lantern", True), ("a striped bed", True),
        ("an orange armchair", True),
    ],
)  # fmt: skip
def test_has_front(prompt: str, answer: bool | None) -> None:
    assert has_front(prompt) is answer


class Solid(RadianceField):
    """A scene of a given inside, for its density."""

    def __init__(self, inside: Any):
        super().__init__(GridSettings(), 4)
        self.inside = inside

    def groups(self) -> Groups:
        return {}

    def density(self, points: Tensor) -> Tensor:
        return 100 * self.inside(points).float()

    def albedo(self, points: Tensor) -> Tensor:
        return torch.full_like(points, 0.5)


def ball(points: Tensor) -> Tensor:
    return points.norm(dim=-1) < 0.6


def torus(points: Tensor) -> Tensor:
    ring_distance = (points[:, [0, 2]].norm(dim=-1) - 0.6).square() + points[:, 1].square()
    return ring_distance < 0.2**2


def two_balls(points: Tensor) -> Tensor:
    speck = (points - torch.tensor([0.0, 0.8, 0.0])).norm(dim=-1) < 0.08
    return ball(points) & (points[:, 1] < 0.6) | speck


def reported(tmp_path: Path, inside: Any) -> dict[str, Any]:
    config = Config()
    config.export.resolution, config.export.texture_size, config.export.faces = 40, 64, 2000
    config.export.fit = False  # these scenes can answer what their density is, and cannot be drawn
    return geometry.report(SimpleNamespace(path=tmp_path, config=config), Solid(inside))  # type: ignore[arg-type]


def test_geometry_of_known_shapes(tmp_path: Path) -> None:
    sphere = reported(tmp_path, ball)
    assert (sphere["genus"], sphere["watertight"], sphere["components"], sphere["floaters"]) == (0, True, 1, 0)
    assert sphere["flatness"] > 0.9 and not sphere["billboard"]
    assert reported(tmp_path, torus)["genus"] == 1
    specked = reported(tmp_path, two_balls)
    assert (specked["raw_components"], specked["floaters"], specked["components"]) == (2, 1, 1)
    card = reported(tmp_path, lambda p: (p[:, 2].abs() < 0.05) & (p[:, :2].abs() < 0.6).all(-1))
    assert card["billboard"] and card["flatness"] < 0.12
    nothing = reported(tmp_path, lambda p: torch.zeros(len(p)))
    assert nothing["empty"] and "empty" in nothing["why"]


def test_flatness_of_boxes_however_they_are_turned() -> None:
    turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])
    for extents, expected in (((1, 1, 0.05), 0.05), ((1, 1, 1), 1.0), ((1, 0.1, 0.1), 1.0), ((1, 0.5, 0.1), 0.2)):
        assert geometry.flatness(trimesh.creation.box(extents, transform=turn)) == pytest.approx(expected, abs=1e-3)


def test_haze_is_the_transparency_of_what_is_seen() -> None:
    opacity = torch.zeros(2, 3, 4, 4)
    assert geometry.haze(opacity) is None
    opacity[:, :, :2] = 1
    assert geometry.haze(opacity) == 0, "empty space is no haze"
    opacity[:, :, 2] = 0.2  # a veil: 4 pixels of 0.2 beside 8 of 1
    assert geometry.haze(opacity) == pytest.approx(4 * 0.2 * 0.8 / (8 + 0.8))
    assert geometry.haze(torch.full((1, 3, 4, 4), 0.1)) == pytest.approx(0.9)


def test_saturation_counts_only_what_stands_out() -> None:
    pictures = torch.full((1, 3, 8, 8), 0.5)
    assert geometry.saturation(pictures) is None
    pictures[:, 0, :4] = 0.9
    assert geometry.saturation(pictures) == pytest.approx(0.4)
    pictures[:, :, 4:] = 0.1  # gray, but apart from the background
    assert geometry.saturation(pictures) == pytest.approx(0.2)


def test_views_are_the_same_for_all_and_spread_all_round() -> None:
    views, again = random_views(8, 3), random_views(8, 3)
    assert torch.equal(views.cameras.azimuth, again.cameras.azimuth)
    assert not torch.equal(views.cameras.azimuth, random_views(8, 4).cameras.azimuth)
    sector = ((views.cameras.azimuth.rad2deg() + 180) // 45).int().tolist()
    assert sector == list(range(8))
    gray = views.plain_background[:, 0]
    assert (views.plain_background == gray[:, None]).all()
    assert gray[::2].tolist() == [0.5] * 4 and len(set(gray.tolist())) == 5 and ((gray >= 0.2) & (gray < 0.9)).all()
    three = random_views(3).plain_background  # three grays are no colour
    assert (three == three[:, :1]).all() and three[0, 0] == three[2, 0] == 0.5 != three[1, 0]
    assert ring().cameras.azimuth.rad2deg().round().tolist() == [30.0 * k for k in range(12)]


def asset(prompt: str, r10: float, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "r1": r10 / 2, "r10": r10, "similarity": 0.3, "saturation": 0.2, "held_out": False} | more


def evaluation(*assets: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "clip": {"id": "x", "sha256": "0"}, "suite": {"name": "s", "prompts": 9, "sha256": "1"}, "views": 8, "seed": 0,
        "assets": list(assets), "summary": summarise(assets), "held_out": {}, "ceiling": None,
    } | more  # fmt: skip


def test_summary_leaves_out_what_does_not_apply() -> None:
    janus = {"fronts": 2, "janus": True, "facing_deg": 0.0, "back_is_front": True}
    assets = [
        asset("a", 1.0, janus=janus, geometry={"empty": False, "floaters": 3, "genus": None, "watertight": True}),
        asset("b", 0.5, janus=None, geometry={"empty": True, "why": ""}),
        asset("c", 0.0, janus=janus | {"fronts": 0, "janus": False}),
    ]
    found = summarise(assets)
    assert found["r10"]["value"] == 0.5 and found["r10"]["count"] == 3
    assert (found["r10"]["low"], found["r10"]["high"]) == wilson(0.5, 3)
    assert (found["janus"]["value"], found["janus"]["count"], found["no_front"]["value"]) == (0.5, 2, 0.5)
    assert (found["empty"]["value"], found["empty"]["count"]) == (0.5, 2)
    assert found["floaters"]["count"] == found["with_floaters"]["count"] == 1 and "genus" not in found
    assert value_of(assets[2], "watertight") is None
    assert shown("r10", found["r10"]).startswith("50.0 % (") and shown("r10", found["r10"]).endswith("n = 3)")
    assert "R-Precision @ 10" in table(evaluation(*assets)) and "held-out" not in table(evaluation(*assets))


def test_saturation_beside_the_priors() -> None:
    rows = with_ceiling([asset("a", 1), asset("b", 1), asset("c", 1, saturation=None)], [{"prompt": "a", "saturation": 0.1},
                        {"prompt": "c", "saturation": 0.1}])  # fmt: skip
    assert [r["saturation_ratio"] for r in rows] == [2.0, None, None]


def test_compare_pairs_by_prompt() -> None:
    first = evaluation(asset("a", 0.2), asset("b", 0.4), asset("c", 0.6), asset("only a", 1))
    second = evaluation(asset("c", 0.9), asset("a", 0.4), asset("a", 0.6), asset("b", 0.7), asset("only b", 0))
    found = compare_two(first, second)
    assert (found["paired"], found["only_a"], found["only_b"]) == (3, 1, 1)
    row = found["figures"]["r10"]
    assert row["a"] == pytest.approx(0.4) and row["b"] == pytest.approx(0.7), "two seeds of a prompt are averaged first"
    assert [row[k] for k in ("difference", "low", "high")] == pytest.approx([0.3] * 3), "each pair differs by 0.3"
    assert by_prompt(second["assets"], "r10")["a"] == 0.5
    text = comparison_table(found)
    assert text.startswith("3 prompts paired (1 prompts only in A, 1 prompts only in B)") and "30.0 *" in text
    assert compare_two(first, first)["figures"]["r10"]["difference"] == 0


def test_compare_refuses_what_cannot_be_compared() -> None:
    one = evaluation(asset("a", 1))
    for other, words in (
        (evaluation(asset("b", 1)), "no prompt in common"),
        (evaluation(asset("a", 1), clip={"id": "y", "sha256": "2"}), r"different CLIPs \(x and y\)"),
        (evaluation(asset("a", 1), suite={"name": "t", "prompts": 9, "sha256": "3"}), r"different suites \(s and t\)"),
        (evaluation(asset("a", 1), views=4), r"different views \(8 and 4\)"),
    ):
        with pytest.raises(UserError, match=words):
            compare_two(one, other)


class Colours(Clip):
    """A judge by closed form: a picture is its mean colour, and so is a caption that names one."""

    id, hash, role, size = "colours", "c" * 64, "judge", 8

    def pictures(self, x: Tensor) -> Tensor:
        return torch.nn.functional.normalize(x.mean((2, 3)) - 0.5 + 1e-4, dim=-1)

    def captions(self, texts: list[str]) -> Tensor:
        table = {"red": (1.0, -1.0, -1.0), "green": (-1.0, 1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}
        found = [next((c for word, c in table.items() if word in text), (1.0, 1.0, 1.0)) for text in texts]
        return torch.nn.functional.normalize(torch.tensor(found), dim=-1)
