"""Twenty plain drawings of things, as a child or an icon set would have them: pictures that no renderer made.

They are this project's own and in the public domain (CC0 1.0). A drawing is 256 x 256 with transparency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw

SIDE, FINER = 256, 4
BLACK, BROWN, DARK_BROWN, GRAY, GREEN, ORANGE, RED, SKIN, WHITE, YELLOW = (
    "#222222", "#8a5a2b", "#5c3a1a", "#9aa0a6", "#2e8b3d", "#f08a24", "#d22f27", "#e8b98a", "#f4f4f0", "#f2c230",
)  # fmt: skip
BLUE, PALE_BLUE, SILVER = "#2f6fd2", "#9fd0ef", "#c8ccd0"

Box = Sequence[float]


class Paper:
    """A clear square, 100 units a side, y down, to draw on."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (SIDE * FINER, SIDE * FINER))
        self.pen = ImageDraw.Draw(self.image)

    def at(self, numbers: Box) -> list[float]:
        """Units as pixels."""
        return [x * SIDE * FINER / 100 for x in numbers]

    def oval(self, colour: str, *box: float) -> None:
        """An ellipse in a box of left, top, right, bottom."""
        self.pen.ellipse(self.at(box), fill=colour)

    def box(self, colour: str, *box: float, corner: float = 0) -> None:
        """A rectangle, with round corners of that radius."""
        self.pen.rounded_rectangle(self.at(box), self.at([corner])[0], fill=colour)

    def shape(self, colour: str, *corners: float) -> None:
        """A polygon of x, y, x, y …"""
        self.pen.polygon(self.at(corners), fill=colour)

    def line(self, colour: str, width: float, *points: float) -> None:
        """A line through x, y, x, y … with round joints."""
        pixels = self.at(points)
        self.pen.line(pixels, fill=colour, width=round(self.at([width])[0]), joint="curve")
        for x, y in zip(pixels[::2], pixels[1::2], strict=True):
            r = self.at([width / 2])[0]
            self.pen.ellipse([x - r, y - r, x + r, y + r], fill=colour)

    def bow(self, colour: str, width: float, start: float, end: float, *box: float) -> None:
        """A part of an ellipse's edge, degrees clockwise from the right."""
        self.pen.arc(self.at(box), start, end, fill=colour, width=round(self.at([width])[0]))

    def pie(self, colour: str, start: float, end: float, *box: float) -> None:
        """A sector of an ellipse."""
        self.pen.pieslice(self.at(box), start, end, fill=colour)


def mug(p: Paper) -> None:
    p.bow(BLUE, 6, -90, 90, 54, 36, 86, 70)
    p.box(BLUE, 22, 24, 68, 82, corner=6)
    p.oval(DARK_BROWN, 25, 21, 65, 31)


def apple(p: Paper) -> None:
    p.line(DARK_BROWN, 4, 50, 34, 54, 18)
    p.oval(GREEN, 54, 16, 74, 28)
    p.oval(RED, 18, 28, 58, 84)
    p.oval(RED, 42, 28, 82, 84)


def mushroom(p: Paper) -> None:
    p.box(SKIN, 40, 48, 60, 86, corner=7)
    p.pie(RED, 180, 360, 16, 16, 84, 88)
    for x, y, r in ((34, 38, 6), (52, 28, 6), (66, 41, 5)):
        p.oval(WHITE, x - r, y - r, x + r, y + r)


def house(p: Paper) -> None:
    p.box(WHITE, 24, 46, 76, 86)
    p.shape(RED, 16, 48, 50, 16, 84, 48)
    p.box(BROWN, 44, 62, 56, 86)
    p.box(PALE_BLUE, 29, 54, 39, 65)
    p.box(PALE_BLUE, 61, 54, 71, 65)


def pine_tree(p: Paper) -> None:
    p.box(DARK_BROWN, 45, 74, 55, 92)
    for top, bottom, half in ((8, 36, 16), (24, 56, 23), (42, 78, 30)):
        p.shape(GREEN, 50, top, 50 - half, bottom, 50 + half, bottom)


def car(p: Paper) -> None:
    p.shape(RED, 26, 48, 36, 30, 64, 30, 76, 48)
    p.shape(PALE_BLUE, 32, 47, 39, 34, 49, 34, 49, 47)
    p.shape(PALE_BLUE, 52, 47, 52, 34, 62, 34, 69, 47)
    p.box(RED, 8, 46, 92, 66, corner=6)
    for x in (27, 73):
        p.oval(BLACK, x - 10, 56, x + 10, 76)
        p.oval(SILVER, x - 4, 62, x + 4, 70)


def fish(p: Paper) -> None:
    p.shape(ORANGE, 66, 50, 92, 32, 92, 68)
    p.shape(ORANGE, 36, 34, 52, 20, 58, 36)
    p.oval(ORANGE, 10, 30, 74, 70)
    p.oval(WHITE, 20, 41, 29, 50)
    p.oval(BLACK, 22, 43, 27, 48)


def sword(p: Paper) -> None:
    p.shape(SILVER, 45, 66, 45, 14, 50, 6, 55, 14, 55, 66)
    p.box(YELLOW, 32, 66, 68, 71, corner=2)
    p.box(DARK_BROWN, 46.5, 71, 53.5, 88)
    p.oval(YELLOW, 44.5, 86, 55.5, 96)


def key(p: Paper) -> None:
    p.bow(YELLOW, 7, 0, 360, 10, 36, 40, 66)
    p.box(YELLOW, 38, 47, 92, 54)
    p.box(YELLOW, 76, 52, 82, 66)
    p.box(YELLOW, 86, 52, 92, 64)


def table_lamp(p: Paper) -> None:
    p.oval(BROWN, 32, 82, 68, 92)
    p.box(BROWN, 47, 46, 53, 88)
    p.shape(YELLOW, 38, 14, 62, 14, 76, 50, 24, 50)


def chair(p: Paper) -> None:
    p.box(BROWN, 28, 10, 35, 92)
    p.box(BROWN, 28, 52, 70, 60)
    p.box(BROWN, 63, 56, 70, 92)


def cactus(p: Paper) -> None:
    p.shape(ORANGE, 34, 74, 66, 74, 61, 94, 39, 94)
    p.line(GREEN, 14, 50, 72, 50, 18)
    p.line(GREEN, 9, 50, 54, 28, 54, 28, 36)
    p.line(GREEN, 9, 50, 46, 72, 46, 72, 28)


def snowman(p: Paper) -> None:
    p.oval(WHITE, 26, 50, 74, 94)
    p.oval(WHITE, 34, 24, 66, 58)
    p.box(BLACK, 37, 8, 63, 26)
    p.box(BLACK, 30, 24, 70, 29)
    for x, y in ((44, 36), (56, 36), (50, 64), (50, 74)):
        p.oval(BLACK, x - 2, y - 2, x + 2, y + 2)
    p.shape(ORANGE, 49, 40, 49, 46, 66, 45)


def candle(p: Paper) -> None:
    p.oval(GRAY, 28, 82, 72, 94)
    p.box(WHITE, 41, 36, 59, 88, corner=2)
    p.oval(ORANGE, 44, 10, 56, 36)
    p.oval(YELLOW, 47, 20, 53, 35)


def hammer(p: Paper) -> None:
    p.box(BROWN, 46, 26, 54, 92, corner=3)
    p.box(GRAY, 28, 12, 60, 30, corner=2)
    p.shape(GRAY, 60, 14, 60, 28, 80, 32, 72, 18)


def sailboat(p: Paper) -> None:
    p.shape(BROWN, 12, 68, 88, 68, 74, 86, 26, 86)
    p.box(DARK_BROWN, 48, 10, 51, 70)
    p.shape(WHITE, 53, 12, 53, 62, 84, 62)
    p.shape(WHITE, 46, 22, 46, 62, 22, 62)


def pumpkin(p: Paper) -> None:
    p.line(GREEN, 6, 50, 32, 54, 18)
    for x in (32, 68, 50):
        p.oval(ORANGE, x - 22, 28, x + 22, 86)


def umbrella(p: Paper) -> None:
    p.box(DARK_BROWN, 48.5, 12, 51.5, 82)
    p.bow(DARK_BROWN, 3, 0, 180, 38.5, 74, 51.5, 90)
    p.pie(BLUE, 180, 360, 10, 14, 90, 90)


def guitar(p: Paper) -> None:
    p.box(DARK_BROWN, 47, 12, 53, 60)
    p.box(BLACK, 44, 4, 56, 17, corner=2)
    p.oval(ORANGE, 32, 42, 68, 70)
    p.oval(ORANGE, 26, 58, 74, 96)
    p.oval(BLACK, 43, 58, 57, 72)


def star(p: Paper) -> None:
    corners = []
    for k in range(10):
        turn, r = math.pi * k / 5, (42, 17)[k % 2]
        corners += [50 + r * math.sin(turn), 52 - r * math.cos(turn)]
    p.shape(YELLOW, *corners)


THINGS: dict[str, Callable[[Paper], None]] = {
    name.__name__.replace("_", " "): name
    for name in (
        mug, apple, mushroom, house, pine_tree, car, fish, sword, key, table_lamp,
        chair, cactus, snowman, candle, hammer, sailboat, pumpkin, umbrella, guitar, star,
    )
}  # fmt: skip


def drawing(name: str) -> Image.Image:
    """One of ``THINGS``."""
    paper = Paper()
    THINGS[name](paper)
    return paper.image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
