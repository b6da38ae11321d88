"""Every caption the prior is taught, and its word embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from vocabulary import COLOURS, MODELS, SYNONYMS

from dreamfusion.models.text_encoder import TextEncoder

VIEWS = ("", "front", "side", "back", "overhead")
PLAIN, CLAY = "", "clay"  # beside the colour names, the two other looks
WITHOUT_ARTICLE = {
    "french fries", "scissors", "headphones", "sneakers", "shoes", "trainers", "boots", "high heels", "slippers", "sunglasses",
    "tulips", "lilies", "flowers", "bread", "firewood",
}  # fmt: skip
TEMPLATES = ("{}", "{}", "{}", "a photo of {}", "a 3d model of {}")


def with_article(words: str, name: str) -> str:
    """'a red armchair', 'an orange chair', 'red sneakers'."""
    if name in WITHOUT_ARTICLE:
        return words
    return ("an " if words[0] in "aeiou" else "a ") + words


def captions(name: str, look: str, view: str) -> list[str]:
    """Ways to say one look ('' plain, 'clay' or a colour) of one thing from one side, most usual first."""
    out = []
    for word in (name, *SYNONYMS.get(name, ())):
        if look == CLAY:
            # Clay has no colour, whatever the words say: the optimiser asks so in its textureless views.
            things = [word, *(f"{colour} {word}" for colour in COLOURS)]
            phrases = ["a clay model of " + with_article(thing, word) for thing in things]
        else:
            bare = f"{look} {word}".strip()
            phrases = [*dict.fromkeys(t.format(with_article(bare, word)) for t in TEMPLATES), bare]
        if view:
            article = "an" if view == "overhead" else "a"
            phrases = [f"{article} {view} view of {p}" for p in (phrases if look == CLAY else phrases[:1])]
        out += phrases
    return out


def build(path: Path) -> None:
    """Embed all captions once: tokens (M, L, 384) fp16, lengths (M,), and an index (name|look|view) -> rows."""
    index: dict[str, list[int]] = {}
    texts: list[str] = []
    for name in MODELS:
        for look in (PLAIN, CLAY, *COLOURS):
            for view in VIEWS:
                rows = captions(name, look, view)
                index[f"{name}|{look}|{view}"] = list(range(len(texts), len(texts) + len(rows)))
                texts += rows
    encoder = TextEncoder.load()
    longest = 24
    tokens = torch.zeros(len(texts), longest, 384, dtype=torch.float16)
    lengths = torch.zeros(len(texts), dtype=torch.int16)
    for start in range(0, len(texts), 256):
        got, mask = encoder(texts[start : start + 256])
        got = got[:, :longest]
        tokens[start : start + len(got), : got.shape[1]] = got.half()
        lengths[start : start + len(got)] = mask.sum(1).clamp_max(longest).short()
    longest = int(lengths.max())
    save_file({"tokens": tokens[:, :longest].contiguous(), "lengths": lengths}, path)
    path.with_suffix(".json").write_text(json.dumps(index))
    print(f"{len(texts)} captions, up to {longest} tokens")


class CaptionTable:
    """Looks up an embedded caption for (name, look, view)."""

    def __init__(self, path: Path):
        stored = load_file(path)
        self.tokens, self.lengths = stored["tokens"], stored["lengths"].long()
        self.index = {key: np.array(rows) for key, rows in json.loads(path.with_suffix(".json").read_text()).items()}

    def row(self, name: str, look: str, view: str, rng: np.random.Generator | None) -> int:
        """One of the caption's wordings: the first, or (with a generator) the first in three of five draws."""
        rows = self.index[f"{name}|{look}|{view}"]
        return int(rows[0] if rng is None or rng.random() < 0.6 else rng.choice(rows))

    def gather(self, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens (B, L, 384) float and mask (B, L) of rows, cut to the longest."""
        length = self.lengths[rows]
        longest = int(length.max())
        return self.tokens[rows, :longest].float(), torch.arange(longest) < length[:, None]
