"""The prior that comes with the package: a 64 x 64 pixel-space text-to-image diffusion model (see ``weights/card.md``)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import UserError
from ..models.hashes import file_sha256
from ..models.text_encoder import TextEncoder
from . import name_meanings, posterior
from .hypotheses import Hypotheses
from .inference import SIDES, SPREAD, Inference, Inferred, Noisy
from .layout import INSTANCES, Layout, Light, Sizes, restricted
from .phrases import paint_of, tail_of, without_tail, words_of
from .prior import Prior, Unknown, cosine_schedule, pixels
from .question import Question, Words
from .recognition import Recognised, Recogniser
from .subjects import Subjects, asks_clay, clay_look, plain_look

WEIGHTS = Path(__file__).parent / "weights" / "bundled.safetensors"
NAMES = "names.safetensors"
"""The meanings of the names, beside the weights (``name_meanings``)."""
SIZE = 64
STOP_WORDS = frozenset(
    "a an the of with and in on at to its it is very from for by or that this front side back overhead view".split()
)


def sides_of(captions: Sequence[str]) -> Tensor:
    """Which side each caption tells, (B, 4) of ``inference.SIDES``: a one, or only zeros where none is told."""
    found = [re.match(r"\s*an? (\w+) view of ", caption, re.IGNORECASE) for caption in captions]
    told = [match[1].lower() if match else "" for match in found]
    return torch.tensor([[float(side == name) for name in SIDES] for side in told])


def subjects_of(words: Words) -> Subjects:
    """The words as this prior made them."""
    assert isinstance(words, Subjects)
    return words


def unpacked(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Packed weights as the layout has them: planes (I, W) are stored in eight bits, with a scale (I,) for each shape."""
    stored = {key.removeprefix("layout."): value for key, value in stored.items()}
    planes, scale = stored.pop("planes.packed"), stored.pop("planes.scale")
    stored["planes.weight"] = (planes.float() * scale.float()[:, None]).half()
    return stored


def layout_of(weights: dict[str, Tensor]) -> Layout:
    """A frozen layout of the weights. Planes stay in half precision: a few rows of many are read.

    RuntimeError or KeyError if these are no weights of a layout.
    """
    with torch.device("meta"):  # nothing is initialised only to be overwritten
        layout = Layout(Sizes.of(weights))
    kinds = {key: value.dtype for key, value in layout.state_dict().items()} | {"planes.weight": torch.float16}
    layout.load_state_dict({key: value.to(kinds.get(key)) for key, value in weights.items()}, assign=True)
    return layout.eval().requires_grad_(False)


class BundledPrior(Prior):
    """A frozen prior of 64 x 64 pictures. The layout says what is to be seen, and pictures scatter around it evenly (``posterior``)."""

    id = "bundled"
    resolution = SIZE
    limit = 1.0
    joint = True
    knows_depth = True

    def __init__(
        self, path: Path = WEIGHTS, device: str | torch.device = "cpu", precision: str = "auto", instance: int = 0
    ):
        """Load weights. A name that several shapes show means its shape number ``instance``, counted round. Whatever ``precision`` is
        asked for, shapes are drawn in single precision: it costs little, and depths need it.

        UserError if they are missing, altered (if a hash is on record) or of another shape.
        """
        if not path.is_file():
            raise UserError(
                f"the prior's weights are missing: {path} (reinstall dreamfusion, or train them with tools/prior)"
            )
        self.path, self.device = path, torch.device(device)
        self.hash = file_sha256(path)
        record = path.with_suffix(".json")
        self.record: dict = json.loads(record.read_text()) if record.exists() else {}
        if expected := self.record.get("sha256"):
            if expected != self.hash:
                raise UserError(
                    f"the prior's weights were altered: SHA-256 of {path} is {self.hash[:12]}…, expected {expected[:12]}…"
                )
        try:
            self.layout = layout_of(unpacked(load_file(path))).to(self.device)
        except (SafetensorError, RuntimeError, KeyError, OSError) as error:
            raise UserError(f"{path} does not hold this prior's weights: {str(error).splitlines()[0]}") from None
        self.instance = instance
        self._unknown: dict[str, Unknown] = {}
        self._drawn: tuple[Question, Tensor] | None = None
        self._seen: tuple[Tensor, str, Recognised] | None = None

    @cached_property
    def encoder(self) -> TextEncoder:
        """The text encoder, loaded when first needed."""
        return TextEncoder.load()

    @torch.no_grad()
    def embed(self, captions: Sequence[str], images: Sequence[Tensor] = ()) -> Subjects:
        """Read captions. A caption without any known name is read as ``familiar`` puts it. With a picture, shape and look are
        those that it shows; of the captions their side counts, and whether they ask for clay."""
        read = [self.familiar(c) for c in captions]
        tokens, mask = (x.to(self.device) for x in self.encoder(read))
        words = self.layout.understood(tokens, mask, sides_of(captions), self.instance, self.possible(read))
        # The network learned that clay hides one colour, but not that it hides two, a pattern or brick.
        clay = asks_clay(captions).to(self.device)
        look = torch.stack([self._painted(c, look) for c, look in zip(read, words.look, strict=True)])
        words = replace(words, look=torch.where(clay, clay_look(self.layout.sizes.looks).to(look), look))
        if not images:
            return words
        seen = self.recognise(images, captions[0]).subject(self.layout)
        look = torch.where(clay, words.look, seen.look.to(words.look))
        return Subjects(
            seen.shape.to(words.shape).expand_as(words.shape), look, torch.ones_like(words.stretch), words.sides
        )

    def _painted(self, caption: str, look: Tensor) -> Tensor:
        """A look (K,) as it was read, or the one paint that the caption says: the network is less sure of 'a wooden house'."""
        paint = paint_of(caption, self._number)
        mains = [*self.record.get("colours", ()), *self.record.get("materials", ())]
        return plain_look(self.layout.sizes.looks, 2 + mains.index(paint)).to(look) if paint in mains else look

    def recognise(self, images: Sequence[Tensor], caption: str = "") -> Recognised:
        """What a reference picture (4, S, S) shows; the caption, where it has a known name, says of which name it is."""
        if len(images) != 1:
            raise UserError(f"the prior {self.id!r} takes one reference picture, not {len(images)}")
        meant = self.meant(caption)
        caption = "" if meant is None else caption  # without a known name it tells no more than no caption
        if self._seen is None or self._seen[0] is not images[0] or self._seen[1] != caption:
            picture = torch.cat([images[0][:3] * 2 - 1, images[0][3:]])
            self._seen = images[0], caption, Recogniser(self.layout, self.layout.outlines)(picture, meant)
        return self._seen[2]

    @torch.no_grad()
    def meant(self, caption: str) -> Tensor | None:
        """Shares (I,) of all shapes that show the name in a caption, on the CPU; None where it has no known name."""
        possible = self.possible([caption])
        if possible.all():
            return None
        tokens, mask = (x.to(self.device) for x in self.encoder([caption]))
        name = restricted(self.layout.read(tokens, mask).name, possible)
        return torch.stack([self.layout.shape_share(name, k)[0].cpu() for k in range(INSTANCES)]).mean(0)

    def describe(self, image: Tensor, prompt: str = "") -> str:
        """What a reference picture shows and how sure that is, such as 'a red mug (83 %, seen from 40 degrees)'."""
        seen = self.recognise([image], prompt)
        mains = ["", "clay", *self.record.get("colours", ()), *self.record.get("materials", ())]
        rows = (self.layout.shown == seen.shapes[0]).any(1).nonzero()[:, 0].tolist()
        name = min((list(self.vocabulary)[k] for k in rows), key=lambda n: self.vocabulary[n]["shapes"])
        said = f"{mains[seen.mains[0]]} {name}".strip()
        turn = (math.degrees(float(seen.camera[0])) + 180) % 360 - 180
        article = "an" if said[0] in "aeiou" else "a"
        return f"{article} {said} ({seen.sure():.0%} sure, seen from {turn:.0f} degrees)"

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return cosine_schedule(t)

    def encode(self, picture: Tensor) -> Tensor:
        return pixels(picture, SIZE)

    def decode(self, z: Tensor) -> Tensor:
        return (z + 1) / 2

    @torch.no_grad()
    def mean_picture(self, question: Question) -> Tensor:
        """What the layout expects to see, (B, 3, 64, 64) in [-1, 1], told the camera and the light. The last answer is kept: a sampler
        asks the same question at every step."""
        if self._drawn is None or self._drawn[0] is not question:
            camera = question.view.cameras.condition().to(self.device)
            view = question.view
            light = Light(view.lights.to(self.device), 1.0 if view.shading == "albedo" else view.ambient)
            subjects, behind = subjects_of(question.words), self._background(question)
            drawn = self.layout(subjects, camera, behind, light, view.shading)
            self._drawn = question, drawn
        return self._drawn[1]

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, 3, SIZE, SIZE)

    def rows_apart(self, about: Sequence[Words | None]) -> bool:
        """All but "nothing", which might show the first row's thing."""
        return None not in about

    def of_instance(self, instance: int) -> BundledPrior:
        """Another one with the same weights, and with what it has drawn."""
        if instance == self.instance:
            return self
        _ = self.encoder, self.inference  # both have them
        other = copy(self)
        other.instance, other._drawn, other._seen = instance, None, None
        return other

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        """Told words and camera, the layout answers. Whatever is left open is inferred from the noisy picture."""
        return tuple(self._noise(z_t, t, question, words) for words in about)

    def _noise(self, z_t: Tensor, t: Tensor, question: Question, about: Words | None) -> Tensor:
        if about is None and question.view.shading in ("normals", "depth"):
            about = question.words  # "nothing" is inferred from colours; so guidance changes nothing here
        if question.asks in ("camera", "image") and about is not None:
            asked = question if about is question.words else question.of(about)
            alpha, sigma = self.alpha_sigma(t)
            mean = self.mean_picture(asked)
            return posterior.noise_of(z_t, posterior.denoised(z_t, alpha, sigma, SPREAD, mean), alpha, sigma)
        alpha, sigma = self.alpha_sigma(t)
        # The posterior is compared on the CPU, where its pictures are.
        seen = Noisy(z_t.float().cpu(), alpha.cpu(), sigma.cpu(), self._background(question).cpu())
        return seen.noise(seen.clean(self._inferred(seen, question, about).mean)).to(z_t)

    def _inferred(self, seen: Noisy, question: Question, about: Words | None) -> Inferred:
        """What the noisy pictures show, if it is what the words say, from cameras that are not told."""
        words = subjects_of(question.words if about is None else about)
        if about is None:
            return self.inference.nothing(seen, words)
        if about is question.words and question.asks == "views":
            return self.inference.views(seen, words, question.view.cameras.condition(), question.view.group)
        return self.inference.words(seen, words)

    @cached_property
    def inference(self) -> Inference:
        """Answers what is not told, from the noisy picture."""
        return Inference(Hypotheses(self.layout))

    def _background(self, question: Question) -> Tensor:
        colours = question.view.plain_background
        if colours is None:
            return torch.zeros(len(question.view), 3, device=self.device)
        return colours.to(self.device) * 2 - 1

    def unknown_words(self, prompt: str) -> list[Unknown]:
        """Words of the prompt that were in no training caption, each with the nearest name that the prior knows."""
        known = {*self.record.get("words", ()), *self.record.get("idle", ())} | STOP_WORDS
        strange = [w for w in dict.fromkeys(words_of(prompt)) if self.names and w not in known]
        if new := [w for w in strange if w not in self._unknown]:
            best = (self.encoder.sentence(new) @ self._name_embeddings.T).max(1)
            for word, similarity, name in zip(new, best.values.tolist(), best.indices.tolist(), strict=True):
                self._unknown[word] = Unknown(word, self.names[name], similarity)
        return [self._unknown[w] for w in strange]

    def unread(self, caption: str) -> str:
        return self.encoder.unread(caption)

    def familiar(self, caption: str) -> str:
        """The caption without the tail behind its thing ('with a red roof'), or with the unknown word that is most like a name replaced
        by that name: 'a red automobile' is 'a red car'.

        A word is only replaced where no name is known. The networks cannot draw things that they never saw; from unknown words
        alone they would draw a random thing. Nor can they draw parts: a red roof would make a red house.
        """
        caption = without_tail(caption, self._number)
        plain = f" {' '.join(words_of(caption))} "
        strange = self.unknown_words(caption)
        if not strange or any(f" {name} " in plain for name in self.names):
            return caption
        best = max(strange, key=lambda u: u.similarity)
        return re.sub(rf"\b{re.escape(best.word)}\b", best.nearest, caption, flags=re.IGNORECASE)

    def ignored(self, prompt: str) -> list[str]:
        tail = tail_of(prompt, self._number)
        idle = [w for w in words_of(without_tail(prompt, self._number)) if w in self.record.get("idle", ())]
        return [*idle, tail] if tail else idle

    @cached_property
    def vocabulary(self) -> dict[str, dict]:
        """What is on record of each name: its category, how many shapes show it, its synonyms."""
        return dict(self.record.get("vocabulary", {}))

    @cached_property
    def _number(self) -> dict[str, int]:
        """The number of the name that each phrase says, a name itself or a synonym."""
        phrases = ((name, *said.get("synonyms", ())) for name, said in self.vocabulary.items())
        return {phrase: k for k, some in enumerate(phrases) for phrase in some}

    @cached_property
    def names(self) -> list[str]:
        """What the prior can draw, with synonyms."""
        return list(self._number)

    def possible(self, captions: Sequence[str]) -> Tensor:
        """Which names each caption may mean, (B, T): those that it holds ('a police car' holds 'police car' alone), or all if it
        holds none. Without this, the network that reads captions takes 'a green car' for half a police car."""
        out = torch.ones(len(captions), self.layout.sizes.names, device=self.device)
        for row, caption in zip(out, captions, strict=True):
            plain = f" {' '.join(words_of(caption))} "
            held = [phrase for phrase in self._number if f" {phrase} " in plain]
            held = [p for p in held if not any(p != q and f" {p} " in f" {q} " for q in held)]
            if held:
                row.zero_()
                row[[self._number[phrase] for phrase in held]] = 1
        return out

    def entry(self, phrase: str) -> dict:
        """The record of one of ``names``: a name's own, or that of the name that a synonym stands for."""
        return list(self.vocabulary.values())[self._number[phrase]]

    @cached_property
    def _name_embeddings(self) -> Tensor:
        kept = name_meanings.kept(self.path.with_name(NAMES), self.names)
        return (name_meanings.embedded(self.names, self.encoder) if kept is None else kept).to(self.device)

    def search(self, words: str, most: int = 12) -> list[tuple[str, float]]:
        """The names, or their synonyms, whose meaning is nearest to the words, with their cosine similarity; best first."""
        if not self.names:
            return []
        likeness = (self.encoder.sentence([words]) @ self._name_embeddings.T)[0]
        best = likeness.topk(min(most, len(self.names)))
        return [(self.names[k], value) for value, k in zip(best.values.tolist(), best.indices.tolist(), strict=True)]

    @property
    def parameters(self) -> int:
        """How many parameters the layout has."""
        return sum(p.numel() for p in self.layout.parameters())

    def info(self) -> dict[str, object]:
        """What the weights are: size, hash, vocabulary and the training record."""
        left_out = ("words", "idle", "sha256", "vocabulary", "held_out", "mains")
        stated = {k: v for k, v in self.record.items() if k not in left_out}
        return {
            "id": self.id,
            "sha256": self.hash,
            "parameters": self.parameters,
            "resolution": SIZE,
            "dtype": "torch.float32",
            "names": len(self.vocabulary),
            "phrases": len(self.names),
        } | stated
