"""What the CLIPs' pictures are called: random captions with their sentence embeddings, and which of them say the same."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "prior"))

from captions import draw_caption, usual
from dataset import SHAPES_A_NAME, shapes_of, shown_by
from looks import Look, draw_look
from models import Name, generals, read_models, read_names, stem_of

from dreamfusion.models.text_encoder import TextEncoder

CAPTIONS = 60_000
Said = tuple[str, str, Look]
"""A text, and the name and the look that it says."""


@dataclass(frozen=True)
class Vocabulary:
    """Names and shapes by number.

    ``own`` (S,) is each shape's own name, ``shown`` the shapes that show each name, and ``true`` (S, N)
    which names are true of a shape: its own and the more general ones.
    """

    names: dict[str, Name]
    order: list[str]
    shapes: list[str]
    own: NDArray[np.int64]
    shown: list[NDArray[np.int64]]
    true: Tensor

    @classmethod
    def of(cls, folder: Path) -> Vocabulary:
        """Of a folder of drawn views. DataError if it has no ``instances.json``."""
        return cls.make(shown_by(folder, SHAPES_A_NAME), read_names(), {stem_of(m.file): m.name for m in read_models()})

    @classmethod
    def make(cls, shown: dict[str, list[str]], names: dict[str, Name], name_of: dict[str, str]) -> Vocabulary:
        """Of the shapes that show each name, the names, and the own name of each shape."""
        order, shapes = list(shown), shapes_of(shown)
        number, place = {name: k for k, name in enumerate(order)}, {stem: k for k, stem in enumerate(shapes)}
        true = torch.zeros(len(shapes), len(order), dtype=torch.bool)
        for k, stem in enumerate(shapes):
            true[k, [number[n] for n in (name_of[stem], *generals(name_of[stem], names)) if n in number]] = True
        own = np.array([number[name_of[stem]] for stem in shapes])
        return cls(names, order, shapes, own, [np.array([place[s] for s in shown[n]]) for n in order], true)


class Table:
    """Captions: ``sentences`` (R, 384), the ``name`` (R,) and the ``look`` (R, 3) that each says, by number."""

    def __init__(self, sentences: Tensor, name: Tensor, look: Tensor):
        self.sentences, self.name, self.look = sentences, name, look

    @classmethod
    def at(cls, path: Path, vocabulary: Vocabulary, readings: Path | None = None, count: int = CAPTIONS) -> Table:
        """The table that is kept at ``path``; drawn and embedded if there is none yet, which takes minutes.

        Half of it are usual captions. The others are drawn too, or they are the ``readings``, which ``tools/prior/read.py`` has
        embedded (of the same ``names.tsv``).
        """
        if not path.exists():
            first = tabled(usual_captions(vocabulary, count // 2), vocabulary)
            if readings is None:
                second = tabled(random_captions(vocabulary, count // 2), vocabulary)
            else:
                second = already_read(readings)
            save_file({key: torch.cat([first[key], second[key]]) for key in first}, path)
        stored = load_file(path)
        return cls(stored["sentences"].float(), stored["name"], stored["look"])

    def same(self, true: Tensor, look: Tensor, rows: Tensor) -> Tensor:
        """Which captions ``rows`` (C,) also hold for pictures: (B, C), for the names that are ``true`` (B, N) of what is shown and
        their looks (B, 3)."""
        alike = (look[:, None] == self.look[rows][None]).all(-1)
        return true[:, self.name[rows]] & alike


def usual_captions(vocabulary: Vocabulary, count: int) -> list[Said]:
    """The usual captions of random looks, as the suites have them, each name as often as any other.

    No look is held out, since a judge must know what a prior may only guess.
    """
    rng, names, order = np.random.default_rng(1), vocabulary.names, vocabulary.order
    out = []
    for k in range(count):
        name = order[k % len(order)]
        look = draw_look(name, rng, hold_out=False)
        out.append((usual(names[name], look), name, look))
    return out


def random_captions(vocabulary: Vocabulary, count: int) -> list[Said]:
    """Looks in random words, each name as often as any other. Proportions are left out: no picture here is stretched."""
    rng, names, order = np.random.default_rng(2), vocabulary.names, vocabulary.order
    out = []
    for k in range(count):
        while (caption := draw_caption(names, rng, order[k % len(order)])).proportion:
            pass
        out.append((caption.text, caption.name, caption.look))
    return out


def tabled(said: list[Said], vocabulary: Vocabulary) -> dict[str, Tensor]:
    """The columns of a table."""
    number = {name: k for k, name in enumerate(vocabulary.order)}
    return {
        "sentences": embedded([text for text, _, _ in said]),
        "name": torch.tensor([number[name] for _, name, _ in said]),
        "look": torch.tensor([look.numbers for _, _, look in said]),
    }


def already_read(path: Path) -> dict[str, Tensor]:
    """The columns of a table from the tokens that ``tools/prior/read.py`` keeps, without the captions that name a proportion."""
    stored = load_file(path)
    rows = (stored["labels"][:, 4] == 0).nonzero()[:, 0]
    sentences = []
    for some in rows.split(1024):
        tokens, lengths = stored["tokens"][some].float(), stored["lengths"][some]
        inside = torch.arange(tokens.shape[1]) < lengths[:, None]
        sentences.append(F.normalize((tokens * inside[..., None]).sum(1), dim=-1).half())
    return {
        "sentences": torch.cat(sentences),
        "name": stored["labels"][rows, 0],
        "look": stored["labels"][rows, 1:4].contiguous(),
    }


def embedded(texts: list[str]) -> Tensor:
    """Sentence embeddings (R, 384) in half precision."""
    encoder, out = TextEncoder.load(), torch.empty(len(texts), 384, dtype=torch.float16)
    order = sorted(range(len(texts)), key=lambda k: len(texts[k]))  # alike lengths together: less padding
    for start in range(0, len(texts), 128):
        some = order[start : start + 128]
        out[some] = encoder.sentence([texts[k] for k in some]).half()
        if start % 6400 == 0:
            print(f"{start}/{len(texts)} captions embedded", flush=True)
    return out
