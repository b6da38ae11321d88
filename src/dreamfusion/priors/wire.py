"""Questions to a prior as bytes, and its answers: a safetensors file whose metadata holds a page of JSON.

There is no pickle in it: whoever reads a message gets numbers and texts, and runs nothing. The page says what is asked, and names
the tensors where they belong. All tensors of a question have a row for each picture, so questions whose pages and shapes are the
same can be asked as one (``serving/prior_desk``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import UserError
from ..view.cameras import Cameras
from ..view.view import View
from .mixture import MixedWords
from .question import Question, Tokens, Words
from .subjects import Subjects

Page = dict[str, Any]
WORDS: dict[str, type[Tokens] | type[Subjects]] = {"tokens": Tokens, "subjects": Subjects}
CAMERAS = ("azimuth", "elevation", "radius", "fov")
NO_MESSAGE = "these bytes are no message of a prior"


@dataclass(frozen=True)
class Message:
    """A page, and the tensors that it names."""

    page: Page
    tensors: dict[str, Tensor]

    def __getitem__(self, name: str) -> Any:
        return self.page[name]

    def tensor(self, name: str) -> Tensor:
        """A tensor by the name that the page gives it."""
        return self.tensors[name]


def pack(message: Message) -> bytes:
    """A message as bytes. Tensors that share memory are copied: the format has each once."""
    tensors = {name: x.detach().cpu().contiguous() for name, x in message.tensors.items()}
    places = Counter(x.untyped_storage().data_ptr() for x in tensors.values())
    tensors = {k: x.clone() if places[x.untyped_storage().data_ptr()] > 1 else x for k, x in tensors.items()}
    return save(tensors, metadata={"page": json.dumps(message.page, sort_keys=True)})


def unpack(data: bytes) -> Message:
    """The inverse of ``pack``. UserError if the bytes are no message."""
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        page = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["page"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(NO_MESSAGE) from None
    if not isinstance(page, dict):
        raise UserError(NO_MESSAGE)
    return Message(page, tensors)


class Packer:
    """Takes tensors in, and gives each a name: '0', '1' … in the order of the calls."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def put(self, x: Tensor | None) -> str | None:
        """The name of a tensor; None stays."""
        if x is None:
            return None
        name = str(len(self.tensors))
        self.tensors[name] = x
        return name

    def words(self, words: Words) -> Page:
        """Words as a page."""
        if isinstance(words, MixedWords):
            return {"kind": "mixed", "parts": [self.words(part) for part in words.parts]}
        for kind, known in WORDS.items():
            if isinstance(words, known):
                return {"kind": kind} | {f.name: self.put(getattr(words, f.name)) for f in fields(known)}
        raise UserError(f"words of the kind {type(words).__name__} cannot be sent to a served prior")

    def question(self, question: Question) -> Page:
        """What a prior may read of a question: words, cameras, lights, and plain backgrounds."""
        view = question.view
        cameras = {name: self.put(getattr(view.cameras, name)) for name in CAMERAS}
        rest = {"size": view.size, "shading": view.shading, "ambient": view.ambient, "group": view.group}
        looks = cameras | {"lights": self.put(view.lights), "background": self.put(view.plain_background)} | rest
        return {"words": self.words(question.words), "asks": question.asks, "view": looks}

    def about(self, question: Question, about: Sequence[Words | None]) -> list[Any]:
        """What a prediction is about: 'words' stands for those of the question, None for nothing."""
        return ["words" if w is question.words else None if w is None else self.words(w) for w in about]


def read_words(page: Page, message: Message, device: torch.device) -> Words:
    """The inverse of ``Packer.words``."""
    if page["kind"] == "mixed":
        return MixedWords(tuple(read_words(part, message, device) for part in page["parts"]))
    known: Any = WORDS[page["kind"]]
    names = {f.name: page[f.name] for f in fields(known)}
    return known(**{k: None if name is None else message.tensor(name).to(device) for k, name in names.items()})


def read_question(page: Page, message: Message, device: torch.device) -> Question:
    """The inverse of ``Packer.question``: words on the prior's device, and the view on the CPU."""
    looks = page["view"]
    behind = None if looks["background"] is None else message.tensor(looks["background"])[:, :, None, None]
    cameras = Cameras(*(message.tensor(looks[name]) for name in CAMERAS))
    lights, group = message.tensor(looks["lights"]), looks["group"]
    view = View(cameras, lights, looks["size"], looks["shading"], looks["ambient"], behind, group=group)
    return Question(read_words(page["words"], message, device), view, page["asks"])


def read_about(question: Question, about: Sequence[Any], message: Message, device: torch.device) -> list[Words | None]:
    """The inverse of ``Packer.about``."""
    return [question.words if w == "words" else None if w is None else read_words(w, message, device) for w in about]


def likeness(message: Message) -> tuple[Any, ...]:
    """What two questions have in common if they can be asked as one: all of their pages, and the shape of each row."""
    shapes = sorted((name, str(x.dtype), tuple(x.shape[1:])) for name, x in message.tensors.items())
    return json.dumps(message.page, sort_keys=True), tuple(shapes)


def rows(message: Message) -> int:
    """How many pictures a question is about. UserError if its tensors do not agree."""
    counts = {len(x) if x.ndim else 0 for x in message.tensors.values()}
    if len(counts) != 1 or not (count := counts.pop()):
        raise UserError("the tensors of a question need a row for each picture")
    return count


def joined(messages: Sequence[Message]) -> Message:
    """Questions that are alike as one; their rows follow one another."""
    names: Mapping[str, Tensor] = messages[0].tensors
    return Message(messages[0].page, {name: torch.cat([m.tensors[name] for m in messages]) for name in names})
