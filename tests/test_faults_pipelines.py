"""Parts of pipelines: what users have on disk is loaded, exactly; what a prior cannot be made of is named in one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("peft")

from dreamfusion import cli  # noqa: E402
from dreamfusion.errors import UserError  # noqa: E402
from dreamfusion.prior_report import describe_prior  # noqa: E402
from tests.pipelines import answers, edit, load, refused  # noqa: E402
from tests.tiny_pipelines import save, tiny_vae  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture
def folder(sd: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(sd, tmp_path / "sd"))


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
