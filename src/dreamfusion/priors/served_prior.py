"""A prior that another process serves (``dreamfusion serve-prior``), as a ``Prior`` like any other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import __version__
from .prior import Prior, Unknown, cosine_schedule, pixels
from .prior_client import PriorClient
from .question import Question, Words
from .wire import Message, Packer, Page, read_words


class ServedPrior(Prior):
    """Asks a served prior. Its id and SHA-256 are those of the prior that is served, so a run records what it was made with.

    Every question carries that SHA-256, and a server that has other weights by now refuses it. Gradients go through: the server
    multiplies them with the Jacobian at the same place (it computes the answer again for that). A pixel prior's pictures and its
    cosine schedule need no server.
    """

    def __init__(
        self, id: str, device: str | torch.device = "cpu", instance: int = 0, client: PriorClient | None = None
    ):
        """``client``: another way to the prior. UserError if nobody serves a prior there, or another version of this package does."""
        self.client, self.instance, self.device = client or PriorClient(id), instance, torch.device(device)
        self.hash = ""
        hello = self._ask({"do": "hello"}).page
        self.id, self.hash, self.resolution = hello["id"], hello["sha256"], hello["resolution"]
        self.joint, self.reads_camera, self.knows_depth = hello["joint"], hello["reads_camera"], hello["knows_depth"]
        self.channels, self.limit = hello["channels"], hello["limit"]
        self.shape, self.cosine, self.pixels = tuple(hello["shape"]), hello["cosine"], hello["pixels"]

    def _ask(self, page: Page, tensors: dict[str, Tensor] | None = None) -> Message:
        told = {"version": __version__, "sha256": self.hash}
        return self.client.ask(Message(told | page, tensors or {}))

    def _tell(self, what: str, *words: str, image: Tensor | None = None) -> Any:
        tensors = {} if image is None else {"image": image}
        page = {"do": "tell", "what": what, "words": list(words), "instance": self.instance}
        return self._ask(page, tensors)["told"]

    def embed(self, captions: Sequence[str], images: Sequence[Tensor] = ()) -> Words:
        page = {"do": "embed", "captions": list(captions), "images": len(images), "instance": self.instance}
        answer = self._ask(page, {f"image{k}": image for k, image in enumerate(images)})
        return read_words(answer["words"], answer, self.device)

    def describe(self, image: Tensor, prompt: str = "") -> str:
        return self._tell("describe", prompt, image=image)

    def unknown_words(self, prompt: str) -> list[Unknown]:
        return [Unknown(*found) for found in self._tell("unknown_words", prompt)]

    def ignored(self, prompt: str) -> list[str]:
        return self._tell("ignored", prompt)

    def familiar(self, caption: str) -> str:
        return self._tell("familiar", caption)

    def unread(self, caption: str) -> str:
        return self._tell("unread", caption)

    @cached_property
    def names(self) -> list[str]:  # type: ignore[override]
        """What the prior can draw."""
        return self._tell("names")

    def info(self) -> dict[str, object]:
        """What the served prior says of itself, and where it is."""
        return self._tell("info") | {"served": self.client.name}

    def of_instance(self, instance: int) -> ServedPrior:
        return self if instance == self.instance else ServedPrior(self.client.name, self.device, instance, self.client)

    def noise_shape(self, count: int) -> tuple[int, ...]:
        return (count, *self.shape)

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        if self.cosine:
            return cosine_schedule(t)
        answer = self._ask({"do": "levels"}, {"t": t})
        return answer.tensors["alpha"].to(t), answer.tensors["sigma"].to(t)

    def encode(self, picture: Tensor) -> Tensor:
        if self.pixels:
            return pixels(picture, self.shape[-1])
        return self._differentiable({"do": "encode"}, {}, picture)[0]

    def decode(self, z: Tensor) -> Tensor:
        return (z + 1) / 2 if self.pixels else self._differentiable({"do": "decode"}, {}, z)[0]

    def predict_noise(
        self, z_t: Tensor, t: Tensor, question: Question, about: Sequence[Words | None]
    ) -> tuple[Tensor, ...]:
        packer = Packer()
        page = {"do": "noise", "question": packer.question(question), "about": packer.about(question, about)}
        return self._differentiable(page, packer.tensors | {"t": t}, z_t)

    def _differentiable(self, page: Page, tensors: dict[str, Tensor], x: Tensor) -> tuple[Tensor, ...]:
        """The server's answers to a question about x, differentiable in x."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _Asked.apply(self, page, tensors, x)
        return self._answers(page, tensors, x)

    def _answers(self, page: Page, tensors: dict[str, Tensor], x: Tensor) -> tuple[Tensor, ...]:
        answer = self._ask(page, tensors | {"x": x})
        return tuple(answer.tensors[f"answer{k}"].to(x) for k in range(len(answer.tensors)))


class _Asked(torch.autograd.Function):
    """An answer of the server, and its vector-Jacobian product."""

    @staticmethod
    def forward(ctx: Any, prior: ServedPrior, page: Page, tensors: dict[str, Tensor], x: Tensor) -> tuple[Tensor, ...]:
        ctx.prior, ctx.page, ctx.tensors = prior, page, tensors
        ctx.save_for_backward(x)
        return prior._answers(page, tensors, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None, Tensor]:
        (x,) = ctx.saved_tensors
        back = {f"gradient{k}": g for k, g in enumerate(gradients)}
        (found,) = ctx.prior._answers(ctx.page | {"back": len(gradients)}, ctx.tensors | back, x)
        return None, None, None, found
