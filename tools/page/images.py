"""Pictures as prompts: what is recognised, and how like the model the asset is."""

from __future__ import annotations

from .text import NOTHING, Figure, Page, made, percent, picture, section, table


def decibels(figure: Figure | None) -> str:
    """'21.4 dB (20.6 to 22.2)'; a dash if there is no figure."""
    return "–" if figure is None else f"{figure['value']:.1f} dB ({figure['low']:.1f} to {figure['high']:.1f})"


def images(page: Page | None) -> list[str]:
    """Renders of models, which have a truth, and drawings, which are only shown."""
    lines = section("A picture as a prompt", "python benchmarks/images.py --out runs/images --data data/judge")
    if page is None:
        return [*lines, *NOTHING]
    found, drawings = page["summary"], page["drawings"]
    body = [
        ["the shape that is recognised shows the right name", percent(found["right"])],
        ["PSNR of the asset's albedo", decibels(found.get("psnr"))],
        ["of those that were recognised", decibels(found.get("psnr_right"))],
        ["PSNR of the prior's own drawing of what it recognised", decibels(found.get("psnr_prior"))],
        ["PSNR of an empty picture", decibels(found.get("psnr_gray"))],
    ]
    return [
        *lines,
        f"{found['count']} models of the vocabulary, from all over it, in pictures of 64 x 64 pixels that neither the prior nor its shapes "
        f"were trained on, and the asset that the preset `zero123` makes of {found['assets']} of them. "
        f"It is compared with the model from {page['novel']} "
        "other views, in front of mid-gray. The views are the judge's ([how they are drawn](evaluation.md#train-the-clips-again)).",
        "",
        *table([f"{found['count']} models", ""], body),
        "",
        *picture("images-things.jpg", "Pictures of models, and the assets made of them from two sides"),
        f"And {len(drawings)} drawings, of which {sum(row['right'] for row in drawings.values())} are recognised. The prior knows "
        "shaded renders of its models, and no drawings: it makes the nearest thing that it knows.",
        "",
        *picture("images-drawings.jpg", "Drawings, and the assets made of them from two sides"),
        f"*{made(page)}*",
        "",
    ]
