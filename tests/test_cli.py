from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from dreamfusion import __version__, cli
from dreamfusion.settings.building import build
from dreamfusion.settings.catalogue import all_settings
from dreamfusion.settings.names import as_text
from dreamfusion.settings.options import join_negative
from dreamfusion.settings.presets import load_preset
from tests.fakes import SMALL, GrayBallPrior, options
from tests.faults import use

CHAIR = ["generate", "a red chair"]


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def listing(folder: Path) -> list[str]:
    return sorted(str(p) for p in folder.rglob("*"))


def one_error_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    before = listing(Path())
    code = cli.main(argv)
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert (code, said.out, len(lines)) == (2, "", 1), said
    assert listing(Path()) == before
    assert lines[0].startswith("dreamfusion: error: ")
    return lines[0].removeprefix("dreamfusion: error: ")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["generate"], "the prompt is empty"),
        (["generate", "  "], "the prompt is empty"),
        (["generate", "x" * 1001], "the prompt has 1001 characters; the most is 1000"),
        (["generate", "a\x07b"], "not text"),
        (["generate", "a\udcff"], "not text"),
        (["generate", "a", "red", "chair"], "unexpected argument 'red'; put a prompt of several words in quotes"),
        ([*CHAIR, "--preset", "balancd"], "unknown preset 'balancd' (did you mean 'balanced'?"),
        ([*CHAIR, "--stepz", "3"], "unknown option '--stepz' (did you mean '--steps'?)"),
        ([*CHAIR, "--guidance", "3"], "did you mean '--guidance-scale'?"),
        ([*CHAIR, "--distillation.guidence-scale", "3"], "did you mean '--distillation.guidance-scale'?"),
        ([*CHAIR, "--distilation.t-max", "3"], "did you mean '--distillation.t-max'?"),
        ([*CHAIR, "--steps"], "argument --steps: expected one argument"),
        ([*CHAIR, "--steps", "0"], "steps = '0' is not allowed: it must be a whole number, 1 to 1000000"),
        ([*CHAIR, "--steps", "lots"], "steps = 'lots' is not allowed"),
        ([*CHAIR, "--seed", "-1"], "seed = '-1' is not allowed"),
        ([*CHAIR, "--guidance-scale", "1e9"], "distillation.guidance_scale = '1e9' is not allowed"),
        ([*CHAIR, "--view.elevation-deg", "-100,20"], "view.elevation_deg = -100,20 is not allowed"),
        ([*CHAIR, "--device", "tpu"], "device = 'tpu' is not allowed: it must be one of auto, cpu"),
        ([*CHAIR, "--out", "/proc/nothing/run"], "cannot write /proc/nothing/run"),
        ([*CHAIR, "--out", "/dev/null"], "/dev/null exists and is a file"),
        ([*CHAIR, "--out", "/etc"], "/etc exists and is not a run"),
        ([*CHAIR, "--resume", "/etc"], "leave out a prompt"),
        (["generate", "--resume", "/etc"], "/etc is not a run: it holds no run.yaml"),
        (["generate", "--resume", "nowhere"], "there is no run at nowhere: no such folder"),
        (["generate", "--resume", "x", "--steps", "9", "--out", "y"], "and more --steps; leave out out"),
        (["generat", "x"], "unknown command 'generat' (did you mean 'generate'?"),
        (["--verbose"], "unknown option '--verbose'"),
        (["prior"], "prior what?"),
        (["prior", "smaple"], "unknown command 'prior smaple' (did you mean 'prior sample'?"),
        (["prior", "sample", ""], "the prompt is empty"),
        (
            ["prior", "sample", "a cup", "--views", "0"],
            "--views = '0' is not allowed: it must be a whole number, 1 to 64",
        ),
        (["prior", "sample", "a cup", "--guidance-scale", "nan"], "--guidance-scale = 'nan' is not allowed"),
        (["prior", "sample", "a cup", "--out", "cup.jpg"], "must end in .png"),
        (["presets", "fats"], "unknown preset 'fats' (did you mean 'fast'?"),
        (["export", "nowhere"], "there is no run at nowhere"),
        (["export"], "required: RUN"),
        (["render", "/etc"], "/etc is not a run"),
    ],
    ids=lambda x: " ".join(x)[:60].encode("ascii", "replace").decode() if isinstance(x, list) else "",
)
def test_mistakes_end_in_one_line_and_make_nothing(
    argv: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line in one_error_line(argv, capsys)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--prior", "bundeld"], "unknown prior 'bundeld' (did you mean 'bundled'?"),
        (["--prior", "nowhere.safetensors"], "weights are missing: nowhere.safetensors"),
    ],
)
def test_wrong_priors(more: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert line in one_error_line([*CHAIR, *more], capsys)
    assert line in one_error_line(["prior", "info", *more], capsys)


def test_prior_weights_with_a_wrong_hash(capsys: pytest.CaptureFixture[str]) -> None:
    Path("w.safetensors").write_bytes(b"x")
    Path("w.json").write_text(json.dumps({"sha256": "ab" * 32}))
    assert "weights were altered: SHA-256" in one_error_line([*CHAIR, "--prior", "w.safetensors"], capsys)


def test_help_names_every_setting_with_its_range_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    defaults = build({}).model_dump()
    for setting in all_settings().values():
        if setting.name not in ("prompt", "preset"):
            assert f"--{setting.name.replace('_', '-')} " in text
            assert f"[{setting.allowed}; default " in text
    assert f"default {as_text(defaults['seed'])}]" in text
    for command in cli.COMMANDS:
        assert cli.main([*command.split(), "--help"]) == 0
    assert all(command in cli.usage() for command in cli.COMMANDS)


def test_idle_threads_are_told_not_to_spin_before_torch_could_be_imported() -> None:
    code = "import os, sys, dreamfusion; print(os.environ['GOMP_SPINCOUNT']); sys.exit('torch' in sys.modules)"
    for asked, expected in ((None, "10000"), ("7", "7")):
        env = {k: v for k, v in environment().items() if k != "GOMP_SPINCOUNT"}
        env |= {"GOMP_SPINCOUNT": asked} if asked else {}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip()) == (0, expected)


def test_help_is_quick_because_torch_is_not_imported() -> None:
    code = "import sys; from dreamfusion import cli; cli.main(['generate', '--help']); sys.exit('torch' in sys.modules)"
    begin = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment())
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begin < 3  # measured: 0.15 s


def environment() -> dict[str, str]:
    source = str(Path(cli.__file__).parents[1])
    return os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}


def test_python_m_and_version() -> None:
    argv = [sys.executable, "-m", "dreamfusion", "--version"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, env=environment())
    assert done.stdout == f"dreamfusion {__version__}\n"
    done = subprocess.run([*argv[:-1], "generate", ""], capture_output=True, text=True, env=environment())
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_negative_values_are_not_options() -> None:
    assert join_negative(["--a.b", "-30,60", "-x", "-1", "--c=1", "-2"]) == ["--a.b=-30,60", "-x", "-1", "--c=1", "-2"]


def test_presets_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["presets"]) == 0
    listed = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in listed]
    assert names[0] == "balanced" and {"dreamfusion", "fast"} < set(names)
    assert all(len(line.split()) > 3 for line in listed)  # each says what it is
    assert cli.main(["presets", "dreamfusion"]) == 0
    assert "guidance_scale: 100" in capsys.readouterr().out
    assert cli.main(["presets", "dreamfusion", "--full"]) == 0
    shown = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert shown["distillation.guidance_scale"] == "100" and shown["export.faces"] == "20000"
    assert not any(name.startswith("stages") for name in shown)
    del shown["preset"]
    assert build(shown) == build({k: v for k, v in load_preset("dreamfusion").items() if k != "preset"})
    assert cli.main(["presets", "latent-nerf", "--full"]) == 0
    shown = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    stages = {name: value for name, value in shown.items() if name.startswith("stages")}
    assert stages == {"stages.1.shading.albedo": "0", "stages.1.shading.latent": "1", "stages.2": "as above"}


def checkpoint(folder: str) -> dict[str, Any]:
    (path,) = Path(folder, "checkpoint").glob("*.safetensors")
    return load_file(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_goes_on_bit_exactly(
    number: signal.Signals, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def stop_at_third() -> None:
        asked.append(None)
        if len(asked) == 3:
            os.kill(os.getpid(), number)

    use(GrayBallPrior(stop_at_third), monkeypatch)
    assert cli.main([*CHAIR, "--out", "stopped", *options(SMALL)]) == 128 + number
    said = capsys.readouterr().err
    assert "--resume stopped" in said and "Traceback" not in said
    assert not Path("stopped/asset.glb").exists()
    assert cli.main(["generate", "--resume", "stopped"]) == 0

    use(GrayBallPrior(), monkeypatch)
    assert cli.main([*CHAIR, "--out", "straight", *options(SMALL)]) == 0
    one, other = checkpoint("stopped"), checkpoint("straight")
    assert one.keys() == other.keys() and all(one[k].equal(other[k]) for k in one)
    steps = [json.loads(line)["step"] for line in Path("stopped/metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "made"
    with pytest.MonkeyPatch.context() as patch:
        use(GrayBallPrior(), patch)
        assert cli.main([*CHAIR, "--out", str(folder), *options(SMALL)]) == 0
    return folder


@pytest.fixture
def made(made_once: Path) -> Path:
    shutil.copytree(made_once, "made")
    return Path("made")


def test_a_run_says_how_it_goes_and_what_it_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(GrayBallPrior(), monkeypatch)
    assert cli.main([*CHAIR, *options(SMALL)]) == 0
    said = capsys.readouterr()
    assert said.err.startswith("'a red chair', preset balanced, seed 0, in runs/a-red-chair-0\n")
    assert "step 6/6" in said.err and "steps/s" in said.err and "MB" in said.err
    assert "triangles" in said.out and "runs/a-red-chair-0/asset.glb" in said.out
    made = {p.name for p in Path("runs/a-red-chair-0").iterdir()}
    assert made == {
        "asset.glb",
        "preview.png",
        "run.yaml",
        "metrics.jsonl",
        "cost.json",
        "checkpoint",
    }  # no frames were asked for


def test_a_run_can_be_exported_and_drawn(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    argv = [
        "export",
        "made",
        "--format",
        "glb,obj,ply,stl,usdz",
        "--faces",
        "200",
        "--texture-size",
        "64",
        "--out",
        "e",
    ]
    assert cli.main(argv) == 0
    suffixes = {p.suffix for p in Path("e").iterdir()}
    assert {".glb", ".obj", ".ply", ".stl", ".usdz"} <= suffixes
    assert cli.main(["render", "made", "--views", "0,-90", "--kind", "color,depth", "--size", "16", "--out", "r"]) == 0
    assert sorted(p.name for p in Path("r").iterdir()) == [
        "color--90.png", "color-0.png", "depth--90.png", "depth-0.png",
    ]  # fmt: skip
    assert Image.open("r/color-0.png").size == (16, 16)
    assert cli.main(["render", "made", "--turntable", "--frames", "3", "--size", "32", "--out", "t"]) == 0
    assert sorted(p.name for p in Path("t").iterdir()) == ["turntable.gif", "turntable.mp4"]
    capsys.readouterr()
    for argv, line in [
        (["export", "made", "--format", "gltf"], "unknown format 'gltf' (did you mean"),
        (["export", "made", "--faces", "7"], "export.faces = '7' is not allowed"),
        (["render", "made", "--kind", "colour"], "unknown kind 'colour' (did you mean 'color'?"),
        (["render", "made", "--views", "0,x"], "each of --views = 'x' is not allowed"),
        (["render", "made", "--size", "5"], "--size = '5' is not allowed"),
        ([*CHAIR, "--out", "made"], "made already holds a run; go on with --resume made"),
    ]:
        assert line in one_error_line(argv, capsys)


@pytest.mark.parametrize("command", [["generate", "--resume"], ["export"], ["render"]])
def test_damaged_runs(command: list[str], made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = made.glob("checkpoint/*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert "is truncated" in one_error_line([*command, "made"], capsys)
    path.write_bytes(bytes([*whole[:-1], whole[-1] ^ 1]))
    assert "was altered: its SHA-256 is not" in one_error_line([*command, "made"], capsys)
    path.write_bytes(whole)
    meta = path.with_name("checkpoint.json")
    meta.write_text(meta.read_text().replace('"format": 2', '"format": 0'))
    assert "has format 0" in one_error_line([*command, "made"], capsys)


def test_a_checkpoint_of_another_scene(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (made / "run.yaml").read_text().replace("levels: [6, 10]", "levels: [6, 12]")
    (made / "run.yaml").write_text(page)
    assert "does not fit this configuration" in one_error_line(["export", "made"], capsys)


def test_a_second_reader_opens_the_glb(made: Path) -> None:
    import pygltflib

    scene = pygltflib.GLTF2().load(str(made / "asset.glb"))
    assert scene.asset.version == "2.0" and len(scene.meshes) == 1
    assert scene.scenes[0].extras["dreamfusion"]["prompt"] == "a red chair"


def test_warnings_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Strange(GrayBallPrior):
        def unknown_words(self, prompt: str) -> list[Any]:
            from dreamfusion.priors.prior import Unknown

            return [Unknown("zorgle", "stool", 0.25)]

    use(Strange(), monkeypatch)
    assert cli.main(["generate", "a zorgle", "--out", "z", *options(SMALL | {"steps": 1})]) == 0
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "warning" in x]
    assert "zorgle" in line and "stool" in line and line.startswith("dreamfusion: warning: ")


def test_doctor_reports_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from dreamfusion.priors import bundled_prior as bundled

    save_file({}, "none.safetensors")
    monkeypatch.setattr(bundled, "BundledPrior", partial(bundled.BundledPrior, Path("missing.safetensors")))
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().out
    rows = {line.split()[1]: line.split()[0] for line in said.splitlines()}
    assert rows["prior"] == "MISSING" and rows["devices"] == rows["ffmpeg"] == rows["text"] == "ok"
    assert "needed for: generate" in said


def test_output_that_nobody_reads() -> None:
    argv = f"{sys.executable} -m dreamfusion presets --full dreamfusion | true"
    done = subprocess.run(argv, shell=True, capture_output=True, text=True, env=environment())
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
