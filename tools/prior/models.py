"""The reviewed tables of the wide prior's models: ``models.tsv``, a line a model, and ``names.tsv``, a line a name.

``models.tsv``: ``file`` (a GLB, or ``<library>#<number>`` of the Debian catalogue), ``name`` (what it shows; empty where it is
dropped), ``turn`` (degrees about +Y that bring its front to +Z; empty: as its source, ``SOURCES``), ``drop`` (why it is not
used), ``licence``, ``maker``, ``repository``, ``commit`` and ``path``.

``names.tsv``: ``name``, ``category``, ``kind`` (a more general name that is also true, or empty), ``front`` (whether a front can be
told), ``synonyms`` and ``plain`` (those words that take no article), both separated by ``; ``.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vocabulary import MODELS

T = TypeVar("T")

NAME_OF = {key: name for name, key in MODELS.items()}
MODELS_TABLE = Path(__file__).parent / "models.tsv"
NAMES_TABLE = Path(__file__).parent / "names.tsv"
MODEL_COLUMNS = ("file", "name", "turn", "drop", "licence", "maker", "repository", "commit", "path")
NAME_COLUMNS = ("name", "category", "kind", "front", "synonyms", "plain")
DEBIAN = "debian:sweethome3d-furniture"
CAP = 12
"""Most instances of one name: else trees and rocks would be most of the pictures."""

LICENCES = {
    "CC0-1.0": "CC0 1.0",
    "MIT-0": "MIT-0",
    "CC-BY-2.0": "CC BY 2.0",
    "CC-BY-3.0": "CC BY 3.0",
    "CC-BY-3.0-US": "CC BY 3.0 US",
    "CC-BY-4.0": "CC BY 4.0",
}
CATEGORIES = (
    "animal", "building", "clothing", "electronics", "food", "furniture", "instrument", "kitchenware", "nature", "people",
    "props", "robot", "ship", "space", "sport", "tool", "toy", "vehicle", "weapon",
)  # fmt: skip

SOURCES: dict[tuple[str, str], float] = {
    ("hamilton-lima/smallflatworld", "web/src/assets/library/kenney/carkit-1.4/"): 180,
    ("hamilton-lima/smallflatworld", "web/src/assets/library/kenney/tower-defense-kit-1/"): 180,
    ("lazyxeon/AstraWeave-AI-Native-Gaming-Engine", ""): 180,
    ("beep2bleep/FreeAssetsByKenneyNLandQuaternius", "FreeModels by Quaternius[Patreon]/FPS/"): 180,
    (
        "beep2bleep/FreeAssetsByKenneyNLandQuaternius",
        "FreeModels by Quaternius[Patreon]/Medieval/Pirate Pack - Oct 2016/",
    ): 180,
    (
        "beep2bleep/FreeAssetsByKenneyNLandQuaternius",
        "FreeModels by Quaternius[Patreon]/Home and Buildings/Furniture Pack - Oct 2017/",
    ): -90,
    (
        "beep2bleep/FreeAssetsByKenneyNLandQuaternius",
        "FreeModels by Quaternius[Patreon]/Characters and Animals/Fruit Characters",
    ): -90,
    ("beep2bleep/FreeAssetsByKenneyNLandQuaternius", "FreeModels by Quaternius[Patreon]/Vehicles/Train Pack"): 90,
    ("trebeljahr/quaternius-showcase", "public/glb/modular_sci_fi_guns_pack/"): -90,
    ("trebeljahr/quaternius-showcase", "public/glb/tank_pack/"): 90,
    ("trebeljahr/quaternius-showcase", "public/glb/street_pack/"): -90,
}
"""Degrees about +Y that bring fronts to +Z, by repository and beginning of the path; all other sources face +Z already."""


class TableError(ValueError):
    """A table that cannot be used; the message is one line and says where."""


@dataclass(frozen=True)
class Model:
    """A line of ``models.tsv``; ``turn`` None stands for its source's."""

    file: str
    name: str
    turn: float | None
    drop: str
    licence: str
    maker: str
    repository: str
    commit: str
    path: str

    @property
    def is_glb(self) -> bool:
        """Whether it is a file of ``--models`` and not an entry of the Debian catalogue."""
        return self.repository != DEBIAN

    @property
    def turn_deg(self) -> float:
        """Degrees about +Y that bring its front to +Z."""
        return source_turn(self.repository, self.path) if self.turn is None else self.turn


@dataclass(frozen=True)
class Name:
    """A line of ``names.tsv``."""

    name: str
    category: str
    kind: str
    front: bool
    synonyms: tuple[str, ...]
    plain: tuple[str, ...]


def source_turn(repository: str, path: str) -> float:
    """The turn of a source: of the longest beginning of the path that ``SOURCES`` has, else 0."""
    found = [(len(p), turn) for (r, p), turn in SOURCES.items() if r == repository and path.startswith(p)]
    return max(found)[1] if found else 0.0


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Lines of a table by column, with their numbers."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    if not lines or tuple(lines[0]) != tuple(columns):
        raise TableError(f"{path.name}: its first line must be {' '.join(columns)}")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(columns):
            raise TableError(f"{path.name}, line {number}: {len(line)} columns instead of {len(columns)}")
    return [(number, dict(zip(columns, line, strict=True))) for number, line in enumerate(lines[1:], 2)]


def read_models(path: Path = MODELS_TABLE) -> list[Model]:
    """The models, dropped ones too; refuses double files, unknown licences and lines that neither keep nor drop."""
    out: list[Model] = []
    seen: set[str] = set()
    for number, row in _rows(path, MODEL_COLUMNS):
        where = f"{path.name}, line {number}"
        if row["file"] in seen:
            raise TableError(f"{where}: {row['file']} is there twice")
        if row["licence"] not in LICENCES:
            raise TableError(f"{where}: licence {row['licence']!r} is none of {', '.join(LICENCES)}")
        if bool(row["name"]) == bool(row["drop"]):
            raise TableError(f"{where}: needs a name or a reason to drop {row['file']}, and not both")
        try:
            turn = float(row["turn"]) if row["turn"] else None
        except ValueError:
            raise TableError(f"{where}: turn {row['turn']!r} is not a number of degrees") from None
        seen.add(row["file"])
        out.append(Model(**{**row, "turn": turn}))  # type: ignore[arg-type]
    return out


def read_names(path: Path = NAMES_TABLE) -> dict[str, Name]:
    """The names; refuses words that mean two things, unknown categories and kinds."""
    out: dict[str, Name] = {}
    means: dict[str, str] = {}
    for number, row in _rows(path, NAME_COLUMNS):
        where = f"{path.name}, line {number}"
        words = [w for w in row["synonyms"].split("; ") if w]
        for word in (row["name"], *words):
            if word in means:
                raise TableError(f"{where}: {word!r} means {means[word]!r} already")
            if not word or word != word.strip().lower():
                raise TableError(f"{where}: {word!r} is not a phrase in lower case")
            means[word] = row["name"]
        if row["category"] not in CATEGORIES:
            raise TableError(f"{where}: category {row['category']!r} is none of {', '.join(CATEGORIES)}")
        if row["front"] not in ("yes", "no"):
            raise TableError(f"{where}: front is 'yes' or 'no', not {row['front']!r}")
        plain = tuple(w for w in row["plain"].split("; ") if w)
        out[row["name"]] = Name(row["name"], row["category"], row["kind"], row["front"] == "yes", tuple(words), plain)
        if strange := set(plain) - {row["name"], *words}:
            raise TableError(f"{where}: {sorted(strange)[0]!r} is neither the name nor a synonym")
    for name in out.values():
        if name.kind and name.kind not in out:
            raise TableError(f"{path.name}: {name.name!r} is of the kind {name.kind!r}, which is not a name")
        generals(name.name, out)
    return out


def generals(name: str, names: dict[str, Name]) -> list[str]:
    """The more general names of a name, nearest first ("snowy pine tree": "pine tree", "tree")."""
    out: list[str] = []
    while (name := names[name].kind) != "":
        if name in out:
            raise TableError(f"{NAMES_TABLE.name}: the kinds of {name!r} go round in a circle")
        out.append(name)
    return out


def spread(groups: Iterable[Sequence[T]], cap: int) -> list[T]:
    """At most ``cap`` items, one of each group in turn."""
    waiting, out = [list(g) for g in groups], []
    while len(out) < cap and any(waiting):
        for group in waiting:
            if group and len(out) < cap:
                out.append(group.pop(0))
    return out


def instances(models: Sequence[Model], names: dict[str, Name], cap: int = CAP) -> dict[str, list[Model]]:
    """The models that show each name, at most ``cap``: its own from all sources in turn, and half of those of its kinds.

    The models of ``vocabulary.py`` come first.

    Refuses models with a name that is not in the table, and names that no model shows.
    """
    own: dict[str, dict[str, list[Model]]] = defaultdict(lambda: defaultdict(list))
    first = set(MODELS.values())
    for model in sorted(models, key=lambda m: m.file not in first):
        if model.name:
            if model.name not in names:
                raise TableError(
                    f"{MODELS_TABLE.name}: {model.file} is a {model.name!r}, which {NAMES_TABLE.name} lacks"
                )
            own[model.name][f"{model.repository}/{model.path.rpartition('/')[0]}"].append(model)
    below: dict[str, list[str]] = defaultdict(list)
    for name in names.values():
        if name.kind:
            below[name.kind].append(name.name)
    shown = {name: spread(own[name].values(), cap) for name in names}

    def of(name: str) -> list[Model]:
        """A name's own and its kinds' models in turn."""
        return spread([shown[name], spread([of(kind) for kind in below[name]], cap)], cap)

    out = {name: of(name) for name in names}
    if empty := [name for name, found in out.items() if not found]:
        raise TableError(f"{NAMES_TABLE.name}: no model shows {empty[0]!r}")
    return out


def check_folder(folder: Path, models: Sequence[Model], needed: Sequence[Model] | None = None) -> None:
    """Refuse a folder of GLBs that is not the table's: that has others, or lacks one of ``needed`` (by default all). An ``index.tsv``
    in it must agree with the table."""
    wanted, found = {m.file: m for m in models if m.is_glb}, {p.name for p in folder.glob("*.glb")}
    must = {m.file for m in (models if needed is None else needed) if m.is_glb}
    if must and not found:
        raise TableError(f"{folder}: there are no .glb files in it")
    for ours, theirs, text in (
        (must, found, f"{folder} lacks {{}}, which {MODELS_TABLE.name} names"),
        (found, wanted.keys(), f"{MODELS_TABLE.name} lacks {{}}, which is in {folder}"),
    ):
        if rest := sorted(set(ours) - set(theirs)):
            raise TableError(text.format(rest[0] + (f" and {len(rest) - 1} more" if len(rest) > 1 else "")))
    index = folder / "index.tsv"
    if index.exists():
        with index.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                model = wanted.get(row.get("file", ""))
                if model and any(row.get(key) != getattr(model, key) for key in ("repository", "commit", "path")):
                    raise TableError(f"{index}: {model.file} is from somewhere else than {MODELS_TABLE.name} says")


def stem_of(file: str) -> str:
    """What the pictures of a model begin with: a name of ``vocabulary.py`` for its models, the model's file for others."""
    return NAME_OF.get(file, file.removesuffix(".glb").replace("#", "_")).replace(" ", "_")


def attribution(models: Iterable[Model]) -> str:
    """Who made the models, in Markdown: those that must be attributed by name, the rest by repository and maker."""
    named: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    free: dict[tuple[str, str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for model in models:
        source = (model.licence, model.repository, model.commit)
        if model.licence.startswith("CC-BY"):
            named[source].append(f"{model.name} ({model.maker})")
        else:
            free[source][model.maker] += 1
    out = [
        f"**{where}** at {commit[:12]}, {LICENCES[licence]}: {', '.join(sorted(items))}."
        for (licence, where, commit), items in sorted(named.items())
    ]
    out += [
        f"**{where}** at {commit[:12]}, {LICENCES[licence]}: "
        + ", ".join(f"{count} by {maker}" for maker, count in sorted(makers.items()))
        + "."
        for (licence, where, commit), makers in sorted(free.items())
    ]
    return "\n\n".join(out)
