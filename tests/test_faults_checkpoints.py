"""Weights as they are traded: variants, shards, single files, and names that are gone from the hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("peft")

from dreamfusion.errors import UserError  # noqa: E402
from dreamfusion.prior_report import describe_prior  # noqa: E402
from dreamfusion.priors import hub_checkpoint  # noqa: E402
from tests.pipelines import answers, equal, load, refused  # noqa: E402
from tests.single_files import save as save_tensors  # noqa: E402
from tests.single_files import single_file  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture
def folder(sd: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(sd, tmp_path / "sd"))


@pytest.fixture(scope="module")
def one(sd: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tiny Stable Diffusion in one file, and a folder of configurations without any weights."""
    place = tmp_path_factory.mktemp("single")
    config = Path(shutil.copytree(sd, place / "config", ignore=shutil.ignore_patterns("*.safetensors")))
    return single_file(sd, place / "model.safetensors"), config


# Variants and shards


def saved_as(sd: Path, folder: Path, **options: Any) -> Path:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(str(sd), safety_checker=None, local_files_only=True)
    pipeline.save_pretrained(folder, safe_serialization=True, **options)
    return folder


def test_sharded_weights_and_variants_are_the_same_weights(sd: Path, tmp_path: Path) -> None:
    expected = answers(load(sd))
    sharded = saved_as(sd, tmp_path / "shards", max_shard_size="400KB")
    assert len(list((sharded / "unet").glob("*-of-*.safetensors"))) > 1
    assert equal(answers(load(sharded)), expected)
    variant = saved_as(sd, tmp_path / "fp16", variant="fp16", max_shard_size="400KB")
    assert equal(answers(load(variant)), expected)  # only the name is half


def test_a_variant_may_be_asked_for(folder: Path) -> None:
    plain = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(plain)
    save_file({k: v * 1.5 for k, v in weights.items()}, plain.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    usual, other = load(folder), load(f"{folder} + variant:non_ema")
    assert torch.equal(usual.network.conv_in.weight, weights["conv_in.weight"])
    assert torch.equal(other.network.conv_in.weight, weights["conv_in.weight"] * 1.5)
    assert other.id == f"{folder} + variant:non_ema" and usual.hash != other.hash
    refused(f"{folder} + variant:fp8", "no part of the checkpoint has the variant 'fp8'")
    plain.unlink()
    assert torch.equal(load(folder).network.conv_in.weight, weights["conv_in.weight"] * 1.5)  # what there is


def test_a_missing_shard_is_found_before_anything_is_loaded(sd: Path, tmp_path: Path) -> None:
    sharded = saved_as(sd, tmp_path / "shards", max_shard_size="400KB")
    shards = sorted((sharded / "unet").glob("*-of-*.safetensors"))
    shards[0].unlink()
    refused(sharded, f"unet has {len(shards) - 1} of its {len(shards)} shards")


# Single files


def test_a_single_file_is_the_folder(one: tuple[Path, Path], sd: Path) -> None:
    file, config = one
    single, whole = load(f"{file} + config:{config}"), load(sd)
    assert equal(answers(single), answers(whole))
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(single.encode(x), whole.encode(x))
    for name in ("network", "vae"):
        mine, its = (getattr(p, name).state_dict() for p in (single, whole))
        assert mine.keys() == its.keys() and all(torch.equal(mine[k], its[k]) for k in its)
    assert single.needs == whole.needs and not any(p.requires_grad for p in single.network.parameters())
    said = describe_prior(f"{file} + config:{config}", "cpu", "float32")
    assert said["family"] == "Stable Diffusion" and "0.3 M parameters" in said["unet"] and said["fits"]


def test_its_configurations_come_from_the_hub_or_its_cache(
    one: tuple[Path, Path], sd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, config = one
    asked: list[Any] = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda repo, **o: asked.append((repo, o["allow_patterns"])) or str(config)
    )
    assert equal(answers(load(file)), answers(load(sd)))
    assert asked[0][0] == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert not any("safetensors" in pattern for pattern in asked[0][1])
    load(f"{file} + config:hf:someone/else")
    assert asked[-1][0] == "someone/else"

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    refused(file, "stable-diffusion-v1-5/stable-diffusion-v1-5", "neither in the hub's local cache", "config:FOLDER")


def test_parts_that_the_file_lacks_come_from_the_folder(one: tuple[Path, Path], sd: Path, tmp_path: Path) -> None:
    file, config = one
    network = {k: v for k, v in load_file(file).items() if k.startswith("model.diffusion_model.")}
    save_tensors(network, alone := tmp_path / "unet-only.safetensors")
    assert equal(answers(load(f"{alone} + config:{sd}")), answers(load(sd)))
    refused(f"{alone} + config:{config}", "unet-only.safetensors", "no text_encoder")


def test_files_that_are_no_checkpoints_are_told_apart(one: tuple[Path, Path], sd: Path, tmp_path: Path) -> None:
    file, config = one
    refused(sd / "unet" / "diffusion_pytorch_model.safetensors", "neither a whole checkpoint nor", "pipeline's folder")
    save_tensors({"lora_unet_x.lora_down.weight": torch.zeros(2, 2)}, lora := tmp_path / "l.safetensors")
    refused(lora, "is a LoRA, not a model", "+ lora:")
    refused(f"{file} + config:{tmp_path}", "no model_index.json")
    refused(f"{sd} + config:{config}", "config:", "is for a single file")
    refused(f"{file} + config:{config} + variant:fp16", "one file; it has no variants")
    refused(f"bundled + config:{config}", "takes no LoRA, configuration or variant")
    refused(tmp_path / "nowhere", "there is no folder")
    (pickled := tmp_path / "model.ckpt").write_bytes(b"x")
    refused(pickled, "model.ckpt is no .safetensors file; pickled checkpoints are never loaded")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-500])
    refused(f"{cut}", "cut.safetensors")
    lacks = load_file(file)
    del lacks["model.diffusion_model.input_blocks.0.0.bias"]
    save_tensors(lacks, less := tmp_path / "less.safetensors")
    with pytest.raises(UserError, match=r"less\.safetensors lacks .*weights of unet"):
        _ = load(f"{less} + config:{config}").network


# Names that are gone


GONE = ("stabilityai/stable-diffusion-2-1-base", "stabilityai/stable-diffusion-2-1", "stabilityai/stable-diffusion-2")


@pytest.mark.parametrize("name", [*GONE, "StabilityAI/Stable-Diffusion-2-base", "runwayml/stable-diffusion-v1-5"])
def test_names_that_are_gone_lead_to_their_copies_and_it_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.warns(
        UserWarning, match=rf"{name} is gone from the hub; its copy hf:[\w-]+/stable-diffusion-\S+ is taken"
    ):
        repo, revision = hub_checkpoint.moved(name, None)
    assert repo.split("/")[0] in ("sd2-community", "stable-diffusion-v1-5") and revision is None
    assert repo.split("/")[1].lower() == name.split("/")[1].lower()


def test_a_copy_in_the_cache_needs_no_mirror(
    sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    snapshot = Path(shutil.copytree(sd, tmp_path / "snapshots" / ("ab" * 20)))

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", offline)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(snapshot / "model_index.json"))
    assert load(f"hf:{GONE[0]}").id == f"hf:{GONE[0]}@{'ab' * 20}"
    assert not any("is gone" in str(w.message) for w in recwarn)
    assert hub_checkpoint.moved("someone/else", "main") == ("someone/else", "main")
