"""The prior that comes with the package: a 64 x 64 pixel-space text-to-image diffusion model (see ``weights/card.md``)."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import UserError
from .prior import Condition, broadcast, cosine_schedule, guide, stack
from .layout import Layout
from .denoiser import Denoiser
from .sampler import ddim
from ..models.text_encoder import TextEncoder
from ..models.hashes import file_sha256

WEIGHTS = Path(__file__).parent / "weights" / "bundled.safetensors"
SIZE = 64
STOP_WORDS = frozenset(
    "a an the of with and in on at to its it is very from for by or that this front side back overhead view".split()
)


def inference_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The arithmetic a precision setting means here; 'auto' is bfloat16 where the hardware multiplies it."""
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
    if device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return "".join(c if c.isalnum() or c in "'-" else " " for c in text.lower()).split()


@dataclass(frozen=True)
class Unknown:
    """A word the prior was never taught: the nearest name it knows, and their cosine similarity."""

    word: str
    nearest: str
    similarity: float


class BundledPrior:
    """A frozen prior in the sense of ``base.Prior``; answers e although its network predicts v."""

    id = "bundled"
    resolution = SIZE

    def __init__(self, path: Path = WEIGHTS, device: str | torch.device = "cpu", precision: str = "auto"):
        """Load weights; UserError if they are missing, altered (where a hash is on record) or of another shape."""
        if not path.is_file():
            raise UserError(
                f"the prior's weights are missing: {path} (reinstall dreamfusion, or train them with tools/prior)"
            )
        self.device = torch.device(device)
        self.dtype = inference_dtype(precision, self.device)
        self.hash = file_sha256(path)
        record = path.with_suffix(".json")
        self.record: dict = json.loads(record.read_text()) if record.exists() else {}
        if expected := self.record.get("sha256"):
            if expected != self.hash:
                raise UserError(
                    f"the prior's weights were altered: SHA-256 of {path} is {self.hash[:12]}…, expected {expected[:12]}…"
                )
        try:
            stored = load_file(path)
            self.layout, self.denoiser = Layout(), Denoiser()
            for name, network in (("layout", self.layout), ("denoiser", self.denoiser)):
                network.load_state_dict({k[len(name) + 1 :]: v for k, v in stored.items() if k.startswith(name + ".")})
                network.to(self.device, self.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
                network.eval().requires_grad_(False)
        except (SafetensorError, RuntimeError, OSError) as error:
            raise UserError(f"{path} does not hold this prior's weights: {str(error).splitlines()[0]}") from None
        self._unknown: dict[str, Unknown] = {}

    @cached_property
    def encoder(self) -> TextEncoder:
        """The text encoder, loaded when first needed."""
        return TextEncoder.load()

    def embed(self, captions: list[str]) -> Condition:
        """Embed captions; one without any name that was taught is read as ``familiar`` puts it."""
        tokens, mask = self.encoder([self.familiar(c) for c in captions])
        return Condition(tokens.to(self.device), mask.to(self.device))

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return cosine_schedule(t)

    def encode(self, picture: Tensor) -> Tensor:
        if picture.shape[-1] != SIZE or picture.shape[-2] != SIZE:
            picture = torch.nn.functional.interpolate(picture, (SIZE, SIZE), mode="bilinear", antialias=True)
        return picture * 2 - 1

    def decode(self, z: Tensor) -> Tensor:
        return (z + 1) / 2

    @torch.no_grad()
    def mean_picture(self, condition: Condition) -> Tensor:
        """What the layout network expects to see, (B, 3, 64, 64) in [-1, 1]."""
        camera, has_camera = self._camera(condition)
        return self.layout(condition.tokens, condition.mask, camera, has_camera, self._background(condition))

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, 3, SIZE, SIZE)

    def predict_noise(self, z_t: Tensor, t: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        return self._answer(z_t, t, condition, self.mean_picture(condition))

    def _answer(self, z_t: Tensor, t: Tensor, condition: Condition, layout: Tensor) -> tuple[Tensor, Tensor]:
        count = len(z_t)
        camera, has_camera = self._camera(condition)
        behind = self._background(condition)
        yes, no = torch.ones_like(has_camera), torch.zeros_like(has_camera)
        alpha, sigma = (broadcast(x, z_t) for x in self.alpha_sigma(t))
        if condition.alone:
            v = self.denoiser(z_t, t, layout, condition.tokens, condition.mask, camera, yes, has_camera)
            answer = alpha * v.to(z_t.dtype) + sigma * z_t
            return answer, answer
        # Without a negative prompt the second half has no words, and then neither camera nor layout, but for the background.
        other, no_layout, has_words = condition, behind[:, :, None, None].expand_as(layout), no
        if condition.nothing is not None:
            other, has_words = condition.nothing, yes
            no_layout = self.layout(other.tokens, other.mask, camera, no, behind)
        both = stack(condition, other)
        v = self.denoiser(
            z_t.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([layout, no_layout]), both.tokens, both.mask, camera.repeat(2, 1),
            torch.cat([yes, has_words]), torch.cat([has_camera, no]),
        )  # fmt: skip
        with_text, without = v.to(z_t.dtype).split(count)
        return alpha * with_text + sigma * z_t, alpha * without + sigma * z_t

    def _camera(self, condition: Condition) -> tuple[Tensor, Tensor]:
        count = len(condition.tokens)
        if condition.camera is None:
            return torch.zeros(count, 3, device=self.device), torch.zeros(count, dtype=torch.bool, device=self.device)
        return condition.camera, torch.ones(count, dtype=torch.bool, device=self.device)

    def _background(self, condition: Condition) -> Tensor:
        if condition.background is None:
            return torch.zeros(len(condition.tokens), 3, device=self.device)
        return condition.background.to(self.device) * 2 - 1

    @torch.no_grad()
    def sample(
        self, condition: Condition, generator: torch.Generator, guidance_scale: float = 2.0, steps: int = 30
    ) -> Tensor:
        """Pictures (B, 3, 64, 64) in [0, 1] by DDIM (Song et al. 2021, eta = 0) over even steps of t."""
        noise = torch.randn((len(condition.tokens), 3, SIZE, SIZE), generator=generator).to(self.device)
        condition = replace(condition, alone=guidance_scale == 0)
        layout = self.mean_picture(condition)  # the same at every step

        def predict(z: Tensor, t: Tensor) -> Tensor:
            return guide(*self._answer(z, t, condition, layout), guidance_scale)

        return self.decode(ddim(predict, self.alpha_sigma, noise, steps, limit=1.0)).clamp(0, 1)

    def sample_views(
        self,
        prompt: str,
        views: int = 4,
        guidance_scale: float = 2.0,
        seed: int = 0,
        elevation_deg: float = 20.0,
        camera: bool = True,
    ) -> Tensor:
        """The prompt from ``views`` azimuths all round, (views, 3, 64, 64) in [0, 1], each a sample of its own."""
        from ..view.view_settings import ViewSettings
        from ..view.view_words import view_words, with_view

        azimuths = [360.0 * k / views for k in range(views)]
        words = self.embed([with_view(prompt, view_words(a, elevation_deg, ViewSettings())) for a in azimuths])
        cameras = torch.tensor(
            [[math.radians(a), math.radians(elevation_deg), 2.5] for a in azimuths], device=self.device
        )
        return self.sample(
            words.with_camera(cameras if camera else None), torch.Generator().manual_seed(seed), guidance_scale
        )

    def unknown_words(self, prompt: str) -> list[Unknown]:
        """Words of the prompt that no training caption held, each with the nearest name the prior knows."""
        known = set(self.record.get("words", ())) | STOP_WORDS
        strange = [w for w in dict.fromkeys(words_of(prompt)) if self.names and w not in known]
        if new := [w for w in strange if w not in self._unknown]:
            best = (self.encoder.sentence(new) @ self._name_embeddings.T).max(1)
            for word, similarity, name in zip(new, best.values.tolist(), best.indices.tolist(), strict=True):
                self._unknown[word] = Unknown(word, self.names[name], similarity)
        return [self._unknown[w] for w in strange]

    def familiar(self, caption: str) -> str:
        """The caption with its unknown word that is most like a name put as that name: 'a red automobile' is 'a red car'.

        As it is where it holds a name that was taught, or no unknown word: things that were never seen cannot be drawn, and
        of words alone the networks would make a thing at random.
        """
        plain = f" {' '.join(words_of(caption))} "
        strange = self.unknown_words(caption)
        if not strange or any(f" {name} " in plain for name in self.names):
            return caption
        best = max(strange, key=lambda u: u.similarity)
        return re.sub(rf"\b{re.escape(best.word)}\b", best.nearest, caption, flags=re.IGNORECASE)

    @cached_property
    def names(self) -> list[str]:
        """What the prior can draw, with synonyms."""
        return list(self.record.get("names", ()))

    @cached_property
    def _name_embeddings(self) -> Tensor:
        return self.encoder.sentence(self.names)

    def info(self) -> dict:
        """What the weights are: size, hash, vocabulary and the training record."""
        parameters = sum(p.numel() for n in (self.layout, self.denoiser) for p in n.parameters())
        stated = {k: v for k, v in self.record.items() if k not in ("words", "sha256")}
        return {
            "id": self.id,
            "sha256": self.hash,
            "parameters": parameters,
            "resolution": SIZE,
            "dtype": str(self.dtype),
        } | stated
