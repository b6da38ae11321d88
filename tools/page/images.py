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
    body = [["the recognised shape shows the right name", percent(found["right"])]]
    assets = "No asset of theirs is measured yet."
    if found["assets"]:
        assets = (
            f"The preset `zero123` made an asset of {found['assets']} of them. It is compared with the model from {page['novel']} other "
            "views, in front of mid-gray."
        )
        body += [
            ["PSNR of the asset's albedo", decibels(found["psnr"])],
            ["of the recognised ones", decibels(found.get("psnr_right"))],
            ["PSNR of the prior's own drawing of what it recognised", decibels(found["psnr_prior"])],
            ["PSNR of an empty picture", decibels(found["psnr_gray"])],
        ]
    return [
        *lines,
        f"The pictures show {found['count']} models from all over the vocabulary, in 64 x 64 pixels, from views that the prior was not "
        "trained on. They are the judge's ([how they are drawn](evaluation.md#train-the-clips-again)). " + assets,
        "",
        *table([f"{found['count']} models", ""], body),
        "",
        *picture("images-things.jpg", "Pictures of models, and the assets made of them from two sides"),
        f"{sum(row['right'] for row in drawings.values())} of {len(drawings)} drawings are recognised. The prior knows shaded renders of "
        "its models, and no drawings. So it makes the nearest thing that it knows.",
        "",
        *picture("images-drawings.jpg", "Drawings, and the assets made of them from two sides"),
        f"*{made(page)}*",
        "",
    ]
