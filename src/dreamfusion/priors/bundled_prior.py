"""The prior that comes with the package: a 64 x 64 pixel-space text-to-image diffusion model (see ``weights/card.md``)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from PIL.Image import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..device import inference_dtype
from ..errors import UserError
from ..models.hashes import file_sha256
from ..models.text_encoder import TextEncoder
from .denoiser import Denoiser
from .hypotheses import Hypotheses
from .inference import SIDES, Inference, Inferred, Noisy
from .layout import Layout
from .prior import Prior, Unknown, broadcast, cosine_schedule
from .question import Question, Tokens, Words, stacked

WEIGHTS = Path(__file__).parent / "weights" / "bundled.safetensors"
SIZE = 64
STOP_WORDS = frozenset(
    "a an the of with and in on at to its it is very from for by or that this front side back overhead view".split()
)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return "".join(c if c.isalnum() or c in "'-" else " " for c in text.lower()).split()


def sides_of(captions: Sequence[str]) -> Tensor:
    """Which side each caption tells, (B, 4) of ``inference.SIDES``: a one, or only zeros where none is told."""
    found = [re.match(r"\s*an? (\w+) view of ", caption, re.IGNORECASE) for caption in captions]
    told = [match[1].lower() if match else "" for match in found]
    return torch.tensor([[float(side == name) for name in SIDES] for side in told])


def tokens_of(words: Words) -> Tokens:
    """The words as this prior made them."""
    assert isinstance(words, Tokens)
    return words


class BundledPrior(Prior):
    """A frozen prior of 64 x 64 pictures; it answers e, although its network predicts v."""

    id = "bundled"
    resolution = SIZE
    limit = 1.0
    joint = True

    def __init__(self, path: Path = WEIGHTS, device: str | torch.device = "cpu", precision: str = "auto"):
        """Load weights; UserError if they are missing, altered (if a hash is on record) or of another shape."""
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
        self._drawn: tuple[Question, Tensor] | None = None

    @cached_property
    def encoder(self) -> TextEncoder:
        """The text encoder, loaded when first needed."""
        return TextEncoder.load()

    def embed(self, captions: Sequence[str], images: Sequence[Image] = ()) -> Tokens:
        """Read captions. A caption without any known name is read as ``familiar`` puts it."""
        self.no_images(images)
        tokens, mask = self.encoder([self.familiar(c) for c in captions])
        return Tokens(tokens, mask, sides_of(captions)).to(self.device)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return cosine_schedule(t)

    def encode(self, picture: Tensor) -> Tensor:
        if picture.shape[-1] != SIZE or picture.shape[-2] != SIZE:
            picture = torch.nn.functional.interpolate(picture, (SIZE, SIZE), mode="bilinear", antialias=True)
        return picture * 2 - 1

    def decode(self, z: Tensor) -> Tensor:
        return (z + 1) / 2

    @torch.no_grad()
    def mean_picture(self, question: Question) -> Tensor:
        """What the layout network expects to see, (B, 3, 64, 64) in [-1, 1]. The last answer is kept: a sampler asks the
        same question at every step."""
        if self._drawn is None or self._drawn[0] is not question:
            words = tokens_of(question.words)
            camera, has_camera = self._camera(question)
            drawn = self.layout(words.tokens, words.mask, camera, has_camera, self._background(question))
            self._drawn = question, drawn
        return self._drawn[1]

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, 3, SIZE, SIZE)

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        """Told the camera, the networks answer. Whatever else is left open is inferred from the noisy picture."""
        if question.asks == "camera":
            return self._told(z_t, t, question, about)
        alpha, sigma = self.alpha_sigma(t)
        # The posterior is compared on the CPU, where its pictures are.
        seen = Noisy(z_t.float().cpu(), alpha.cpu(), sigma.cpu(), self._background(question).cpu())
        return tuple(seen.noise(seen.clean(self._inferred(seen, question, w).mean)).to(z_t) for w in about)

    def _inferred(self, seen: Noisy, question: Question, about: Words | None) -> Inferred:
        """What the noisy pictures show, if it is what the words say, from cameras that are not told."""
        words = tokens_of(question.words if about is None else about)
        if about is None:
            return self.inference.nothing(seen, words.tokens, words.mask)
        if about is question.words and question.asks == "views":
            return self.inference.views(
                seen, words.tokens, words.mask, question.view.cameras.condition(), question.view.group
            )
        sides = None if words.pooled is None else words.pooled.cpu()
        return self.inference.words(seen, words.tokens, words.mask, sides)

    @cached_property
    def inference(self) -> Inference:
        """Answers what is not told, from the noisy picture."""
        return Inference(Hypotheses(self.layout))

    def _told(self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]) -> tuple[Tensor, ...]:
        camera, has_camera = self._camera(question)
        behind = self._background(question)
        yes, no = torch.ones_like(has_camera), torch.zeros_like(has_camera)
        alpha, sigma = (broadcast(x, z_t) for x in self.alpha_sigma(t))
        layouts, words, told = [], [], []
        for asked in about:
            # "Nothing" has no words, no camera and no layout, only the background; its tokens are not read.
            row = tokens_of(question.words if asked is None else asked)
            words.append(row)
            told.append((no if asked is None else yes, has_camera if asked is question.words else no))
            if asked is question.words:
                layouts.append(self.mean_picture(question))
            elif asked is None:
                layouts.append(behind[:, :, None, None].expand(len(z_t), 3, SIZE, SIZE))
            else:
                layouts.append(self.layout(row.tokens, row.mask, camera, no, behind))
        many, rows = len(about), stacked(words)
        has_words, has_camera = (torch.cat(x) for x in zip(*told, strict=True))
        v = self.denoiser(
            z_t.repeat(many, 1, 1, 1), t.repeat(many), torch.cat(layouts), rows.tokens, rows.mask, camera.repeat(many, 1),
            has_words, has_camera,
        )  # fmt: skip
        return tuple(alpha * part + sigma * z_t for part in v.to(z_t.dtype).split(len(z_t)))

    def _camera(self, question: Question) -> tuple[Tensor, Tensor]:
        count = len(question.view)
        if question.asks != "camera":
            return torch.zeros(count, 3, device=self.device), torch.zeros(count, dtype=torch.bool, device=self.device)
        camera = question.view.cameras.condition().to(self.device)
        return camera, torch.ones(count, dtype=torch.bool, device=self.device)

    def _background(self, question: Question) -> Tensor:
        colours = question.view.plain_background
        if colours is None:
            return torch.zeros(len(question.view), 3, device=self.device)
        return colours.to(self.device) * 2 - 1

    def unknown_words(self, prompt: str) -> list[Unknown]:
        """Words of the prompt that were in no training caption, each with the nearest name that the prior knows."""
        known = set(self.record.get("words", ())) | STOP_WORDS
        strange = [w for w in dict.fromkeys(words_of(prompt)) if self.names and w not in known]
        if new := [w for w in strange if w not in self._unknown]:
            best = (self.encoder.sentence(new) @ self._name_embeddings.T).max(1)
            for word, similarity, name in zip(new, best.values.tolist(), best.indices.tolist(), strict=True):
                self._unknown[word] = Unknown(word, self.names[name], similarity)
        return [self._unknown[w] for w in strange]

    def unread(self, caption: str) -> str:
        return self.encoder.unread(caption)

    def familiar(self, caption: str) -> str:
        """The caption with the unknown word that is most like a name replaced by that name: 'a red automobile' is 'a red car'.

        A caption stays as it is if it holds a known name or no unknown word. The networks cannot draw things that they never
        saw; from unknown words alone they would draw a random thing.
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

    @property
    def parameters(self) -> int:
        """How many parameters the networks have."""
        return sum(p.numel() for n in (self.layout, self.denoiser) for p in n.parameters())

    def info(self) -> dict[str, object]:
        """What the weights are: size, hash, vocabulary and the training record."""
        stated = {k: v for k, v in self.record.items() if k not in ("words", "sha256")}
        return {
            "id": self.id,
            "sha256": self.hash,
            "parameters": self.parameters,
            "resolution": SIZE,
            "dtype": str(self.dtype),
        } | stated
