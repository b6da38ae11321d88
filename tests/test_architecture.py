"""The arrows of the package: which room may import which, and no circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import dreamfusion

HOME = Path(dreamfusion.__file__).parent

# From the bottom up. A room imports rooms of earlier lines, and itself.
LAYERS = (
    ("errors", "reports", "schema"),
    ("paths",),
    ("files", "prompts", "device", "torch_state", "reference", "adam"),
    ("kernels",),
    ("view", "models", "geometry", "cost"),
    ("scene", "priors"),
    ("clip", "distillation", "export", "suites"),
    ("settings",),
    (
        "asset",
        "captions",
        "optimiser",
        "metrics",
        "regularizers",
        "loading",
        "more_steps",
        "no_effect",
        "prompt_checks",
        "run",
    ),
    ("mid_run", "prior_report", "samples", "stage"),
    ("trainer", "recorded"),
    ("loop", "evaluation"),
    ("generation",),
    ("display", "doctor", "interrupts", "output", "ray_cluster", "streams"),
    ("batch", "serving"),
    ("studio",),
    ("commands",),
    ("cli",),
    ("__main__", "__init__"),
)
RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}
ABOVE_ALL = {"__version__"}  # names that the package itself holds


def modules() -> dict[str, Path]:
    """Each module's dotted name inside the package, and its file."""
    found = {}
    for path in sorted(HOME.rglob("*.py")):
        parts = path.relative_to(HOME).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    """A module's code, parsed once."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(name: str, path: Path, known: dict[str, Path], lazy: bool) -> Iterator[str]:
    """Modules of the package that a module imports; with ``lazy`` also inside functions and for types only."""
    base = name.split(".") if path.name == "__init__.py" and name != "__init__" else name.split(".")[:-1]
    tree = tree_of(path)
    nodes = ast.walk(tree) if lazy else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            start = base[: len(base) - node.level + 1]
            target = ".".join([*start, *(node.module.split(".") if node.module else [])])
            for alias in node.names:
                if alias.name in ABOVE_ALL:
                    continue
                inside = f"{target}.{alias.name}" if target else alias.name
                yield inside if inside in known else target


@pytest.fixture(scope="module")
def known() -> dict[str, Path]:
    return modules()


def test_every_module_has_a_room_with_a_rank(known: dict[str, Path]) -> None:
    assert {name.partition(".")[0] for name in known} == set(RANK)


@pytest.mark.parametrize("lazy", [False, True])
def test_no_arrow_points_upwards(known: dict[str, Path], lazy: bool) -> None:
    for name, path in known.items():
        room = name.partition(".")[0]
        for target in imports(name, path, known, lazy):
            other = target.partition(".")[0]
            assert other == room or RANK[other] < RANK[room], f"{name} imports {target}"


def test_no_circles_of_modules(known: dict[str, Path]) -> None:
    graph = {name: set(imports(name, path, known, lazy=False)) - {name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_imports_inside_the_package_are_relative(known: dict[str, Path]) -> None:
    for name, path in known.items():
        for node in ast.walk(tree_of(path)):
            absolute = (
                isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("dreamfusion")
            )
            assert not absolute, f"{name} imports {node.module} by its full name"  # type: ignore[attr-defined]


def test_priors_see_nothing_of_scenes_and_of_views_the_types_only(known: dict[str, Path]) -> None:
    allowed = {"view.view", "view.cameras"}
    for name, path in known.items():
        if name.startswith("priors"):
            for target in imports(name, path, known, lazy=True):
                assert not target.startswith("scene") and (not target.startswith("view") or target in allowed), name


def test_nouns_do_not_ask_each_other_what_they_have(known: dict[str, Path]) -> None:
    rooms = ("view", "scene", "distillation", "captions", "stage", "trainer", "loop", "generation", "samples")
    for name, path in known.items():
        if name.partition(".")[0] in rooms:
            assert "hasattr(" not in path.read_text(encoding="utf-8"), name


def test_file_names_can_be_guessed(known: dict[str, Path]) -> None:
    names = [path.name for path in known.values() if path.name != "__init__.py"]
    twice = {n for n in names if names.count(n) > 1}
    assert not twice - {"geometry.py"}, twice
