"""What would silently change nothing, or something else, is said in one line, or refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dreamfusion import cli, generate
from dreamfusion.asset import Asset
from dreamfusion.errors import UserError
from dreamfusion.geometry.export_settings import ExportSettings
from dreamfusion.geometry.surface import volume_surface
from dreamfusion.models.unread import unread_end
from dreamfusion.no_effect import CHECKS, without_effect
from dreamfusion.priors.bundled_prior import BundledPrior
from dreamfusion.priors.mixture import Mixture
from dreamfusion.priors.prior import Unknown
from dreamfusion.prompt_checks import asked_notes, prompt_notes, things_of, unread_notes
from dreamfusion.settings.names import all_settings, build
from dreamfusion.settings.presets import preset_names, resolve
from tests.fakes import SMALL, GrayBallPrior, options

GUIDED = {"distillation.guidance_scale": 1.5}


class Knowing(GrayBallPrior):
    """It has a list of names, and reads 12 words."""

    memory = 12
    names = ("car", "chair", "sofa", "lamp", "desk lamp", "desk", "cup of coffee", "cup", "coffee table", "table")  # type: ignore[assignment]
    words = frozenset("a an the red blue and on next to of with view front back".split())

    def unknown_words(self, prompt: str) -> list[Unknown]:
        known = {word for name in self.names for word in name.split()} | self.words
        words = "".join(c if c.isalnum() else " " for c in prompt.lower()).split()
        return [Unknown(word, "car", 0.5) for word in dict.fromkeys(words) if word not in known]

    def familiar(self, caption: str) -> str:
        return caption.replace("automobile", "car").replace("12345", "cup")

    def unread(self, caption: str) -> str:
        return " ".join(caption.split()[self.memory :])


# Settings without effect


@pytest.mark.parametrize("name", preset_names())
def test_no_preset_has_settings_without_effect(name: str) -> None:
    picture = {"image": "a.png"} if name == "zero123" else {}
    assert without_effect(resolve(name, picture, "a chair")) == []


@pytest.mark.parametrize(
    ("settings", "more", "reason"),
    [
        ({"distillation.negative_prompt": "blurry"}, GUIDED, "distillation.guidance_scale is 0"),
        ({"distillation.rescale": 0.5}, GUIDED, "distillation.guidance_scale is 0"),
        ({"distillation.negative_prompt": "x", "distillation.perp_neg": False}, {"distillation.perp_neg": True}, "is 0"),
        ({"distillation.kind": "ancestral", "distillation.t_min": 0.1}, {"distillation.kind": "sds"}, "draws no noise"),
        ({"distillation.kind": "ancestral", "distillation.t_max": 0.9}, {"distillation.kind": "sds"}, "draws no noise"),
        ({"distillation.kind": "clip", "distillation.t_max": 0.9}, {"distillation.kind": "sds"}, "draws no noise"),
        ({"distillation.kind": "ancestral", "distillation.weight": "uniform"}, {"distillation.kind": "sds"}, "weighs"),
        ({"distillation.kind": "ancestral", "distillation.repeat_views": 900}, {"steps": 901}, "before its views"),
        ({"distillation.perp_neg": True, "view.elevation_deg": "70,80"}, {"view.overhead_deg": 75}, "from above"),
        ({"prior.views": 4}, {"prior.asks": "views"}, "about each view alone"),
        ({"prior.views": 2, "prior.asks": "words"}, {"prior.asks": "views"}, "about each view alone"),
        ({"prior.asks": "views"}, {"prior.views": 4}, "stands in no relation"),
        ({"prior.memory": "low"}, {"prior.id": "hf:a/b"}, "diffusers loads"),
        ({"prior.text_8bit": True}, {"prior.id": "0.5*bundled + 0.5*hf:a/b"}, "diffusers loads"),
        ({"prior.id": "0.5*bundled + 0.5*bundled", "prior.memory": "low"}, {"prior.id": "hf:a/b"}, "diffusers loads"),
        ({"prior.id": "guide", "prior.precision": "float32"}, {"prior.id": "bundled"}, "a CLIP runs in float32"),
        ({"view.words": False, "view.front_deg": 30}, {"view.words": True}, "no words are chosen"),
        ({"view.words": False, "view.back_deg": 150}, {"view.words": True}, "no words are chosen"),
        ({"distillation.perp_neg": True, "view.back_deg": 150}, {"distillation.perp_neg": False}, "no words are chosen"),
        ({"view.words": False, "view.overhead_deg": 50}, {"view.words": True}, "view.words is false"),
        ({"view.background_lr": 0.1}, {"view.background": "learned"}, "is not learned"),
        ({"view.ambient": 0.2, "shading.albedo": 1, "shading.lambertian": 0, "shading.textureless": 0},
         {"shading.lambertian": 1}, "no view is lit"),
        ({"view.light_above_deg": "0,10", "view.ambient": 1}, {"view.ambient": 0.5}, "no view has a key light"),
        ({"view.light_around_deg": "0,10", "shading.albedo_until": 1}, {"shading.albedo_until": 0.5}, "no view has a key"),
        ({"shading.textureless_words": False, "shading.textureless": 0}, {"shading.textureless": 1}, "textureless is 0"),
        ({"shading.albedo_until": 0.5, "shading.albedo": 1, "shading.lambertian": 0, "shading.textureless": 0},
         {"shading.lambertian": 1}, "the albedo alone"),
        ({"shading.latent": 1}, {"scene.channels": 4}, "scene.channels is 3"),
        ({"scene.kind": "mlp", "scene.mean_importance": 4}, {"scene.importance": 8}, "scene.importance is 0"),
        ({"regularizers.transmittance_target": 0.5}, {"regularizers.transmittance": "0:0,1:0.5"}, "transmittance is 0"),
        ({"export.turntable_size": 64, "export.turntable_frames": 0}, {"export.turntable_frames": 2}, "frames is 0"),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_named_with_the_reason(
    settings: dict[str, Any], more: dict[str, Any], reason: str
) -> None:
    lines = without_effect(resolve("balanced", settings, "a chair"))
    named = [line for line in lines if line.partition(" = ")[0] in settings and reason in line]
    assert len(named) == 1 and " has no effect: " in named[0] and "\n" not in named[0]
    name = named[0].partition(" = ")[0]
    assert not any(line.startswith(f"{name} = ") for line in without_effect(resolve("balanced", settings | more, "x")))


def test_every_check_is_of_a_setting_that_exists() -> None:
    assert set(CHECKS) <= set(all_settings())


def test_a_stage_in_which_it_acts_is_enough() -> None:
    config = build({"distillation.negative_prompt": "x", "stages": [{}, GUIDED]})
    assert without_effect(config) == []
    silent = without_effect(build({"distillation.negative_prompt": "x", "stages": [{}, {"steps": 3}]}))
    assert len(silent) == 1 and silent[0].startswith("distillation.negative_prompt = 'x' has no effect")


@pytest.mark.filterwarnings("ignore")
def test_the_prior_is_indeed_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim behind the line: at w = 0 a negative prompt changes no tensor; with guidance it is asked about."""
    monkeypatch.setattr("dreamfusion.generation.write_preview", lambda *_, **__: None)
    asked: list[int] = []

    class Counting(GrayBallPrior):
        def predict_noise(self, z_t: Any, t: Any, question: Any, about: Sequence[Any]) -> Any:
            asked.append(len(about))
            return super().predict_noise(z_t, t, question, about)

    for scale in (0, 1.5):
        small = {**SMALL, "steps": 2, "distillation.negative_prompt": "x", "distillation.guidance_scale": scale}
        generate("x", "fast", prior=Counting(), **small)
    assert asked == [1, 1, 2, 2]


def test_the_command_line_says_it_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dreamfusion.generation.load_prior", lambda *_, **__: Knowing())
    monkeypatch.setattr(Knowing, "memory", 99)
    for module in ("generation", "loop"):
        monkeypatch.setattr(f"dreamfusion.{module}.write_preview", lambda *_, **__: None)
    out = tmp_path / "run"
    given = [*options(SMALL), "--distillation.negative-prompt", "blurry", "--out", str(out)]
    assert cli.main(["generate", "a red car and a blue chair", "--preset", "fast", *given]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 2 and all(line.startswith("dreamfusion: warning: ") for line in said)
    assert "2 things (car, chair)" in said[0] and "distillation.negative_prompt = 'blurry' has no effect" in said[1]


# Prompts


@pytest.mark.parametrize(
    ("prompt", "things"),
    [
        ("a red car", ["car"]),
        ("a red car and a blue chair", ["car", "chair"]),
        ("a desk lamp", ["desk lamp"]),
        ("a lamp on a desk", ["lamp", "desk"]),
        ("a cup of coffee", ["cup of coffee"]),
        ("a cup on a coffee table", ["cup", "coffee table"]),
        ("a car table", ["table"]),  # a table for cars
        ("A CAR, a car!", ["car"]),
        ("a thing", []),
        ("", []),
    ],
)
def test_the_things_of_a_prompt(prompt: str, things: list[str]) -> None:
    assert things_of(prompt, Knowing.names) == things


@pytest.mark.parametrize(
    ("prompt", "lines"),
    [
        ("a red car", []),
        ("a red desk lamp", []),
        ("a red car and a blue chair", ["the prompt names 2 things (car, chair)"]),
        ("a lamp next to a chair on a table", ["the prompt names 3 things (lamp, chair, table)"]),
        ("12345", ["names no thing that the bundled prior can read (it reads English words); it will be asked for 'cup'"]),
        ("椅子", ["names no thing that the bundled prior can read"]),
        ("красный стул", ["names no thing that the bundled prior can read"]),
        ("كرسي", ["names no thing that the bundled prior can read"]),
        ("🪑", ["names no thing that the bundled prior can read (it reads English words), so it draws something"]),
        ("red", ["names no thing"]),
        ("???", ["names no thing"]),
        ("a red automobile", ["never taught 'automobile' (nearest: 'car', similarity 0.50); it will be asked for 'a red car'"]),
        ("a car 椅子", ["never taught '椅子'"]),
        ("a chair with b c d e f g h", ["'f' (nearest: 'car', similarity 0.50), and 2 more words"]),
        ("a back view of a car", ["asks for 'back view', but a run looks from all sides"]),
    ],
)  # fmt: skip
def test_what_of_a_prompt_is_not_drawn_is_said(prompt: str, lines: list[str]) -> None:
    found = prompt_notes(Knowing(), prompt)
    assert len(found) == len(lines), found
    assert all(line in said and "\n" not in said for line, said in zip(lines, found, strict=True))


def test_priors_without_a_list_of_names_are_left_alone() -> None:
    assert prompt_notes(GrayBallPrior(), "a red car and 12345 椅子") == []
    mixed = Mixture([(0.5, GrayBallPrior()), (0.5, Knowing())])
    assert "2 things" in prompt_notes(mixed, "a car and a chair")[0]


def test_the_bundled_prior_has_names_and_says_it() -> None:
    prior = BundledPrior()
    assert prompt_notes(prior, "a red car") == []
    assert "2 things (car, chair)" in prompt_notes(prior, "a red car and a blue chair")[0]
    for prompt in ("12345", "椅子", "🪑"):
        (line,) = prompt_notes(prior, prompt)
        assert "names no thing" in line
    assert prior.unread("a red car") == ""
    tail = prior.unread("a red car " + "and very small doors " * 80)
    assert tail.endswith("very small doors") and 20 < len(tail.split()) < 300


def test_the_end_that_is_not_read_is_shown() -> None:
    config = resolve("fast", {}, " ".join(f"w{k}" for k in range(12)))
    (line,) = unread_notes(Knowing(), config)
    # "an overhead view of a clay model of" takes 8 of the 12 words that this prior reads
    assert line.startswith("the prompt is too long for") and line.endswith("'w4 w5 w6 w7 w8 w9 w10 w11'")
    assert (
        unread_notes(Knowing(), resolve("fast", {"view.words": False, "shading.textureless": 0}, config.prompt)) == []
    )
    negative = {"distillation.negative_prompt": "n " * 50}
    (line,) = unread_notes(Knowing(), resolve("fast", negative, "a car"))
    assert line.startswith("distillation.negative_prompt is too long") and line.endswith("…'")


def test_tokens_are_counted_with_the_two_that_stand_around_them() -> None:
    class Tokenizer:
        def __call__(self, text: str, **_: Any) -> dict[str, list[str]]:
            return {"input_ids": ["[", *text.split(), "]"]}

        def decode(self, ids: list[str], **_: Any) -> str:
            return " ".join(x for x in ids if x not in "[]")

    assert unread_end(Tokenizer(), "a b c", 5) == ""
    assert unread_end(Tokenizer(), "a b c d", 5) == "d"
    assert unread_end(Tokenizer(), "a b c d e f", 5) == "d e f"


def test_a_prior_that_reads_words_only_is_not_told_the_camera_in_silence() -> None:
    prior = GrayBallPrior()
    prior.reads_camera = False
    (line,) = asked_notes(prior, resolve("fast", {}, "x"))
    assert "reads words only" in line and "set prior.asks to words" in line and "in words" in line
    (line,) = asked_notes(prior, resolve("fast", {"view.words": False}, "x"))
    assert "nothing tells it the side" in line
    assert (
        asked_notes(prior, resolve("words", {}, "x")) == []
        and asked_notes(GrayBallPrior(), resolve("fast", {}, "x")) == []
    )


# Export


def ball(peak: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: peak * torch.sigmoid((0.6 - x.norm(dim=-1)) * 40)


def notes_of(peak: float = 40.0, **settings: Any) -> Any:
    export = ExportSettings(**{"resolution": 32, **settings})
    return volume_surface(ball(peak), lambda x: torch.full_like(x, 0.5), export)


def test_a_level_that_is_not_reached_is_said_with_the_one_that_was_taken() -> None:
    assert notes_of().notes.keys() == {"faces"}  # 50,000 is the default; nobody asked for so many
    notes = notes_of(level=1e9).notes
    assert "export.level = 1e+09 is above what the scene's density reaches" in notes["level"]
    taken = float(notes["level"].rpartition(" ")[2])
    assert 40 / 4 < taken <= 40 / 2


def test_faces_beyond_the_surface_are_said_with_what_there_is() -> None:
    surface = notes_of(faces=200_000)
    assert f"export.faces = 200000, but the surface has {len(surface.mesh.faces)} triangles" in surface.notes["faces"]
    assert "export.resolution = 32" in surface.notes["faces"]
    assert notes_of(faces=500).notes == {}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose scene is a ball."""
    scene = SimpleNamespace(surface=lambda s: volume_surface(ball(40.0), lambda x: torch.full_like(x, 0.5), s))
    monkeypatch.setattr("dreamfusion.recorded.load_scene", lambda run: (scene, run.config))
    config = resolve("fast", {**SMALL, "export.resolution": 24}, "a ball")
    monkeypatch.setattr(
        "dreamfusion.run.Run.open", classmethod(lambda cls, path: SimpleNamespace(path=tmp_path, config=config))
    )
    return tmp_path


@pytest.mark.parametrize(
    ("more", "code", "line"),
    [
        (["--level", "1e9"], 2, "--level 1e+09 is above what the scene's density reaches"),
        (["--faces", "200000"], 0, "warning: export.faces = 200000, but the surface has"),
        (["--faces", "20000"], 0, "warning: export.faces = 20000, but the surface has"),
        (["--faces", "200"], 0, ""),
        ([], 0, ""),
        (["--format", "stl", "--texture-size", "128"], 2, "--texture-size has no effect on stl"),
        (["--format", "stl,glb", "--texture-size", "128"], 0, ""),
    ],
)
def test_export_says_it_or_refuses(
    more: list[str], code: int, line: str, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(made), *more]) == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == bool(line) and (not line or line in said[0])
    assert (made / "asset.glb").exists() is (code == 0)


def test_generate_says_it_at_its_end_and_keeps_the_asset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamfusion.generation.write_preview", lambda *_, **__: None)
    monkeypatch.setattr("dreamfusion.loop.write_preview", lambda *_, **__: None)
    small = {**SMALL, "steps": 1, "export.level": 1e9, "export.faces": 100_000}
    with pytest.warns(UserWarning) as caught:
        asset = generate("x", "fast", out=tmp_path / "run", prior=GrayBallPrior(), **small)
    said = [str(w.message) for w in caught]
    assert sum("export.level = 1e+09 is above" in line for line in said) == 1
    assert sum("export.faces = 100000, but the surface has" in line for line in said) == 1
    assert (tmp_path / "run" / "asset.glb").exists() and set(asset.notes) == {"level", "faces"}
    assert Asset.load(tmp_path / "run" / "asset.glb").notes == {}


# Options of other commands, and arguments in Python


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["render", "RUN", "--frames", "30"], "--frames has an effect only with --turntable"),
        (["render", "RUN", "--turntable", "--views", "4"], "--views has an effect only without --turntable"),
        (["presets", "--full"], "--full shows every setting of one preset"),
        (["prior", "sample", "a cup", "--jointly", "--views", "1"], "--jointly relates views to each other"),
    ],
)
def test_options_without_effect_are_refused(
    argv: list[str], line: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dreamfusion.loading.load_prior", lambda *_, **__: GrayBallPrior())
    monkeypatch.chdir(made)
    assert cli.main([str(made) if word == "RUN" else word for word in argv]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and line in said[0] and list(made.iterdir()) == []


def test_judging_options_for_files_that_are_judged_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for file in files:
        file.write_text("{}")
    assert cli.main(["compare", *map(str, files), "--clip", "hf:a/b"]) == 2
    assert "--clip and --prompts judge folders of runs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        {"config": resolve("fast", {}, "a cup"), "steps": 3},
        {"config": resolve("fast", {}, "a cup"), "prompt": "a chair"},
        {"config": resolve("fast", {}, "a cup"), "preset": "dreamfusion"},
        {"resume": "somewhere", "prompt": "a chair"},
        {"resume": "somewhere", "preset": "fast"},
        {"resume": "somewhere", "out": "elsewhere"},
        {"resume": "somewhere", "config": resolve("fast", {}, "a cup")},
    ],
    ids=lambda a: " ".join(a),
)
def test_arguments_that_would_be_ignored_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"config holds all settings|a resumed run keeps its own"):
        generate(prior=GrayBallPrior(), **arguments)
