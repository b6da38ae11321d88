"""What the tests of large priors share: the tiny Stable Diffusion is loaded, asked, spoiled, and given a LoRA."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dreamfusion.errors import UserError
from dreamfusion.loading import load_prior
from tests.fakes import ask
from tests.single_files import save as save_tensors


def load(id: str | Path, precision: str = "float32", **options: Any) -> Any:
    return load_prior(str(id), "cpu", precision, **options)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(id: str | Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        load(id)
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


@torch.no_grad()
def answers(prior: Any, caption: str = "a cat") -> list[Tensor]:
    z = torch.randn(prior.noise_shape(1), generator=torch.Generator().manual_seed(0))
    question = ask(prior.embed([caption]))
    return [*prior.predict_noise(z, torch.tensor([0.5]), question, [question.words, None])]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def make_lora(sd: Path, path: Path, layout: str = "peft", text: bool = False) -> dict[str, Tensor]:
    """A LoRA of rank 2 for the U-Net's (and the text encoder's) projections; {name of a weight: B A alpha / rank}."""
    g = torch.Generator().manual_seed(7)
    stored, change = {}, {}
    parts = {"unet": ("to_q", "to_v"), **({"text_encoder": ("q_proj", "out_proj")} if text else {})}
    for part, ends in parts.items():
        for name, weight in load_file(next((sd / part).glob("*.safetensors"))).items():
            layer = name.removesuffix(".weight")
            if not layer.endswith(ends) or weight.ndim != 2:
                continue
            down, up = (
                torch.randn(2, weight.shape[1], generator=g) * 0.3,
                torch.randn(len(weight), 2, generator=g) * 0.3,
            )
            inside = f"text_model.{layer.removeprefix('text_model.')}" if part == "text_encoder" else layer
            if layout == "peft":
                stored |= {f"{part}.{inside}.lora_A.weight": down, f"{part}.{inside}.lora_B.weight": up}
            else:  # kohya's, with an alpha of half the rank
                key = f"lora_{'te' if part == 'text_encoder' else 'unet'}_{inside.replace('.', '_')}"
                stored |= {
                    f"{key}.lora_down.weight": down,
                    f"{key}.lora_up.weight": up,
                    f"{key}.alpha": torch.tensor(1.0),
                }
            change[f"{part}.{name}"] = up @ down * (1.0 if layout == "peft" else 0.5)
    save_tensors(stored, path)
    return change
