"""Adapters of diffusers' pipelines: equal to the pipeline's own network and scheduler, frozen, usable by every rule and scene."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

diffusers = pytest.importorskip("diffusers")

from dreamfusion.distillation.rule_settings import ReconstructionSettings, SdsSettings  # noqa: E402
from dreamfusion.loading import load_prior  # noqa: E402
from dreamfusion.priors.palette import latent_palette  # noqa: E402
from dreamfusion.priors.prior import broadcast, clean_from_noise  # noqa: E402
from dreamfusion.settings.presets import resolve  # noqa: E402
from dreamfusion.trainer import Trainer  # noqa: E402
from tests.fakes import SMALL, GrayBallPrior, ask, direction  # noqa: E402
from tests.tiny_pipelines import NAMES, save  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CAPTIONS = ["a front view of a cat", "a dog"]
STEP = {"if": 400, "sd": 250, "sdv": 900, "sdxl": 17, "sd3": 500, "flux": 300}  # of the scheduler, from clean data


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All tiny pipelines, saved."""
    folder = tmp_path_factory.mktemp("tiny")
    return {name: save(name, folder) for name in NAMES}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache of embeddings, away from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("DREAMFUSION_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def priors(tiny: dict[str, Path]) -> dict[str, Any]:
    """Every tiny prior, loaded once; tests leave them as they are."""
    return {name: load(folder) for name, folder in tiny.items()}


def load(folder: Path, **options: Any) -> Any:
    return load_prior(str(folder), "cpu", "float32", **options)


def both(prior: Any, z_t: Tensor, t: Tensor, captions: list[str]) -> tuple[Tensor, ...]:
    """e(y), e(nothing)."""
    question = ask(prior.embed(captions))
    return prior.predict_noise(z_t, t, question, [question.words, None])


def weights(prior: Any) -> dict[str, Tensor]:
    models = [prior.network, *([prior.vae] if prior.family.latent else [])]
    return {f"{k}.{n}": p for k, m in enumerate(models) for n, p in m.named_parameters()}


@torch.no_grad()
def by_hand(name: str, folder: Path, z_t: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """(e(y), e(nothing)) as a user of diffusers would write it for this pipeline: its own embedding, network and scheduler."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folder))
    scheduler, size = pipeline.scheduler, 2 * z_t.shape[-1]
    if name == "if":
        yes, no = pipeline.encode_prompt(CAPTIONS, True)
        out = [pipeline.unet(z_t, step, encoder_hidden_states=w).sample.chunk(2, 1)[0] for w in (yes, no)]
    elif name in ("sd", "sdv"):
        yes, no = pipeline.encode_prompt(CAPTIONS, "cpu", 1, True)
        out = [pipeline.unet(z_t, step, encoder_hidden_states=w).sample for w in (yes, no)]
    elif name == "sdxl":
        yes, no, pooled_yes, pooled_no = pipeline.encode_prompt(CAPTIONS, do_classifier_free_guidance=True)
        ids = pipeline._get_add_time_ids((size, size), (0, 0), (size, size), torch.float32, 32).repeat(2, 1)
        out = [
            pipeline.unet(
                z_t, step, encoder_hidden_states=w, added_cond_kwargs={"text_embeds": p, "time_ids": ids}
            ).sample
            for w, p in ((yes, pooled_yes), (no, pooled_no))
        ]
    elif name == "sd3":
        yes, no, pooled_yes, pooled_no = pipeline.encode_prompt(CAPTIONS, None, None)
        time = scheduler.timesteps[1000 - step].expand(2)
        out = [
            pipeline.transformer(z_t, encoder_hidden_states=w, pooled_projections=p, timestep=time).sample
            for w, p in ((yes, pooled_yes), (no, pooled_no))
        ]
    else:
        count, channels, height, width = z_t.shape
        mu = 0.5 + (1.15 - 0.5) * (height * width // 4 - 256) / (4096 - 256)
        scheduler.set_timesteps(1000, mu=mu)
        packed = pipeline._pack_latents(z_t, count, channels, height, width)
        places = pipeline._prepare_latent_image_ids(count, height // 2, width // 2, "cpu", torch.float32)
        out = []
        for captions in (CAPTIONS, ["", ""]):
            words, pooled, ids = pipeline.encode_prompt(captions, None)
            answer = pipeline.transformer(
                packed, timestep=scheduler.timesteps[1000 - step].expand(2) / 1000, guidance=torch.ones(2),
                pooled_projections=pooled, encoder_hidden_states=words, txt_ids=ids, img_ids=places,
            ).sample  # fmt: skip
            out.append(pipeline._unpack_latents(answer, height * 2, width * 2, pipeline.vae_scale_factor))
    if name in ("sd3", "flux"):  # z_t = (1 - s) x + s e and v = e - x
        sigma = scheduler.sigmas[1000 - step]
        return out[0] * (1 - sigma) + z_t, out[1] * (1 - sigma) + z_t
    if name == "sdv":
        kept = scheduler.alphas_cumprod[step]
        return kept.sqrt() * out[0] + (1 - kept).sqrt() * z_t, kept.sqrt() * out[1] + (1 - kept).sqrt() * z_t
    return out[0], out[1]


@pytest.mark.parametrize("name", NAMES)
def test_same_noise_as_the_pipeline_by_hand(name: str, tiny: dict[str, Path], priors: dict[str, Any]) -> None:
    prior = priors[name]
    z_t = torch.randn(prior.noise_shape(2), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        got = both(prior, z_t, torch.full((2,), STEP[name] / 1000), CAPTIONS)
    expected = by_hand(name, tiny[name], z_t, STEP[name])
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)
    assert (got[0] - got[1]).abs().max() > 1e-4  # the words matter, so the comparison means something


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux"])
def test_encode_and_decode_are_the_vaes(name: str, tiny: dict[str, Path], priors: dict[str, Any]) -> None:
    prior, vae = priors[name], diffusers.AutoencoderKL.from_pretrained(str(tiny[name] / "vae"))
    picture = torch.rand(1, 3, prior.resolution, prior.resolution, generator=torch.Generator().manual_seed(1))
    config = vae.config
    with torch.no_grad():
        expected = (vae.encode(picture * 2 - 1).latent_dist.mean - (config.shift_factor or 0)) * config.scaling_factor
        torch.testing.assert_close(prior.encode(picture), expected)
        back = vae.decode(expected / config.scaling_factor + (config.shift_factor or 0)).sample / 2 + 0.5
        torch.testing.assert_close(prior.decode(expected), back, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["if", "sd", "sd3"])
def test_reconstruction_is_the_gradient_of_its_loss(name: str, tiny: dict[str, Path]) -> None:
    prior = load(tiny[name])
    g = torch.Generator().manual_seed(2)
    picture = torch.rand(1, 3, prior.resolution, prior.resolution, generator=g).double()
    noise, t = torch.randn(prior.noise_shape(1), generator=g).double(), torch.tensor([0.6])
    question = ask(prior.embed(CAPTIONS[:1]))
    settings = ReconstructionSettings(guidance_scale=1.5, weight="uniform", threshold=0)
    for model in (prior.network, *([prior.vae] if prior.family.latent else [])):
        model.double()
    prior.dtype = torch.float64

    def loss(x: Tensor) -> float:
        z = prior.encode(x)
        alpha, sigma = (broadcast(a, z) for a in prior.alpha_sigma(t))
        with torch.no_grad():
            yes, no = both(prior, alpha * z + sigma * noise, t, CAPTIONS[:1])
        return float(0.5 * (2.5 * yes - 1.5 * no - noise).square().sum()) / prior.resolution**2

    gradient = direction(picture, prior, question, t, noise, settings).gradient
    step = torch.randn(picture.shape, generator=g).double()
    numeric = (loss(picture + 1e-5 * step) - loss(picture - 1e-5 * step)) / 2e-5
    assert numeric == pytest.approx(float((gradient * step).sum()), rel=1e-4)


@pytest.mark.parametrize("kind", ["sds", "reconstruction"])
@pytest.mark.parametrize("scene", ["grid", "mlp"])
@pytest.mark.parametrize("name", ["if", "sd", "sdxl", "sd3", "flux"])
def test_matrix(name: str, scene: str, kind: str, priors: dict[str, Any]) -> None:
    prior = priors[name]
    settings = {
        **SMALL, "steps": "3", "scene.kind": scene, "scene.hidden": "8", "distillation.kind": kind, "prior.asks": "words",
        "resolution": str(prior.resolution), "device": "cpu",
    }  # fmt: skip
    if scene == "mlp":
        del settings["scene.levels"]
    trainer = Trainer(resolve("fast", settings, "a cat"), prior)
    before = {n: p.clone() for n, p in trainer.scene.named_parameters()}
    frozen = {n: p.clone() for n, p in weights(prior).items()}
    for _ in range(3):
        assert trainer.step()["skipped"] == 0
    assert any(not torch.equal(before[n], p) for n, p in trainer.scene.named_parameters())
    for n, p in weights(prior).items():
        assert torch.equal(p, frozen[n]), n
        assert p.grad is None and not p.requires_grad, n


def test_sds_runs_the_network_forward_only(tiny: dict[str, Path]) -> None:
    prior = load(tiny["sd"])
    question, noise = ask(prior.embed(CAPTIONS[:1])), torch.randn(prior.noise_shape(1))
    recorded = []
    prior.network.register_forward_hook(lambda module, args, output: recorded.append(output[0].requires_grad))
    picture = torch.rand(1, 3, 32, 32)
    for settings in (SdsSettings(guidance_scale=10.0), ReconstructionSettings(guidance_scale=10.0)):
        direction(picture, prior, question, torch.tensor([0.5]), noise, settings)
    assert recorded == [False, True]


def test_a_point_distribution_as_flow_has_its_closed_form(
    tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Data at one latent m: v = (z_t - m) / sigma. Through the whole adapter, e_hat must lead back to m.
    prior = load(tiny["sd3"])
    m = torch.randn(prior.noise_shape(1), generator=torch.Generator().manual_seed(3))
    t = torch.tensor([0.37])
    sigma = prior.alpha_sigma(t)[1]
    assert sigma.item() == pytest.approx(3 * 0.37 / (1 + 2 * 0.37), rel=1e-5)

    def network(hidden_states: Tensor, timestep: Tensor, **_: Any) -> tuple[Tensor]:
        torch.testing.assert_close(timestep, (sigma * 1000).expand(2))
        return ((hidden_states - m) / sigma,)

    prior.__dict__["network"] = network
    prior._bring = lambda name: network
    noise = torch.randn(m.shape, generator=torch.Generator().manual_seed(4))
    z_t = (1 - sigma) * m + sigma * noise
    found, _ = both(prior, z_t, t, ["x"])
    torch.testing.assert_close(found, noise, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(clean_from_noise(z_t, found, *prior.alpha_sigma(t)), m, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("memory", ["low", "lowest"])
def test_saving_memory_changes_no_answer(memory: str, tiny: dict[str, Path], priors: dict[str, Any]) -> None:
    for name in ("sd", "sd3"):
        fast, small = priors[name], load(tiny[name], memory=memory)
        z_t, t = torch.randn(fast.noise_shape(1)), torch.tensor([0.5])
        picture = torch.rand(1, 3, fast.resolution, fast.resolution)
        with torch.no_grad():
            for a, b in zip(both(fast, z_t, t, ["a"]), both(small, z_t, t, ["a"]), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        x, y = (picture.clone().requires_grad_() for _ in range(2))
        fast.encode(x).square().sum().backward()
        small.encode(y).square().sum().backward()
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)


def test_one_model_at_a_time_is_on_the_device(tiny: dict[str, Path]) -> None:
    prior = load(tiny["sd"], memory="low")
    question, noise = ask(prior.embed(["a"])), torch.randn(prior.noise_shape(1))
    order = []
    real = prior._bring
    prior._bring = lambda name: order.append(name) or real(name)
    settings = SdsSettings(guidance_scale=10.0)
    direction(torch.rand(1, 3, 32, 32), prior, question, torch.tensor([0.5]), noise, settings)
    # The encoder is run again for its gradient, after the network (asked twice, for each half of guidance).
    assert order == ["vae", "network", "network", "vae"]


def test_half_precision_is_near_float32(tiny: dict[str, Path], priors: dict[str, Any]) -> None:
    full, half = priors["sdxl"], load_prior(str(tiny["sdxl"]), "cpu", "bfloat16")
    z_t, t = torch.randn(full.noise_shape(1)), torch.tensor([0.5])
    with torch.no_grad():
        a, b = both(full, z_t, t, ["a"])[0], both(half, z_t, t, ["a"])[0]
    assert b.dtype == torch.float32 and (a - b).abs().mean() < 0.05 * a.abs().mean()


def test_text_encoders_are_loaded_once_and_never_where_the_cache_knows(
    tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamfusion.priors.embeddings import TextEncoders

    monkeypatch.setenv("DREAMFUSION_CACHE", str(tmp_path))

    loads = []
    real = TextEncoders._pipeline
    monkeypatch.setattr(TextEncoders, "_pipeline", lambda self: loads.append(1) or real(self))
    first = load(tiny["sdxl"]).embed(CAPTIONS)
    assert len(loads) == 1
    prior = load(tiny["sdxl"])
    second = prior.embed(CAPTIONS)
    assert len(loads) == 1 and "network" not in prior.__dict__  # and nothing else was loaded either
    assert torch.equal(first.tokens, second.tokens) and torch.equal(first.pooled, second.pooled)
    for file in tmp_path.rglob("*.safetensors"):
        file.write_bytes(b"damaged")
    third = load(tiny["sdxl"]).embed(CAPTIONS)
    assert len(loads) == 2 and torch.equal(first.tokens, third.tokens)
    load(tiny["sd"]).embed(CAPTIONS)
    assert len(loads) == 3  # another model's embeddings are not taken for this one's


def test_latents_are_rendered_and_then_refined_as_pictures(tiny: dict[str, Path]) -> None:
    prior = load(tiny["sd"])
    settings = {**SMALL, "steps": "3", "resolution": "16", "device": "cpu"}
    trainer = Trainer(resolve("latent-nerf", settings, "a cat"), prior)  # two stages, of as many steps each
    encoded = []
    real = prior.encode
    prior.encode = lambda picture: encoded.append(tuple(picture.shape[1:])) or real(picture)
    palette = trainer.scene.palette.weight.clone()
    for _ in range(6):
        trainer.step()
    assert encoded == [(4, 16, 16)] * 3 + [(3, 16, 16)] * 3
    assert not torch.equal(palette, trainer.scene.palette.weight)
    colours = trainer.scene.albedo(torch.rand(5, 3) - 0.5)
    assert colours.shape == (5, 3) and colours.min() >= 0 and colours.max() <= 1


def test_the_palette_recovers_a_linear_vae(tiny: dict[str, Path]) -> None:
    class Linear(GrayBallPrior):
        id, channels, resolution = "linear", 4, 32

        def encode(self, picture: Tensor) -> Tensor:
            mixed = torch.einsum(
                "kc,bchw->bkhw", torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [1, 1, 1]]), picture - 0.5
            )
            return torch.nn.functional.avg_pool2d(mixed, 2)

    weight, bias = latent_palette(Linear(), 4)
    colour = torch.tensor([0.9, 0.2, 0.4])
    latent = Linear().encode(colour.reshape(1, 3, 1, 1).expand(1, 3, 2, 2)).flatten() / 8 + 0.5
    torch.testing.assert_close(weight @ latent + bias, colour, atol=0.05, rtol=0)


def test_text_encoders_give_their_memory_back(
    tiny: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dreamfusion.priors.embeddings import TextEncoders

    monkeypatch.setenv("DREAMFUSION_CACHE", str(tmp_path))
    kept = []
    real = TextEncoders._pipeline
    monkeypatch.setattr(TextEncoders, "_pipeline", lambda self: kept.append(real(self)) or kept[-1])
    load(tiny["sd3"]).embed(["a"])
    encoders = [kept[0].text_encoder, kept[0].text_encoder_2, kept[0].text_encoder_3]
    assert all(p.is_meta for e in encoders for p in e.parameters())
