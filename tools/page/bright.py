"""White things, and nearly black ones that are painted, as they were and as they are."""

from __future__ import annotations

from .text import NOTHING, Page, made, percent, picture, section, table


def bright(page: Page | None) -> list[str]:
    """A row for each kind of thing, before and now."""
    lines = section("White and nearly black things", "python benchmarks/bright.py --out runs/bright")
    if page is None:
        return [*lines, *NOTHING]
    body = []
    for kind, rows in page["kinds"].items():
        for row, found in rows.items():
            angle, contrast = (found[key]["mean"] for key in ("normals_off", "contrast"))
            cells = ["–" if angle is None else f"{angle:.1f}°", "–" if contrast is None else f"{contrast:.2f}"]
            body.append([kind, row, *cells, percent(found["r1"]), percent(found["r1_textureless"])])
    brightest, dim = page["paints"]["now"]
    return [
        *lines,
        "Black things that were painted in another colour used to be mottled: light and dark were taken relative to the thing's own "
        f"mean luminance, and a black thing has hardly more of it than noise. Now a thing counts as one of luminance {dim:g} at least. "
        "White things are rough. One suspected cause was paint that is brighter than a scene's albedo can be (0.93), so that only the "
        f"surface could answer. The bundled prior now paints nothing brighter than {brightest:g}; the figures show that this was not "
        "the cause. *Lights* are the same things in light from many sides in place of one, which smooths white things. "
        "*Contrast* is the standard deviation of the albedo's luminance over its mean.",
        "",
        *table(["things", "paint", "normals off", "contrast", "R@1", "R@1 textureless"], body),
        "",
        *picture("bright.jpg", "White and nearly black things from two sides"),
        f"*Preset `{page['preset']}` without depths, and in one light except for the row lights. Ranked among the prompts of "
        f"{page['suite']} and these. {made(page)}*",
        "",
    ]
