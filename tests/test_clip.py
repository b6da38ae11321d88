"""The CLIPs: roles that cannot be mixed up, towers, and public models of transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamfusion.clip import load_guide, load_judge
from dreamfusion.clip.bundled_clip import WEIGHTS, write
from dreamfusion.clip.public_clip import MEAN, STD
from dreamfusion.clip.towers import WIDTH, Guide, Judge, resized
from dreamfusion.errors import UserError
from dreamfusion.priors.bundled_prior import WEIGHTS as PRIOR
from tests.tiny_pipelines import CLIP_VOCABULARY


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("clips")
    torch.manual_seed(0)
    write(Judge(), place / "judge.safetensors", {"note": "untrained"})
    write(Guide(), place / "guide.safetensors", {})
    return place


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    place = tmp_path_factory.mktemp("public")
    text = {
        "vocab_size": len(CLIP_VOCABULARY), "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
    }  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 48,
              "patch_size": 16}  # fmt: skip
    torch.manual_seed(1)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).save_pretrained(place)
    CLIPTokenizer(vocab=CLIP_VOCABULARY, merges=[], model_max_length=77).save_pretrained(place)
    return place


def test_a_judge_never_guides_and_a_guide_never_judges(folder: Path) -> None:
    assert load_judge(str(folder / "judge.safetensors")).role == "judge"
    assert load_guide(str(folder / "guide.safetensors")).role == "guide"
    with pytest.raises(UserError, match="is a judge's CLIP and must never be a guide"):
        load_guide(str(folder / "judge.safetensors"))
    with pytest.raises(UserError, match="is a guide's CLIP and must never be a judge"):
        load_judge(str(folder / "guide.safetensors"))


def test_the_role_is_in_the_weights_whatever_the_file_is_called(folder: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "guide.safetensors"
    renamed.write_bytes((folder / "judge.safetensors").read_bytes())
    with pytest.raises(UserError, match="must never be a guide"):
        load_guide(str(renamed))
    renamed.with_suffix(".json").write_text(json.dumps({"role": "guide"}))
    with pytest.raises(UserError, match=r"says it is a judge, guide\.json that it is a guide"):
        load_guide(str(renamed))
    save_file(load_file(renamed), renamed)  # without metadata
    renamed.with_suffix(".json").unlink()
    with pytest.raises(UserError, match="does not say whether it is a judge or a guide"):
        load_judge(str(renamed))


def test_names_of_the_other_role_are_unknown() -> None:
    with pytest.raises(UserError, match=r"unknown CLIP 'bundled-guide' \(did you mean 'bundled'\?"):
        load_judge("bundled-guide")
    with pytest.raises(UserError, match="unknown CLIP 'bundled'"):
        load_guide("bundled")


def test_weights_that_are_not_what_they_should_be(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    path.write_bytes((folder / "judge.safetensors").read_bytes()[:-100])
    with pytest.raises(UserError, match="is not a safetensors file"):
        load_judge(str(path))
    path.with_suffix(".json").write_bytes((folder / "judge.json").read_bytes())
    with pytest.raises(UserError, match="were altered"):
        load_judge(str(path))
    path.with_suffix(".json").unlink()
    save_file({"x": torch.zeros(1)}, path, metadata={"role": "judge"})
    with pytest.raises(UserError, match="does not hold a judge's weights"):
        load_judge(str(path))


@pytest.mark.parametrize("role", ["judge", "guide"])
def test_towers_answer_unit_vectors_and_gradients(folder: Path, role: str) -> None:
    clip = (load_judge if role == "judge" else load_guide)(str(folder / f"{role}.safetensors"))
    pictures = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0)).requires_grad_()
    seen, said = clip.pictures(pictures), clip.captions(["a red armchair", "a blue teapot"])
    assert seen.shape == (3, WIDTH) and said.shape == (2, WIDTH) and not said.requires_grad
    torch.testing.assert_close(torch.cat([seen, said]).norm(dim=1), torch.ones(5))
    (seen @ said.T).sum().backward()
    assert pictures.grad is not None and pictures.grad.abs().sum() > 0
    assert all(not p.requires_grad for p in clip.network.parameters())
    with torch.no_grad():
        torch.testing.assert_close(clip.pictures(resized(pictures, 64)), seen)
        torch.testing.assert_close(clip.similarity(pictures, ["a red armchair"])[:, 0], seen @ said[0])


def test_parts_that_nobody_asks_any_more_are_not_read(folder: Path, tmp_path: Path) -> None:
    stored = load_file(folder / "judge.safetensors")
    save_file(stored | {"eye.weight": torch.ones(3)}, tmp_path / "old.safetensors", metadata={"role": "judge"})
    old, new = load_judge(str(tmp_path / "old.safetensors")), load_judge(str(folder / "judge.safetensors"))
    pictures = torch.rand(2, 3, 64, 64)
    assert torch.equal(old.pictures(pictures), new.pictures(pictures))


def test_a_public_clip_answers_as_transformers_does(public: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    clip, model = load_judge(str(public)), CLIPModel.from_pretrained(public).eval()
    assert clip.role == "any" and len(clip.hash) == 64 and load_guide(str(public)).hash == clip.hash
    pictures = torch.rand(2, 3, 48, 48)
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    words = CLIPTokenizer.from_pretrained(public)(["a cat", "dogs"], padding=True, return_tensors="pt")
    with torch.no_grad():
        both = model(pixel_values=(pictures - mean) / std, **words)
    torch.testing.assert_close(clip.pictures(pictures), both.image_embeds)
    torch.testing.assert_close(clip.captions(["a cat", "dogs"]), both.text_embeds)
    assert clip.pictures(torch.rand(2, 3, 100, 100)).shape == (2, 24)


def copied(public: Path, place: Path) -> Path:
    for path in public.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    return place


def test_public_clips_that_do_not_load_say_so_in_one_line(public: Path, tmp_path: Path) -> None:
    def refused(words: str) -> None:
        with pytest.raises(UserError, match=words) as caught:
            load_judge(str(tmp_path))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400

    refused("is no CLIP model")
    copied(public, tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if k != "visual_projection.weight"}, weights, metadata={"format": "pt"})
    refused(r"lacks 1 weights, visual_projection\.weight")
    weights.write_bytes(b"\xff" * 100)
    refused("cannot be loaded")
    weights.rename(tmp_path / "pytorch_model.bin")
    refused("only pickled ones")
    copied(public, tmp_path)
    page = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(page | {"model_type": "bert"}))
    refused("type 'bert'")
    (tmp_path / "config.json").write_text("{")
    refused("cannot be loaded")


def test_hub_ids_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: object, **__: object) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("no\nnetwork")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match="hf:OWNER/NAME"):
        load_judge("hf:nonsense")
    with pytest.raises(
        UserError, match=r"hf:some/clip is not in the hub's local cache and cannot be downloaded \(no network\)"
    ):
        load_judge("hf:some/clip")


needs_weights = pytest.mark.skipif(len(list(WEIGHTS.glob("*.safetensors"))) < 2, reason="not trained yet")


@needs_weights
@pytest.mark.parametrize(("role", "load"), [("judge", load_judge), ("guide", load_guide)])
def test_bundled_weights_are_small_and_on_record(role: str, load: object) -> None:
    clip = load()  # type: ignore[operator]
    assert clip.role == role and clip.record["sha256"] == clip.hash
    assert (WEIGHTS / f"{role}.safetensors").stat().st_size <= 15e6
    held = clip.record["held_out"]
    assert held["r10"] >= 0.95 and held["r1"] > 0.5, "figures of tools/clip/card.py on views training never saw"


@needs_weights
def test_the_bundled_judge_knows_the_names_it_ranks() -> None:
    assert load_judge().hash != load_guide().hash != json.loads(PRIOR.with_suffix(".json").read_text())["sha256"]
    clip = load_judge()
    said = clip.captions(["a red armchair", "a red easy chair", "a blue armchair", "a green bus"])
    near = (said[0] @ said.T).tolist()
    assert near[1] > near[2] and near[1] > near[3], "a synonym is nearer than another colour or another thing"
