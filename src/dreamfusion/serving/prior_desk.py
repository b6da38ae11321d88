"""Answers messages about one prior, those that are alike together. It knows nothing of networks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..errors import UserError
from ..priors.bundled_prior import BundledPrior
from ..priors.prior import Prior
from ..priors.wire import Message, Packer, Page, joined, likeness, pack, read_about, read_question, rows, unpack
from ..torch_state import own_torch

OK, MALFORMED, OTHER, REFUSED, BROKEN = 200, 400, 409, 422, 500
TELLS = ("describe", "unknown_words", "ignored", "familiar", "unread", "names", "info")


@dataclass(frozen=True)
class Reply:
    """A status of HTTP, and a message or the reason as bytes."""

    status: int
    body: bytes


@dataclass
class Counts:
    """What a desk has done: ``together`` counts how often so many questions were asked as one."""

    questions: int = 0
    rows: int = 0
    seconds: float = 0.0
    together: Counter[int] = field(default_factory=Counter)

    def page(self) -> Page:
        """The figures, with the mean number of questions that were asked as one."""
        calls = sum(self.together.values())
        mean = self.questions / calls if calls else 0.0
        return {
            "questions": self.questions, "rows": self.rows, "calls": calls, "occupancy": mean,
            "seconds": self.seconds, "together": {str(k): n for k, n in sorted(self.together.items())},
        }  # fmt: skip


class Mismatch(UserError):
    """The asker means another version, or other weights."""


class Desk:
    """Answers for a prior.

    Predictions whose messages are alike (``wire.likeness``: the same kind of question, shading and size, about as many other
    words, as long) are asked as one, each row with its own words, camera and t. The guidance scale is the asker's own business:
    the prior answers about the words and about nothing, and the rule mixes the two. Asked alone, a question has bit by bit the
    answer that the prior gives in the run's own process; together with others, to rounding.
    """

    def __init__(self, prior: Prior, most: int = 0):
        """``most``: rows that are asked at once at most, unless one question alone has more; 0 for no limit."""
        self.prior, self.most, self.counts = prior, most, Counts()

    def answer(self, asked: Sequence[bytes]) -> list[Reply]:
        """A reply to each message, whatever it is."""
        replies: list[Reply | None] = [None] * len(asked)
        together: dict[Any, list[tuple[int, Message]]] = {}
        for k, data in enumerate(asked):

            def one(data: bytes = data, k: int = k) -> bytes:
                message = unpack(data)
                self._check(message)
                if message["do"] == "noise" and "back" not in message.page:
                    rows(message)
                    key = likeness(message) if self.prior.rows_apart(message["about"]) else k
                    together.setdefault(key, []).append((k, message))
                    return b""
                return pack(self._alone(message))

            replies[k] = attempt(one)
        for group in together.values():
            for some in self._portions(group):
                for (k, _), reply in zip(some, self._predict([message for _, message in some]), strict=True):
                    replies[k] = reply
        return [reply or Reply(BROKEN, b"") for reply in replies]

    def _portions(self, group: list[tuple[int, Message]]) -> list[list[tuple[int, Message]]]:
        """The group in parts of at most ``most`` rows."""
        parts: list[list[tuple[int, Message]]] = [[]]
        for item in group:
            if self.most and parts[-1] and sum(rows(m) for _, m in [*parts[-1], item]) > self.most:
                parts.append([])
            parts[-1].append(item)
        return parts

    def _check(self, message: Message) -> None:
        version, sha256 = message["version"], message["sha256"]
        if version != __version__:
            raise Mismatch(
                f"it is served by dreamfusion {__version__}, and the run has {version!s:.40}; use the same version"
            )
        if sha256 and sha256 != self.prior.hash:
            raise Mismatch(
                f"it has other weights by now (SHA-256 {self.prior.hash[:12]}…, the run began with {sha256!s:.12}…); serve those again"
            )

    def _predict(self, messages: list[Message]) -> list[Reply]:
        """Replies to questions that are alike."""
        answers: list[Message] = []

        def work() -> bytes:
            begin = time.monotonic()
            found = self._noise(joined(messages) if len(messages) > 1 else messages[0])
            sizes = [rows(message) for message in messages]
            for part in zip(*(x.split(sizes) for x in found), strict=True):
                answers.append(answered(part))
            self.counts.questions += len(messages)
            self.counts.rows += sum(sizes)
            self.counts.together[len(messages)] += 1
            self.counts.seconds += time.monotonic() - begin
            return b""

        reply = attempt(work)
        return [Reply(OK, pack(a)) for a in answers] if reply.status == OK else [reply] * len(messages)

    @own_torch()
    def _noise(self, message: Message) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return self._predicted(message, self._x(message))

    def _predicted(self, message: Message, x: Tensor) -> tuple[Tensor, ...]:
        device = self.prior.device
        question = read_question(message["question"], message, device)
        about = read_about(question, message["about"], message, device)
        return self.prior.predict_noise(x, message.tensor("t").to(device), question, about)

    def _x(self, message: Message) -> Tensor:
        return message.tensor("x").to(self.prior.device)

    @own_torch()
    def _alone(self, message: Message) -> Message:
        """The answer to a message that is asked alone."""
        do = message["do"]
        if do == "hello":
            return Message(self.hello(), {})
        if do == "counts":
            return Message(self.counts.page(), {})
        if do == "levels":
            alpha, sigma = self.prior.alpha_sigma(message.tensor("t").to(self.prior.device))
            return Message({}, {"alpha": alpha, "sigma": sigma})
        if do == "embed":
            packer, prior = Packer(), self.prior.of_instance(int(message["instance"]))
            images = [message.tensor(f"image{k}") for k in range(int(message["images"]))]
            page = packer.words(prior.embed([str(c) for c in message["captions"]], images))
            return Message({"words": page}, packer.tensors)
        if do == "tell":
            return Message({"told": self._told(message)}, {})
        works: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
            "encode": lambda x: (self.prior.encode(x),),
            "decode": lambda x: (self.prior.decode(x),),
            "noise": lambda x: self._predicted(message, x),
        }
        if do not in works:
            raise UserError(f"nobody here knows how to {do!s:.40}")
        if "back" not in message.page:
            with torch.no_grad():
                return answered(works[do](self._x(message)))
        x = self._x(message).requires_grad_()
        gradients = [message.tensor(f"gradient{k}").to(x) for k in range(int(message["back"]))]
        pairs = [(y, g) for y, g in zip(works[do](x), gradients, strict=True) if y.requires_grad]
        if not pairs:
            return answered((torch.zeros_like(x),))
        outputs, given = zip(*pairs, strict=True)
        (found,) = torch.autograd.grad(outputs, x, given, allow_unused=True)
        return answered((torch.zeros_like(x) if found is None else found,))

    def _told(self, message: Message) -> Any:
        what, words = message["what"], [str(word) for word in message["words"]]
        prior = self.prior.of_instance(int(message["instance"]))
        if what == "describe":
            return prior.describe(message.tensor("image"), *words)
        if what == "unknown_words":
            return [[u.word, u.nearest, u.similarity] for u in prior.unknown_words(*words)]
        if what == "names":
            return list(prior.names)
        if what == "info":
            return prior.info()
        if what in ("ignored", "familiar", "unread"):
            return getattr(prior, what)(*words)
        raise UserError(f"{what!s:.40} is none of {', '.join(TELLS)}")

    def hello(self) -> Page:
        """What an asker needs to know of the prior."""
        prior = self.prior
        return {
            "id": prior.id, "sha256": prior.hash, "resolution": prior.resolution, "joint": prior.joint,
            "reads_camera": prior.reads_camera, "knows_depth": prior.knows_depth, "channels": prior.channels, "limit": prior.limit,
            "shape": list(prior.noise_shape(1)[1:]), "pixels": prior.limit == 1,
            "cosine": isinstance(prior, BundledPrior),
        }  # fmt: skip


def answered(parts: Sequence[Tensor]) -> Message:
    """A message of answers, 'answer0', 'answer1' …"""
    return Message({}, {f"answer{k}": x for k, x in enumerate(parts)})


def attempt(work: Callable[[], bytes]) -> Reply:
    """The bytes of some work, or what went wrong: nothing that somebody sends may end the server."""
    try:
        return Reply(OK, work())
    except Mismatch as error:
        return Reply(OTHER, str(error).encode())
    except UserError as error:
        return Reply(REFUSED, str(error).encode())
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        return Reply(MALFORMED, f"the question is malformed ({type(error).__name__}: {error})".encode())
    except Exception as error:
        return Reply(BROKEN, f"{type(error).__name__}: {error}".splitlines()[0].encode())
