"""LoRAs are added exactly or refused in one line; a run records whole paths of its priors and their LoRAs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("peft")

from dreamfusion import generate  # noqa: E402
from dreamfusion.errors import UserError  # noqa: E402
from dreamfusion.priors.mixture import absolute_id, is_mixture, parse_mixture  # noqa: E402
from dreamfusion.priors.prior_id import Lora, parse  # noqa: E402
from dreamfusion.run import Run  # noqa: E402
from tests.fakes import SMALL, GrayBallPrior  # noqa: E402
from tests.pipelines import answers, equal, load, make_lora, refused  # noqa: E402
from tests.single_files import save as save_tensors  # noqa: E402
from tests.single_files import single_file  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def one(sd: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tiny Stable Diffusion in one file, and a folder of configurations without any weights."""
    place = tmp_path_factory.mktemp("single")
    config = Path(shutil.copytree(sd, place / "config", ignore=shutil.ignore_patterns("*.safetensors")))
    return single_file(sd, place / "model.safetensors"), config


# LoRAs


@pytest.mark.parametrize("layout", ["peft", "kohya"])
@pytest.mark.parametrize("scale", [0.0, 0.8, 1.0, -0.5])
def test_a_lora_adds_its_product_times_the_scale(layout: str, scale: float, sd: Path, tmp_path: Path) -> None:
    change = make_lora(sd, file := tmp_path / "style.safetensors", layout)
    base, prior = load(sd), load(f"{sd} + lora:{file}@{scale}")
    mine, its = prior.network.state_dict(), base.network.state_dict()
    assert mine.keys() == its.keys()
    for name, weight in its.items():
        expected = weight + scale * change.get(f"unet.{name}", torch.zeros(()))
        torch.testing.assert_close(mine[name], expected, rtol=1e-5, atol=1e-6)
        assert scale != 0 or torch.equal(mine[name], weight)
    assert equal(answers(prior), answers(base)) is (scale == 0)
    assert not any(p.requires_grad for p in prior.network.parameters())
    assert prior.hash != base.hash and prior.id == f"{sd} + lora:{file}" + (f"@{scale:g}" if scale != 1 else "")


@pytest.mark.parametrize("layout", ["peft", "kohya"])
def test_a_lora_of_the_text_encoder_changes_the_words(layout: str, sd: Path, tmp_path: Path) -> None:
    change = make_lora(sd, file := tmp_path / "style.safetensors", layout, text=True)
    words = [load(id).embed(["a cat"]).tokens for id in (sd, f"{sd} + lora:{file}@0", f"{sd} + lora:{file}@0.5")]
    assert torch.equal(words[0], words[1]) and not torch.allclose(words[0], words[2])
    encoder = load(f"{sd} + lora:{file}@0.5").text._pipeline().text_encoder.state_dict()
    for name, weight in load_file(next((sd / "text_encoder").glob("*.safetensors"))).items():
        expected = weight + 0.5 * change.get(f"text_encoder.{name}", torch.zeros(()))
        held = encoder.get(name, encoder.get(name.removeprefix("text_model.")))
        torch.testing.assert_close(held, expected, rtol=1e-5, atol=1e-6)


def test_several_loras_add_up_on_folders_files_and_in_mixtures(
    one: tuple[Path, Path], sd: Path, tmp_path: Path
) -> None:
    file, config = one
    first = make_lora(sd, a := tmp_path / "a.safetensors")
    second = make_lora(sd, b := tmp_path / "b@2.safetensors", "kohya")  # a name with an @ in it
    prior = load(f"{file} + config:{config} + lora:{a}@0.5 + lora:{b}")
    name = next(iter(first)).removeprefix("unet.")
    expected = load(sd).network.state_dict()[name] + 0.5 * first[f"unet.{name}"] + second[f"unet.{name}"]
    torch.testing.assert_close(prior.network.state_dict()[name], expected)
    mixed = load(f"0.7*{sd} + lora:{a}@0.5 + 0.3*{sd}")
    assert [len(p.checkpoint.loras) for _, p in mixed.terms] == [1, 0]


@pytest.mark.parametrize("memory", ["low", "lowest"])
def test_a_lora_is_there_in_every_way_of_loading(memory: Any, sd: Path, tmp_path: Path) -> None:
    make_lora(sd, file := tmp_path / "style.safetensors")
    id = f"{sd} + lora:{file}@0.8"
    for a, b in zip(answers(load(id)), answers(load(id, memory=memory)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_loras_that_cannot_be_added_are_refused(sd: Path, tmp_path: Path) -> None:
    make_lora(sd, file := tmp_path / "style.safetensors")
    refused(f"bundled + lora:{file}", "the bundled prior takes no LoRA")
    refused(f"{sd} + lora:{tmp_path / 'none.safetensors'}", "there is no such file")
    refused(f"{sd} + lora:{tmp_path}", "is a folder")
    refused(f"{sd} + lora:{file}@much", "the scale 'much' must be a number")
    refused(f"{sd} + lora:{file}@nan", "must be a number")
    refused(f"{sd} + lora:", "says nothing")
    refused(f"{sd} + lora:hf:someone/style", "download it and give its path")
    refused(f"{sd} + lora:{sd / 'vae' / 'diffusion_pytorch_model.safetensors'}", "is no LoRA")
    (tmp_path / "style.bin").write_bytes(b"x")
    refused(f"{sd} + lora:{tmp_path / 'style.bin'}", "only .safetensors are loaded")
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:-9])
    refused(f"{sd} + lora:{tmp_path / 'cut.safetensors'}", "is damaged")
    for name, tensors, line in (
        ("wide", {k: v[:, :-1] if "lora_A" in k else v for k, v in load_file(file).items()}, "does not fit unet"),
        (
            "other",
            {k.replace("down_blocks.1", "down_blocks.7"): v for k, v in load_file(file).items()},
            "another model|does not fit unet",
        ),
        ("flux", {k.replace("unet.", "transformer."): v for k, v in load_file(file).items()}, "another kind of model"),
    ):
        save_tensors(tensors, wrong := tmp_path / f"{name}.safetensors")
        with pytest.raises(UserError, match=line):
            _ = load(f"{sd} + lora:{wrong}").network


def test_ids_parse(tmp_path: Path) -> None:
    found = parse("hf:a/b@main + lora:x.safetensors@0.8 + variant:fp16 + lora:y.safetensors")
    assert (found.base, found.variant) == ("hf:a/b@main", "fp16")
    assert found.loras == (Lora(Path("x.safetensors"), 0.8), Lora(Path("y.safetensors"), 1.0))
    assert parse(str(found)) == found and parse("my + folder").base == "my + folder"
    assert not is_mixture("hf:a/b + lora:x@0.8")
    assert parse_mixture("0.7*A + lora:x@2 + 0.3*B") == [(0.7, "A + lora:x@2"), (0.3, "B")]
    for wrong, line in (("a + config:b + config:c", "two of config:"), ("a + variant:", "says nothing")):
        with pytest.raises(UserError, match=line):
            parse(wrong)


# Paths of priors in a run


def test_relative_paths_are_recorded_absolute(sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    shutil.copytree(sd, place / "sd")
    make_lora(sd, place / "style.safetensors")
    monkeypatch.chdir(place)
    here = str(place)
    for id, expected in (
        ("sd", f"{here}/sd"),
        ("./sd/", f"{here}/sd"),
        ("sd + lora:style.safetensors@0.8", f"{here}/sd + lora:{here}/style.safetensors@0.8"),
        ("0.5*sd + 0.5*bundled", f"0.5*{here}/sd + 0.5*bundled"),
        ("guide:sd", f"guide:{here}/sd"),
        ("hf:a/b", "hf:a/b"),
        ("bundled", "bundled"),
        ("0.70*bundled + 0.3*hf:a/b", "0.70*bundled + 0.3*hf:a/b"),
    ):
        assert absolute_id(id) == expected


def test_a_run_with_a_relative_prior_is_resumed_from_anywhere(
    sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("generation", "loop"):
        monkeypatch.setattr(f"dreamfusion.{module}.write_preview", lambda *_, **__: None)
    shutil.copytree(sd, tmp_path / "place" / "sd")
    make_lora(sd, tmp_path / "place" / "style.safetensors")
    monkeypatch.chdir(tmp_path / "place")
    small = {**SMALL, "steps": 2, "prior.asks": "words", "device": "cpu", "prior.precision": "float32"}
    asset = generate("x", "fast", out="run", **small, **{"prior.id": "sd + lora:style.safetensors@0.8"})
    monkeypatch.chdir("/")
    config = Run.open(tmp_path / "place" / "run").config
    assert config.prior.id == f"{tmp_path}/place/sd + lora:{tmp_path}/place/style.safetensors@0.8"
    generate(resume=tmp_path / "place" / "run", steps=3)
    assert Run.open(tmp_path / "place" / "run").load_checkpoint()[1]["step"] == 3 and asset.mesh is not None


def test_stages_have_absolute_priors_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamfusion.generation.write_preview", lambda *_, **__: None)
    monkeypatch.setattr("dreamfusion.loop.write_preview", lambda *_, **__: None)
    (tmp_path / "w.safetensors").write_bytes(b"x")
    (tmp_path / "two.yaml").write_text("stages:\n- {}\n- prior: w.safetensors\n")
    monkeypatch.chdir(tmp_path)
    generate("x", "two.yaml", out="run", prior=GrayBallPrior(), **{**SMALL, "steps": 1})
    assert Run.open("run").config.stages == ({}, {"prior.id": f"{tmp_path}/w.safetensors"})
