"""Parts of pipelines: what users have on disk is loaded, exactly; what a prior cannot be made of is named in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("peft")

from dreamfusion import cli, generate  # noqa: E402
from dreamfusion.errors import UserError  # noqa: E402
from dreamfusion.loading import load_prior  # noqa: E402
from dreamfusion.prior_report import describe_prior  # noqa: E402
from dreamfusion.priors import hub_checkpoint  # noqa: E402
from dreamfusion.priors.mixture import absolute_id, is_mixture, parse_mixture  # noqa: E402
from dreamfusion.priors.prior_id import Lora, parse  # noqa: E402
from dreamfusion.run import Run  # noqa: E402
from tests.fakes import SMALL, GrayBallPrior, ask  # noqa: E402
from tests.single_files import save as save_tensors  # noqa: E402
from tests.single_files import single_file  # noqa: E402
from tests.tiny_pipelines import save, tiny_vae  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMFUSION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def sd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("sd", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folder(sd: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(sd, tmp_path / "sd"))


def load(id: str | Path, precision: str = "float32", **options: Any) -> Any:
    return load_prior(str(id), "cpu", precision, **options)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(id: str | Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        load(id)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


@torch.no_grad()
def answers(prior: Any, caption: str = "a cat") -> list[Tensor]:
    z = torch.randn(prior.noise_shape(1), generator=torch.Generator().manual_seed(0))
    question = ask(prior.embed([caption]))
    return [*prior.predict_noise(z, torch.tensor([0.5]), question, [question.words, None])]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# Tiny VAEs, means and spreads


def with_tiny_vae(folder: Path) -> Any:
    vae = tiny_vae()
    shutil.rmtree(folder / "vae")
    vae.save_pretrained(folder / "vae")
    edit(folder / "model_index.json", vae=["diffusers", "AutoencoderTiny"])
    return vae.eval()


@pytest.mark.parametrize("memory", ["fast", "low"])
def test_a_tiny_vae_encodes_and_decodes_as_its_own_class_does(memory: Any, folder: Path) -> None:
    vae = with_tiny_vae(folder)
    prior = load(folder, memory=memory)
    assert (prior.resolution, prior.side) == (32, 16)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        latents = vae.encode(x * 2 - 1).latents
        torch.testing.assert_close(prior.encode(x), latents)
        torch.testing.assert_close(prior.decode(latents), vae.decode(latents).sample / 2 + 0.5)
    y = x.clone().requires_grad_()
    prior.encode(y).square().sum().backward()
    assert y.grad is not None and y.grad.abs().sum() > 0
    assert describe_prior(str(folder), "cpu", "float32")["fits"] is True


def test_latents_mean_and_std_are_applied(folder: Path) -> None:
    mean, std = [0.5, -1.0, 0.0, 2.0], [1.0, 2.0, 0.5, 4.0]
    plain = load(folder)
    shutil.copytree(folder, other := folder.with_name("other"))
    edit(other / "vae" / "config.json", latents_mean=mean, latents_std=std)
    prior = load(other)
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    m, s = (torch.tensor(v).reshape(1, 4, 1, 1) for v in (mean, std))
    with torch.no_grad():
        own = plain.encode(x) / 0.18215
        torch.testing.assert_close(prior.encode(x), (own - m) * 0.18215 / s)
        torch.testing.assert_close(prior.decode(prior.encode(x)), plain.decode(own * 0.18215), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latents_mean": [0.0, 1.0]}, ["latents_mean has 2 numbers for 4 channels"]),
        ({"latents_std": [1.0] * 16}, ["latents_std has 16 numbers for 4 channels"]),
        ({"latents_mean": [0.0] * 4, "shift_factor": 0.1}, ["both shift_factor and latents_mean"]),
        ({"_class_name": "VQModel"}, ["is that of VQModel", "AutoencoderKL, AutoencoderTiny"]),
        ({"scaling_factor": None}, ["does not say scaling_factor"]),
    ],
)
def test_vaes_that_are_not_clear_are_refused(changes: dict[str, Any], words: list[str], folder: Path) -> None:
    edit(folder / "vae" / "config.json", **changes)
    refused(folder, *words)


# Classes and configurations


@pytest.mark.parametrize(
    ("part", "name", "words"),
    [
        ("vae", "AsymmetricAutoencoderKL", ["vae", "AsymmetricAutoencoderKL", "AutoencoderKL or AutoencoderTiny"]),
        ("vae", "ConsistencyDecoderVAE", ["ConsistencyDecoderVAE"]),
        ("unet", "UNet3DConditionModel", ["unet", "UNet3DConditionModel", "needs UNet2DConditionModel"]),
        ("text_encoder", "CLIPTextModelWithProjection", ["text_encoder", "needs CLIPTextModel"]),
    ],
)
def test_classes_that_are_not_known_are_named(part: str, name: str, words: list[str], folder: Path) -> None:
    library = "transformers" if part == "text_encoder" else "diffusers"
    edit(folder / "model_index.json", **{part: [library, name]})
    refused(folder, *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"in_channels": 9}, ["9 input channels, not 4", "a mask and the picture around it (inpainting)"]),
        ({"in_channels": 8}, ["8 input channels", "a picture that it edits"]),
        ({"in_channels": 5}, ["5 input channels", "a depth map"]),
        ({"in_channels": 7}, ["7 input channels", "enlarges"]),
        ({"in_channels": 12}, ["12 input channels, not 4"]),
        ({"num_class_embeds": 1000}, ["reads class labels (num_class_embeds)"]),
        ({"class_embed_type": "projection"}, ["reads class labels (class_embed_type)"]),
        ({"addition_embed_type": "text_time"}, ["reads 'text_time' besides the words"]),
        ({"encoder_hid_dim_type": "image_proj"}, ["reads 'image_proj' instead of words"]),
        ({"cross_attention_dim": 48}, ["width 48", "give 32", "do not belong together"]),
    ],
)
def test_networks_that_read_something_else_are_refused_by_name(
    changes: dict[str, Any], words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder / "unet" / "config.json", **changes)
    refused(folder, *words)
    with pytest.raises(UserError):
        describe_prior(str(folder), "cpu", "float32")
    out = folder.parent / "run"
    assert cli.main(["generate", "a cat", "--prior", str(folder), "--out", str(out)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and words[0] in said[0] and not out.exists()


def test_a_network_on_the_hub_is_refused_before_its_weights_are_downloaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder / "unet" / "config.json", in_channels=9)
    files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    info = SimpleNamespace(sha="c0ffee", card_data=None, siblings=[SimpleNamespace(rfilename=f, size=9) for f in files])
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: info)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, file, **_: str(folder / file))
    refused("hf:a/b", "the unet of hf:a/b has 9 input channels", "inpainting")


# Stable Diffusion 3 without its third encoder


@pytest.mark.parametrize("how", ["index", "files"])
def test_stable_diffusion_3_without_t5_reads_zeros_as_diffusers_does(how: str, tmp_path: Path) -> None:
    folder = save("sd3", tmp_path)
    if how == "index":
        edit(folder / "model_index.json", text_encoder_3=[None, None], tokenizer_3=[None, None])
    shutil.rmtree(folder / "text_encoder_3")
    prior = load(folder)
    words = prior.embed(["a cat"])
    pipeline = diffusers.StableDiffusion3Pipeline.from_pretrained(
        str(folder), text_encoder_3=None, tokenizer_3=None, local_files_only=True
    )
    tokens, _, pooled, _ = pipeline.encode_prompt("a cat", None, None, do_classifier_free_guidance=False)
    torch.testing.assert_close(words.tokens, tokens)
    torch.testing.assert_close(words.pooled, pooled)
    assert words.tokens[:, 77:].abs().sum() == 0 and words.tokens.shape[1] > 77
    assert all(x.isfinite().all() for x in answers(prior))


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


@pytest.fixture(scope="module")
def one(sd: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tiny Stable Diffusion in one file, and a folder of configurations without any weights."""
    place = tmp_path_factory.mktemp("single")
    config = Path(shutil.copytree(sd, place / "config", ignore=shutil.ignore_patterns("*.safetensors")))
    return single_file(sd, place / "model.safetensors"), config


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


# LoRAs


def make_lora(sd: Path, path: Path, layout: str = "peft", text: bool = False) -> dict[str, Tensor]:
    """A LoRA of rank 2 for the U-Net's (and the text encoder's) projections; {name of a weight: B A alpha / rank}."""
    g = torch.Generator().manual_seed(7)
    stored, change = {}, {}
    parts = {"unet": ("to_q", "to_v"), **({"text_encoder": ("q_proj", "out_proj")} if text else {})}
    for part, ends in parts.items():
        for name, weight in load_file(next((sd / part).glob("*.safetensors"))).items():
            layer = name.removesuffix(".weight")
            if not layer.endswith(ends) or weight.ndim != 2:
                continue
            down, up = (
                torch.randn(2, weight.shape[1], generator=g) * 0.3,
                torch.randn(len(weight), 2, generator=g) * 0.3,
            )
            inside = f"text_model.{layer.removeprefix('text_model.')}" if part == "text_encoder" else layer
            if layout == "peft":
                stored |= {f"{part}.{inside}.lora_A.weight": down, f"{part}.{inside}.lora_B.weight": up}
            else:  # kohya's, with an alpha of half the rank
                key = f"lora_{'te' if part == 'text_encoder' else 'unet'}_{inside.replace('.', '_')}"
                stored |= {
                    f"{key}.lora_down.weight": down,
                    f"{key}.lora_up.weight": up,
                    f"{key}.alpha": torch.tensor(1.0),
                }
            change[f"{part}.{name}"] = up @ down * (1.0 if layout == "peft" else 0.5)
    save_tensors(stored, path)
    return change


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
