"""How things may look: colours, materials, patterns, two colours at once, and the things' own colours.

A look has three parts that combine freely: what most of the thing is painted with (``MAINS``), a second colour (``SECONDS``) and
where that one goes (``PATTERNS``; without a pattern, on the thing's other part). ``paint.py`` paints them.
"""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[float, float, float]

PLAIN, CLAY = "", "clay"
COLOURS: dict[str, Colour] = {
    "red": (0.80, 0.09, 0.09), "orange": (0.90, 0.46, 0.07), "yellow": (0.90, 0.79, 0.12), "green": (0.15, 0.58, 0.17),
    "turquoise": (0.14, 0.72, 0.70), "blue": (0.12, 0.27, 0.82), "purple": (0.48, 0.16, 0.66), "pink": (0.90, 0.50, 0.66),
    "brown": (0.42, 0.25, 0.12), "black": (0.09, 0.09, 0.10), "white": (0.84, 0.84, 0.83), "gray": (0.43, 0.43, 0.44),
    "beige": (0.80, 0.70, 0.52), "navy": (0.07, 0.11, 0.34), "maroon": (0.42, 0.06, 0.11), "lime": (0.58, 0.83, 0.14),
    "olive": (0.40, 0.42, 0.12), "magenta": (0.82, 0.10, 0.55), "lavender": (0.70, 0.62, 0.86), "sky blue": (0.42, 0.70, 0.90),
}  # fmt: skip


@dataclass(frozen=True)
class Material:
    """A base colour, a second one where the field of ``solid.FIELDS`` is high, and how bright its highlight is."""

    base: Colour
    other: Colour
    field: str
    highlight: float
    words: tuple[str, ...]


MATERIALS: dict[str, Material] = {
    "wooden": Material((0.62, 0.42, 0.22), (0.40, 0.25, 0.12), "grain", 0.0, ("wood",)),
    "metal": Material((0.55, 0.57, 0.60), (0.47, 0.49, 0.52), "speckle", 0.40, ("metallic", "steel")),
    "iron": Material((0.27, 0.27, 0.29), (0.21, 0.21, 0.22), "speckle", 0.22, ("cast iron",)),
    "golden": Material((0.80, 0.57, 0.13), (0.70, 0.45, 0.08), "blotches", 0.40, ("gold",)),
    "silver": Material((0.72, 0.73, 0.76), (0.60, 0.61, 0.65), "blotches", 0.40, ()),
    "bronze": Material((0.50, 0.33, 0.16), (0.36, 0.34, 0.22), "blotches", 0.28, ()),
    "copper": Material((0.70, 0.38, 0.23), (0.58, 0.28, 0.16), "blotches", 0.32, ()),
    "rusty": Material((0.50, 0.24, 0.11), (0.30, 0.27, 0.25), "blotches", 0.0, ("rusted",)),
    "stone": Material((0.54, 0.52, 0.49), (0.34, 0.33, 0.31), "speckle", 0.0, ()),
    "brick": Material((0.74, 0.71, 0.65), (0.60, 0.24, 0.16), "bricks", 0.0, ()),
    "marble": Material((0.82, 0.81, 0.79), (0.46, 0.46, 0.49), "blotches", 0.15, ()),
    "glass": Material((0.58, 0.78, 0.82), (0.52, 0.72, 0.76), "y", 0.40, ("crystal",)),
    "ice": Material((0.66, 0.80, 0.90), (0.84, 0.88, 0.90), "blotches", 0.25, ("icy", "frozen")),
    "leather": Material((0.44, 0.25, 0.13), (0.30, 0.16, 0.08), "speckle", 0.10, ()),
    "mossy": Material((0.46, 0.44, 0.40), (0.26, 0.40, 0.12), "blotches", 0.0, ("moss covered", "overgrown")),
    "cardboard": Material((0.70, 0.54, 0.36), (0.64, 0.48, 0.31), "y", 0.0, ("paper",)),
    "jade": Material((0.18, 0.52, 0.36), (0.42, 0.70, 0.52), "blotches", 0.25, ("emerald",)),
    "chocolate": Material((0.27, 0.14, 0.07), (0.22, 0.11, 0.05), "y", 0.18, ()),
}
PATTERN_WORDS: dict[str, tuple[str, ...]] = {
    "striped": ("stripy", "stripey"),
    "dotted": ("polka dot", "spotted"),
    "checkered": ("chequered", "checked"),
    "camouflage": ("camo",),
    "rainbow": ("rainbow colored", "multicolored"),
}
MAINS = (PLAIN, CLAY, *COLOURS, *MATERIALS)
SECONDS = ("", *COLOURS)
PATTERNS = ("", *PATTERN_WORDS)
WHOLE = ("camouflage", "rainbow")
"""Patterns that bring their own colours."""
FACTORS = (len(MAINS), len(SECONDS), len(PATTERNS))

PROPORTIONS: dict[str, tuple[float, float, float]] = {
    "": (1.0, 1.0, 1.0), "tall": (0.66, 1.0, 0.66), "short": (1.0, 0.62, 1.0), "wide": (1.0, 0.72, 0.72), "narrow": (0.6, 1.0, 1.0),
    "slim": (0.58, 1.0, 0.58), "fat": (1.0, 0.8, 1.0), "long": (0.66, 0.66, 1.0), "flat": (1.0, 0.42, 1.0),
}  # fmt: skip
"""How a shape is stretched along x, y and z; at most 1, so that it stays in the unit sphere."""
PROPORTION_WORDS: dict[str, tuple[str, ...]] = {
    "tall": ("high",), "short": ("low", "squat"), "wide": ("broad",), "slim": ("thin", "slender", "skinny"),
    "fat": ("chubby", "thick"), "long": ("elongated",), "flat": ("flattened",),
}  # fmt: skip
