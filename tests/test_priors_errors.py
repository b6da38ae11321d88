"""Mistakes with priors: one clear line each. Memory that does not suffice, the hub's refusals, mixtures."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("diffusers")

import dreamfusion.prior_report as report
from dreamfusion.distillation.rule_settings import ReconstructionSettings, SdsSettings
from dreamfusion.errors import UserError
from dreamfusion.loading import load_prior
from dreamfusion.prior_report import describe_prior
from dreamfusion.priors import diffusers_prior, hub_checkpoint, memory
from dreamfusion.priors.checkpoint import choose_weights, open_folder, read_parts
from dreamfusion.priors.memory import Needs, choose
from dreamfusion.priors.mixture import Mixture, is_mixture, parse_mixture
from dreamfusion.priors.prior import broadcast
from dreamfusion.priors.question import Question, Tokens, Words
from dreamfusion.settings.presets import resolve
from dreamfusion.trainer import Trainer
from tests.fakes import SMALL, GrayBallPrior, ask, direction, looks


@pytest.fixture
def folder(sd: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(sd, tmp_path / "sd"))


def edit_index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(id: str | Path, *words: str, **options: Any) -> None:
    """Loading says all the words in one line."""
    with pytest.raises(UserError) as caught:
        load_prior(str(id), precision="float32", **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    for word in words:
        assert word in message, message


def test_names_that_mean_nothing(tmp_path: Path) -> None:
    refused("bundeld", "did you mean 'bundled'")
    refused("stabilityai/stable-diffusion-2-1-base", "hf:stabilityai/stable-diffusion-2-1-base")
    refused(tmp_path / "nowhere", "there is no folder")
    refused("hf:nonsense", "hf:OWNER/NAME")
    refused("hf:a/b@", "hf:OWNER/NAME")


def test_folders_that_are_no_pipelines(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path, "no model_index.json", "save_pretrained")
    edit_index(folder, _class_name="WanPipeline")
    refused(folder, "'WanPipeline'", "IFPipeline", "FluxPipeline")
    (folder / "model_index.json").write_text("{")
    refused(folder, "model_index.json cannot be read")


def test_configurations_that_are_none(folder: Path) -> None:
    for name in ("vae/config.json", "scheduler/scheduler_config.json", "text_encoder/config.json"):
        kept = (folder / name).read_text()
        (folder / name).write_text("[]")
        refused(folder, f"{name} is not a JSON object")
        (folder / name).write_text(kept)
    (folder / "vae" / "config.json").unlink()
    refused(folder, "vae/config.json cannot be read: No such file")
    (folder / "vae" / "config.json").write_text('{"latent_channels": 4}')
    refused(folder, "vae/config.json does not say block_out_channels")


def test_missing_text_encoder(folder: Path) -> None:
    edit_index(folder, text_encoder=[None, None])
    refused(folder, "no text_encoder")
    edit_index(folder, text_encoder=["transformers", "CLIPTextModel"])
    shutil.rmtree(folder / "text_encoder")
    refused(folder, "no text_encoder")


def test_classes_from_elsewhere_are_not_run(folder: Path) -> None:
    edit_index(folder, unet=["evil_package", "Model"])
    refused(folder, "evil_package.Model")
    edit_index(folder, unet=["diffusers", "NoSuchUNet"])
    refused(folder, "NoSuchUNet", "needs UNet2DConditionModel")


def test_damaged_weights_are_found_before_anything_is_loaded(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    refused(folder, "diffusion_pytorch_model.safetensors is damaged", "bytes expected")
    path.write_bytes(b"\xff" * 5000)
    refused(folder, "is damaged")
    path.write_bytes(b"")
    refused(folder, "is damaged")


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    config = json.loads((folder / "unet" / "config.json").read_text())
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["conv_in.bias"]
    save_file(tensors, path)
    prior = load_prior(str(folder), precision="float32")
    with pytest.raises(UserError, match=r"lacks 1 weights, conv_in\.bias"):
        _ = prior.network
    (folder / "unet" / "config.json").write_text(json.dumps(config | {"block_out_channels": [24, 32]}))
    with pytest.raises(UserError, match="cannot be loaded"):
        _ = load_prior(str(folder), precision="float32").network


def test_pickles_are_never_loaded(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    refused(folder, "pickled weights only")


def test_variants_are_chosen_by_precision() -> None:
    plain, half = "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"
    shards = [f"unet/diffusion_pytorch_model-0000{k}-of-00002.safetensors" for k in (1, 2)]
    half_shards = [f"unet/diffusion_pytorch_model.fp16-0000{k}-of-00002.safetensors" for k in (1, 2)]
    old_shards = [f"unet/diffusion_pytorch_model-0000{k}-of-00002.fp16.safetensors" for k in (1, 2)]
    ema = "unet/diffusion_pytorch_model.non_ema.safetensors"
    for names, wants_half, expected in (
        ([plain, half, ema], True, ((half,), "fp16")),
        ([plain, half, ema], False, ((plain,), None)),
        ([half], False, ((half,), "fp16")),
        (shards + half_shards, True, (tuple(half_shards), "fp16")),
        (shards + old_shards, True, (tuple(old_shards), "fp16")),
        (shards, True, (tuple(shards), None)),
    ):
        assert choose_weights(dict.fromkeys(names, 1), "unet", wants_half) == expected


def test_a_fingerprint_tells_fine_tunes_apart(folder: Path, sd: Path) -> None:
    assert open_folder(folder, False).revision == open_folder(sd, False).revision
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert open_folder(folder, False).revision != open_folder(sd, False).revision


GB = 10**9


@pytest.mark.parametrize(("free", "way"), [(40, "fast"), (13, "low"), (6, "lowest")])
def test_the_quickest_way_that_fits_is_taken(free: float, way: str) -> None:
    needs = Needs(10 * GB, 10 * GB, GB, 4 * GB, 6 * GB, 2 * GB)
    device = torch.device("cuda")
    if free == 6:
        needs = Needs(GB, 10 * GB, GB, 4 * GB, 6 * GB, 2 * GB)
    assert choose("auto", needs, device, (int(free * GB), 64 * GB)) == way


def test_what_cannot_fit_is_refused_before_loading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory, diffusers_prior, report):
        monkeypatch.setattr(module, "free_memory", lambda device: (100_000, 100_000))
    refused(folder, "does not fit", "free")
    assert describe_prior(str(folder))["fits"] is False


def test_description_says_what_and_how_large(folder: Path) -> None:
    said = describe_prior(str(folder), precision="float32")
    assert said["family"] == "Stable Diffusion" and said["fits"] is True and said["from"] == str(folder)
    assert "UNet2DConditionModel, 0.3 M parameters" in said["unet"]
    assert set(describe_prior(f"0.5*{folder} + 2*{folder}")) == {f"0.5*{folder}", f"2*{folder}"}


def hub_error(kind: str) -> Exception:
    from huggingface_hub import errors

    httpx = pytest.importorskip(
        "httpx2" if importlib.util.find_spec("httpx2") else "httpx"
    )  # what the hub's client is built on

    response = httpx.Response(404, request=httpx.Request("GET", "https://example.org"))
    return getattr(errors, kind)("no", response=response)


@pytest.mark.parametrize(("kind", "words"), [
    ("GatedRepoError", ["gated", "licence", "HF_TOKEN"]),
    ("RepositoryNotFoundError", ["has no model a/b"]),
    ("RevisionNotFoundError", ["no revision 'v2'"]),
    ("RemoteEntryNotFoundError", ["not a diffusers pipeline"]),
])  # fmt: skip
def test_the_hubs_refusals(kind: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def info(*_: Any, **__: Any) -> None:
        raise hub_error(kind)

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", info)
    refused("hf:a/b@v2", *words)


def test_offline_without_a_cached_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import errors

    def info(*_: Any, **__: Any) -> None:
        raise errors.OfflineModeIsEnabled("offline")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", info)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    refused("hf:a/b", "cannot be reached", "cache has no a/b")


def test_offline_with_a_cached_copy(sd: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = Path(shutil.copytree(sd, tmp_path / "snapshots" / commit))

    def info(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", info)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(snapshot / "model_index.json"))
    prior = load_prior("hf:a/b", precision="float32")
    assert prior.id == f"hf:a/b@{commit}" and prior.hash == commit  # what run.yaml records, and resumes with


def test_online_only_what_is_needed_is_downloaded(sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {p.relative_to(sd).as_posix(): p.stat().st_size for p in sd.rglob("*") if p.is_file()}
    files |= {"unet/diffusion_pytorch_model.bin": 9, "safety_checker/model.safetensors": 9, "v1-5.ckpt": 9}
    siblings = [SimpleNamespace(rfilename=name, size=size) for name, size in files.items()]
    asked = {}
    monkeypatch.setattr(
        "huggingface_hub.HfApi.model_info",
        lambda *_, **__: SimpleNamespace(
            sha="c0ffee", siblings=siblings, card_data=SimpleNamespace(license="openrail")
        ),
    )
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(sd / "model_index.json"))
    monkeypatch.setattr(
        "huggingface_hub.HfApi.parse_safetensors_file_metadata",
        lambda *_, **__: SimpleNamespace(parameter_count={"F32": 1000}),
    )
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, **o: asked.update(o, repo=repo) or str(sd))
    found = hub_checkpoint.find("hf:a/b", half=False)
    assert found.licence == "openrail" and found.id == "hf:a/b@c0ffee"
    prior = load_prior("hf:a/b", precision="float32")
    assert asked["revision"] == "c0ffee" and prior.network is not None
    assert "unet/diffusion_pytorch_model.safetensors" in asked["allow_patterns"]
    assert not any(p.endswith((".bin", ".ckpt")) or p.startswith("safety_checker") for p in asked["allow_patterns"])


def test_stable_diffusion_3_may_do_without_t5() -> None:
    index = {"_class_name": "StableDiffusion3Pipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
    files = {"scheduler/scheduler_config.json": 1}
    for name in ("text_encoder", "text_encoder_2", "transformer", "vae"):
        index[name] = ["diffusers", "X"]
        files[f"{name}/model.safetensors"] = 1
    for name in ("tokenizer", "tokenizer_2"):
        index[name] = ["transformers", "CLIPTokenizer"]
        files[f"{name}/vocab.json"] = 1
    index |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    assert "text_encoder_3" not in read_parts(index, files, True)[2]
    with pytest.raises(UserError, match="no text_encoder_2"):
        read_parts(index | {"text_encoder_2": [None, None]}, files, True)


def test_mixtures_parse() -> None:
    assert parse_mixture("0.7*bundled + .3 * hf:a/b@main") == [(0.7, "bundled"), (0.3, "hf:a/b@main")]
    assert is_mixture("2*bundled") and not is_mixture("bundled") and not is_mixture("my + folder")
    for wrong in ("0.7*bundled + B", "0.7*bundled +", "0*bundled", "-1*bundled + 2*bundled"):
        with pytest.raises(UserError, match="does not parse"):
            load_prior(wrong)
    for nearly in ("0.7*bundled+0.3*bundled", "x*bundled", "bundled + bundled", "0.7*a/b+0.3*c"):
        refused(nearly, "a mixture is written 0.7*A + 0.3*B, with spaces around the plus")


class Small(GrayBallPrior):
    """The same in another space: half the resolution, other noise, another schedule, and it can read."""

    id, resolution = "small", 6

    def embed(self, captions: Sequence[str], images: Sequence[Any] = ()) -> Tokens:
        values = torch.tensor([len(caption) / 10 for caption in captions])
        return Tokens(values[:, None, None], torch.ones(len(captions), 1, dtype=torch.bool))

    def alpha_sigma(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 1 - t, t

    def encode(self, picture: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(picture, 2) * 2 - 1

    def predict_noise(
        self, z_t: torch.Tensor, t: torch.Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[torch.Tensor, ...]:
        means = (words.tokens[:, 0, 0] if isinstance(words, Tokens) else torch.zeros(len(z_t)) for words in about)
        return tuple(z_t * 0.3 + broadcast(mean, z_t) for mean in means)


def parts_of(noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A mixture's noise as ``GrayBallPrior`` and ``Small`` have it."""
    first, second = noise.split([3 * 144, 3 * 36], 1)
    return first.reshape(-1, 3, 12, 12), second.reshape(-1, 3, 6, 6)


@pytest.mark.parametrize("kind", [SdsSettings, ReconstructionSettings])
@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_a_mixture_adds_its_parts_directions(kind: Any, scale: float) -> None:
    one, two = GrayBallPrior(), Small()
    mixture = Mixture([(0.7, one), (0.3, two)])
    g = torch.Generator().manual_seed(0)
    picture, noise, t = (
        torch.rand(2, 3, 12, 12, generator=g),
        torch.randn(mixture.noise_shape(2), generator=g),
        torch.tensor([0.3, 0.6]),
    )
    settings, captions = kind(guidance_scale=scale, threshold=0), ["a", "a ball"]
    expected = torch.zeros_like(picture)
    for (share, prior), own in zip(mixture.terms, parts_of(noise), strict=True):
        found = direction(picture, prior, ask(prior.embed(captions).rows([1, 0])), t, own, settings)
        expected += share * found.gradient
    question = Question(mixture.embed(captions).rows([1, 0]), looks([[0.0, 0.0, 2.5]] * 2), "words")
    torch.testing.assert_close(direction(picture, mixture, question, t, noise, settings).gradient, expected)


def test_a_mixture_is_a_prior_of_all_its_parts_spaces() -> None:
    one, two = GrayBallPrior(), Small()
    mixture = Mixture([(0.7, one), (0.3, two)])
    g, t = torch.Generator().manual_seed(0), torch.tensor([0.3, 0.6])
    z = torch.randn(mixture.noise_shape(2), generator=g)
    assert z.shape == (2, 3 * (144 + 36)) and mixture.resolution == 12
    for part, own in zip(mixture.split(z), parts_of(z), strict=True):
        assert torch.equal(part, own)
    alpha, sigma = mixture.alpha_sigma(t)
    for found, which in ((alpha, 0), (sigma, 1)):
        for own, prior in zip(parts_of(found), (one, two), strict=True):
            assert torch.equal(own, broadcast(prior.alpha_sigma(t)[which], own).expand_as(own))
    words, other = mixture.embed(["a", "a ball"]), mixture.embed(["red", "blue"])
    question = Question(words, looks([[0.0, 0.0, 2.5]] * 2), "words")
    about = [words, None, other, words.blend(other, torch.tensor([0.5, 0.0]))]
    answers = mixture.predict_noise(z, t, question, about)
    for answer, length in zip(answers, ([1, 6], [0, 0], [3, 4], [2, 6]), strict=True):
        ball, small = parts_of(answer)
        torch.testing.assert_close(ball, one.exact_noise(parts_of(z)[0], t, one.clean))
        expected = parts_of(z)[1] * 0.3 + torch.tensor(length)[:, None, None, None] / 10
        torch.testing.assert_close(small, expected)
    decoded = mixture.decode(z)
    enlarged = torch.nn.functional.interpolate(two.decode(parts_of(z)[1]), (12, 12), mode="bilinear")
    torch.testing.assert_close(decoded, 0.7 * one.decode(parts_of(z)[0]) + 0.3 * enlarged)


def test_a_mixture_runs_with_negatives() -> None:
    mixture = Mixture([(0.5, GrayBallPrior()), (0.5, Small())])
    settings = {**SMALL, "device": "cpu", "distillation.negative_prompt": "ugly", "distillation.perp_neg": "true"}
    trainer = Trainer(resolve("fast", settings, "a cat"), mixture)
    assert trainer.step()["skipped"] == 0


def test_latents_of_a_prior_that_has_none(sd: Path) -> None:
    for channels, prior in (("4", GrayBallPrior()), ("8", load_prior(str(sd), precision="float32"))):
        with pytest.raises(UserError, match=r"scene\.channels"):
            Trainer(resolve("fast", {**SMALL, "device": "cpu", "scene.channels": channels}, "a cat"), prior)


def test_guidance_out_of_range() -> None:
    with pytest.raises(UserError, match="guidance_scale"):
        resolve("fast", {"distillation.guidance_scale": "-3"}, "a cat")


def test_eight_bit_needs_its_package(sd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dreamfusion.priors import embeddings

    monkeypatch.setattr(embeddings, "importlib_missing", lambda name: True)
    with pytest.raises(UserError, match="bitsandbytes"):
        embeddings.eight_bit_config()


def test_back_propagation_cannot_be_offloaded_by_layer(sd: Path) -> None:
    prior = load_prior(str(sd), precision="float32", memory="lowest")
    question, picture = ask(prior.embed(["a"])), torch.rand(1, 3, 32, 32)
    noise = torch.randn(prior.noise_shape(1))
    with pytest.raises(UserError, match="lowest"):
        direction(picture, prior, question, torch.tensor([0.5]), noise, ReconstructionSettings())
