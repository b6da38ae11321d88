"""Memory of large priors: estimates against what was measured, what the rule adds to them, sliced attention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")

from dreamfusion.distillation.rule_settings import ReconstructionSettings, SdsSettings
from dreamfusion.distillation.rules import kept_graphs
from dreamfusion.errors import UserError
from dreamfusion.generation import generate
from dreamfusion.loading import load_prior
from dreamfusion.priors import diffusers_prior, memory
from dreamfusion.priors.checkpoint import Checkpoint, Part
from dreamfusion.priors.families import family_of
from dreamfusion.priors.memory import Needs, choose, needs_of, needs_of_folder
from tests.fakes import SMALL, ask, direction
from tests.tiny_pipelines import save

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
GB = 10**9
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("memory")
    return {name: save(name, folder) for name in ("if", "sd", "sd3")}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMFUSION_CACHE", str(tmp_path / "cache"))


def load(folder: Path, **options: Any) -> Any:
    return load_prior(str(folder), "cpu", "float32", **options)


def real(name: str, graphs: int = 0, dtype: torch.dtype = torch.bfloat16) -> Needs:
    """The needs of a real architecture, one picture at a time."""
    pipeline, widths, vae = {
        "if": ("IFPipeline", [192, 384, 576, 768], {}),
        "sd": ("StableDiffusionPipeline", [320, 640, 1280, 1280], {"block_out_channels": [128, 256, 512, 512]}),
    }[name]
    parts = {"unet": Part("unet", "", "", parameters=1000)}
    checkpoint = Checkpoint("x", "", family_of(pipeline), {}, parts)
    side = 512 if vae else 64
    return needs_of(checkpoint, {"block_out_channels": widths}, vae, dtype, side, graphs=graphs)


def above_weights(needs: Needs, way: Any, encodes: bool) -> int:
    encoder = needs.encoder_work if way == "fast" else needs.encoder_work_low
    return needs.on_device(way, offloads=False) - needs.network - (0 if encodes else encoder)


# The first table of docs/priors.md: a CPU, one picture, bytes above the weights.
@pytest.mark.parametrize(("name", "way", "graphs", "encodes", "measured"), [
    ("if", "fast", 0, False, 0.41),
    ("if", "fast", 1, False, 0.92),
    ("sd", "fast", 0, False, 0.76),
    ("sd", "fast", 1, False, 2.49),
    ("sd", "fast", 0, True, 2.39),
    ("sd", "low", 0, True, 1.86),
])  # fmt: skip
def test_estimates_are_not_below_what_was_measured(
    name: str, way: Any, graphs: int, encodes: bool, measured: float
) -> None:
    assert measured <= above_weights(real(name, graphs), way, encodes) / GB < 1.7 * measured


def test_estimates_are_not_below_any_recorded_row() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "priors.json").read_text())
    assert {"if-sds", "if-reconstruction", "sd-vae-sds-low", "sd-vae-reconstruction"} <= set(rows)
    for case, row in rows.items():
        needs = real(case[:2], graphs=int("reconstruction" in case), dtype=getattr(torch, row["dtype"]))
        way = "low" if case.endswith("low") else "fast"
        assert row["bytes"] <= above_weights(needs, way, "vae" in case), case


def test_back_propagation_needs_more_and_perp_neg_twice_that() -> None:
    settings = [kind(perp_neg=p) for kind in (SdsSettings, ReconstructionSettings) for p in (False, True)]
    graphs = [kept_graphs(s) for s in settings]
    assert graphs == [0, 0, 1, 2]
    sds, one, two = (real("sd", n) for n in (0, 1, 2))
    for way in ("fast", "low"):
        assert sds.on_device(way) < one.on_device(way) < two.on_device(way)
    assert two.graph == 2 * one.graph


def test_transformers_keep_more_with_every_layer() -> None:
    def graph(**config: int) -> int:
        size = {"num_attention_heads": 24, "attention_head_dim": 64} | config
        checkpoint = Checkpoint(
            "x", "", family_of("StableDiffusion3Pipeline"), {}, {"transformer": Part("transformer", "", "")}
        )
        vae = {"block_out_channels": [128, 256, 512, 512]}
        return needs_of(checkpoint, size, vae, torch.bfloat16, 1024, graphs=1).graph

    # 34 bytes a token, channel and layer: two halves of 64 x 64 tokens, 1536 channels.
    assert graph(num_layers=24) == 34 * 24 * 2 * 4096 * 1536
    assert graph(num_layers=19, num_single_layers=38) == 34 * 57 * 2 * 4096 * 1536


def test_layers_are_not_taken_away_from_a_gradient() -> None:
    needs = Needs(GB, 10 * GB, GB, 4 * GB, 6 * GB, 2 * GB, 5 * GB)
    free = 6 * GB, 64 * GB
    assert choose("auto", Needs(GB, 10 * GB, GB, 4 * GB, 6 * GB, 2 * GB), torch.device("cuda"), free) == "lowest"
    with pytest.raises(UserError, match="does not fit even with memory 'low'"):
        choose("auto", needs, torch.device("cuda"), free)
    with pytest.raises(UserError, match="'lowest' takes weights away"):
        choose("lowest", needs, torch.device("cuda"), (64 * GB, 64 * GB))


def test_a_run_is_refused_for_its_rule_before_loading(
    tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checkpoint = load(tiny["sd"]).checkpoint
    enough = int(needs_of_folder(checkpoint, torch.float32).on_device("fast", offloads=False) / (1 - memory.MARGIN)) + 9
    for module in (memory, diffusers_prior):
        monkeypatch.setattr(module, "free_memory", lambda device: (enough, enough))
    assert load(tiny["sd"]).memory == "fast"
    settings = {**SMALL, "prior.id": str(tiny["sd"]), "prior.precision": "float32", "device": "cpu"}
    settings["distillation.kind"] = "reconstruction"
    with pytest.raises(UserError, match=r"does not fit .* distillation\.kind back-propagates") as caught:
        generate("a cat", "fast", **{name.replace(".", "__"): value for name, value in settings.items()})
    assert "\n" not in str(caught.value)


def processors(prior: Any) -> set[str]:
    return {type(p).__name__ for p in prior.network.attn_processors.values()}


@pytest.mark.parametrize("name", ["if", "sd"])
def test_sliced_attention_gives_the_same_answer(
    name: str, tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(tiny[name], memory="low")
    assert not any(p.startswith("Sliced") for p in processors(whole))  # a CPU's attention is fused
    monkeypatch.setattr(memory, "FUSED_ATTENTION", ())
    sliced = load(tiny[name], memory="low", graphs=1)
    assert all(p.startswith("Sliced") for p in processors(sliced)) and processors(sliced)
    assert not any(p.startswith("Sliced") for p in processors(load(tiny[name], memory="fast")))
    g = torch.Generator().manual_seed(0)
    z_t, t = torch.randn(whole.noise_shape(1), generator=g), torch.tensor([0.4])
    with torch.no_grad():
        questions = [ask(p.embed(["a cat"])) for p in (whole, sliced)]
        answers = [p.predict_noise(z_t, t, q, [q.words, None]) for p, q in zip((whole, sliced), questions, strict=True)]
        for a, b in zip(*answers, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    picture = torch.rand(1, 3, 16, 16, generator=g)
    settings = ReconstructionSettings(guidance_scale=10.0, threshold=0)
    x, y = (
        direction(picture, p, q, t, z_t, settings).gradient for p, q in zip((whole, sliced), questions, strict=True)
    )
    torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4 * float(x.abs().max()))


def test_what_cannot_be_sliced_is_left_as_it_is(tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before = processors(load(tiny["sd3"]))
    monkeypatch.setattr(memory, "FUSED_ATTENTION", ())
    assert processors(load(tiny["sd3"], memory="low")) == before
