"""The text encoder against transformers' own ``BertModel`` and tokenizer, and that the main path does not import transformers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from dreamfusion.models.text_encoder import LONGEST, TextEncoder, weights_folder

CAPTIONS = [
    "a red armchair",
    "A front view of a Übergröße café 椅子 🪑, white & black",
    "",
    "a",
    "very " * 400 + "long",
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.load()


@pytest.mark.parametrize("captions", [CAPTIONS, CAPTIONS[:1], CAPTIONS[2:4]], ids=["all", "one", "short"])
@torch.no_grad()
def test_embeddings_are_those_of_transformers(encoder: TextEncoder, captions: list[str]) -> None:
    """Every token's vector, to float32 rounding; the mask exactly."""
    from transformers import AutoTokenizer, BertModel

    folder = str(weights_folder())
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    batch = tokenizer(captions, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    model = BertModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False).eval()
    tokens, mask = encoder(captions)
    torch.testing.assert_close(mask, batch["attention_mask"].bool(), rtol=0, atol=0)
    torch.testing.assert_close(tokens, model(**batch).last_hidden_state, rtol=1e-5, atol=1e-6)


def test_padding_changes_nothing(encoder: TextEncoder) -> None:
    alone, together = encoder.sentence(CAPTIONS[:1]), encoder.sentence(CAPTIONS)
    torch.testing.assert_close(alone[0], together[0], rtol=1e-5, atol=1e-6)


def test_the_end_that_is_not_read(encoder: TextEncoder) -> None:
    """A word is a token, and two tokens frame them: of 400 words and one, 255 - 1 are read."""
    assert encoder.unread("a red armchair") == encoder.unread("") == ""
    assert encoder.unread("very " * 253 + "long") == ""
    assert encoder.unread("very " * 254 + "long") == "long"


def test_a_sample_of_the_prior_needs_no_transformers() -> None:
    """Importing its BERT takes as long as loading PyTorch."""
    sample = "from dreamfusion.loading import load_prior; load_prior('bundled').embed(['a cup'])"
    asked = f"import sys; {sample}; sys.exit('transformers' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
