"""What a batch is asked for: lists of prompts as text, CSV and YAML, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamfusion import cli
from dreamfusion.batch.prompt_list import read_jobs
from dreamfusion.errors import UserError

OUT = Path("out")


def asked(path: Path, text: str) -> list[tuple[str, str, str, int, float, int]]:
    """Folder, prompt, preset, and three settings of each line."""
    path.write_text(text, encoding="utf-8")
    jobs = read_jobs(path, OUT, "fast", {"steps": "70"})
    configs = [job.config for job in jobs]
    return [
        (job.folder.name, c.prompt, c.preset, c.seed, getattr(c.distillation, "guidance_scale", -1), c.steps)
        for job, c in zip(jobs, configs, strict=True)
    ]


def test_a_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    found = asked(tmp_path / "p.txt", "\ufeff# a comment\na red chair\n\n  a blue (old) bus, \n")
    assert found == [
        ("a-red-chair-0", "a red chair", "fast", 0, 0.0, 70),
        ("a-blue-old-bus-0", "a blue (old) bus,", "fast", 0, 0.0, 70),
    ]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_columns_are_settings_and_empty_cells_say_nothing(tmp_path: Path, mark: str) -> None:
    text = 'seed,prompt,preset,guidance-scale,name,steps\n3,"a chair",,2.5,mine,\n,a bus,balanced,,,9\n'
    found = asked(tmp_path / "p.csv", text.replace(",", mark))
    assert found == [("mine", "a chair", "fast", 3, 2.5, 70), ("a-bus-0", "a bus", "balanced", 0, 0.0, 9)]


def test_yaml_values_mean_what_a_person_reads(tmp_path: Path) -> None:
    text = """
- no
- {prompt: 012, seed: 7}
- prompt: a chair
  name: second
  distillation.guidance_scale: 1
  settings: {steps: 010, prior: bundled}
"""
    found = asked(tmp_path / "p.yaml", text)
    assert found == [
        ("no-0", "no", "fast", 0, 0.0, 70),
        ("012-7", "012", "fast", 7, 0.0, 70),
        ("second", "a chair", "fast", 0, 1.0, 10),
    ]


WRONG = {
    "empty.txt": ("\n# nothing\n", "holds no prompts"),
    "sed.csv": ("prompt,sed\na,1\n", "unknown column 'sed' (did you mean 'seed'?)"),
    "guide.yaml": ("- {prompt: a, guidance_scal: 3}\n", "unknown column 'guidance_scal' (did you mean"),
    "no-prompt.csv": ("seed,steps\n1,2\n", "'prompt' is not among them"),
    "twice.csv": ("prompt,seed,seed\na,1,2\n", "the column 'seed' is there twice"),
    "cells.csv": ("prompt,seed\na,1,2\n", "line 2 has 3 cells for 2 columns"),
    "quote.csv": ('prompt\n"a\n', "unexpected end of data"),
    "same.txt": (
        "a Chair\n\na chair!\n",
        "line 3: 'a chair!' would get the folder a-chair-0, which line 1 gets already",
    ),
    "case.csv": ("prompt,name\na,One\nb,one\n", "which line 2 gets already"),
    "emoji.txt": ("a chair\n\U0001fa91\n", "line 2: '\U0001fa91' has no letter for a folder's name"),
    "path.csv": ("prompt,name\na,../x\n", "the name '../x' is not allowed"),
    "dots.csv": ("prompt,name\na,..\n", "the name '..' is not allowed"),
    "value.csv": ("prompt,steps\na,many\n", "line 2: steps = 'many' is not allowed"),
    "preset.csv": ("prompt,preset\na,fats\n", "line 2: unknown preset 'fats' (did you mean 'fast'?"),
    "blank.csv": ("prompt,seed\n,3\n", "line 2: the prompt is empty"),
    "map.yaml": ("prompt: a\n", "is a list"),
    "broken.yaml": ("- {prompt: a\n", "cannot be read"),
    "double.yaml": ("- {prompt: a, steps: 3, settings: {steps: 4}}\n", "'steps' is given twice"),
    "number.yaml": ("- 5\n", "the prompt must be text"),
    "long.txt": ("x" * 1001, "the prompt has 1001 characters"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_one_line_and_nothing_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(WRONG[name][0], encoding="utf-8")
    code = cli.main(["batch", name, "--out", "set"])
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert (code, said.out) == (2, "") and WRONG[name][1] in line and name in line
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere.txt", "--out", "set"], "there is no file nowhere.txt"),
        (["p.txt"], "--out names the folder"),
        (["p.txt", "--out", "set", "--workers", "0"], "--workers = '0' is not allowed"),
        (["p.txt", "--out", "set", "--retries", "x"], "--retries = 'x' is not allowed"),
        (["p.txt", "--out", "p.txt"], "cannot write p.txt"),
        ([".", "--out", "set"], "it is a folder, not a file"),
        (["latin.txt", "--out", "set"], "cannot be read as UTF-8 text"),
        (["p.txt", "--out", "taken"], "exists and is not a run"),
    ],
)
def test_mistakes_on_the_command_line(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("a chair\n")
    Path("latin.txt").write_bytes(b"\xff\xfe\x00")
    Path("taken/a-chair-0").mkdir(parents=True)
    Path("taken/a-chair-0/mine.txt").write_text("x")
    assert cli.main(["batch", *argv]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and not Path("set").exists()


def test_too_many(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("".join(f"a chair {k}\n" for k in range(10_001)))
    with pytest.raises(UserError, match="holds 10001 prompts; a batch has 1 to 10000"):
        read_jobs(tmp_path / "p.txt", OUT)
