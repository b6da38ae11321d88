"""What README and docs/ show is true: commands parse (the cheap ones run), Python compiles, links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dreamfusion import cli
from dreamfusion.errors import UserError
from dreamfusion.settings.names import full_name
from dreamfusion.settings.options import given_settings
from dreamfusion.settings.presets import resolve

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CHEAP = ("presets", "--version", "--help")


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced code blocks of a page in these languages."""
    return [
        code
        for language, code in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.M | re.S)
        if language in languages
    ]


def command_lines() -> list[str]:
    found = []
    for page in PAGES:
        for line in "\n".join(blocks(page, "sh", "bash", "console", "")).splitlines():
            for part in line.removeprefix("$ ").split("&&"):
                if part.strip().startswith("dreamfusion "):
                    found.append(part.strip())
    return sorted(set(found))


def python_blocks() -> list[tuple[str, str]]:
    return [(page.name, code) for page in PAGES for code in blocks(page, "python", "py")]


def test_there_is_something_to_check() -> None:
    assert len(command_lines()) >= 20 and len(python_blocks()) >= 5


@pytest.mark.parametrize("line", command_lines())
def test_commands_are_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = shlex.split(line, comments=True)[1:]
    if any(word in argv for word in CHEAP):
        monkeypatch.chdir(tmp_path)
        assert cli.main(argv) == 0
        return
    name, given = cli.parse(argv)
    assert name == argv[0] or name == " ".join(argv[:2])
    if name == "generate" and not given.resume:
        preset = "balanced" if str(given.preset).endswith(".yaml") else given.preset  # the file is only an example
        resolve(preset or "balanced", given_settings(given), given.prompt or "a chair")


def test_words_that_look_like_options_are_options() -> None:
    known = {o for name in cli.COMMANDS for action in cli.parser_of(name)._actions for o in action.option_strings}
    for tool in [*(ROOT / "tools").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        known |= set(re.findall(r"add_argument\(\s*\"(--[\w-]+)", tool.read_text()))
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        for option in re.findall(r"`(--[a-z][\w.-]*)", prose):
            assert option in known, f"{page.name}: {option}"


def test_settings_named_in_prose_exist() -> None:
    groups = r"(?:prior|view|shading|scene|distillation|regularizers|optimizer|run|export|cost)"
    for page in PAGES:
        for name in re.findall(rf"`({groups}\.[a-z_]+)`", page.read_text()):
            if not name.endswith((".yaml", ".json", ".py", ".words", ".embed", ".sample", ".render")):
                full_name(name)


@pytest.mark.parametrize(("page", "code"), python_blocks())
def test_python_compiles_and_its_names_exist(page: str, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dreamfusion":
            for name in node.names:
                assert hasattr(importlib.import_module(node.module), name.name), name.name
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "generate":
            own = {"prompt", "preset", "out", "resume", "config", "prior", "callbacks", "stop"}
            for keyword in node.keywords:
                if keyword.arg not in own:
                    try:
                        full_name(str(keyword.arg))
                    except UserError:
                        assert "UserError" in code, f"{page}: {keyword.arg}"  # shown as a mistake


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_picture_of_where_rules_end_is_shown_with_a_panel_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.syspath_prepend(ROOT / "tools")
    import rules_plot

    page = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    _, told = page.split("## Where they end", 1)
    assert f"]({rules_plot.PAGE.name})" in told.split("\n## ", 1)[0] and rules_plot.PAGE.parent == ROOT / "docs"
    with Image.open(rules_plot.PAGE) as picture:
        picture.load()
        assert picture.width >= 900 and picture.height >= 700
    assert rules_plot.PAGE.stat().st_size < 200_000
    kinds = set(re.findall(r"^\| `(\w+)` \|", page, re.M)) - {
        "reconstruction",
        "dds",
        "clip",
    }  # nothing to be seen in the plane
    assert kinds == {kind for _, kind, _ in rules_plot.PANELS}


def test_the_settings_page_is_up_to_date() -> None:
    code = "import settings_page as s, sys; sys.exit(s.page() != s.PAGE.read_text(encoding='utf-8'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tools", env=source_environment())
    assert done.returncode == 0, "run: python tools/settings_page.py"


def test_preset_names_in_the_guide_are_all_there() -> None:
    from dreamfusion.settings.presets import preset_names

    usage = (ROOT / "docs" / "usage.md").read_text()
    assert all(f"`{name}`" in usage for name in preset_names())


def source_environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "src")}
