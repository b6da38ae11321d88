"""One asset: its files and maps; and how far the prior follows what it sees."""

from __future__ import annotations

from .text import NOTHING, Page, made, section, table


def opinion(page: Page | None) -> list[str]:
    """How far the prior's answer follows the picture that it sees."""
    lines = section("How sure the prior is", "python benchmarks/opinion.py")
    if page is None:
        return [*lines, *NOTHING]
    head = ["it is given", *(f"t = {t}" for t in page["levels"])]
    return [
        *lines,
        "The prior is shown its own sample of a prompt, and then mid-gray, under the same noise. The figure is the share of the "
        "difference between the two that is left between its two answers (clean pictures). At 100 % it believes what it sees. At 0 it "
        "knows what there is to see without looking.",
        "",
        *table(head, [[told, *(f"{share:.0%}" for share in shares)] for told, shares in page["shares"].items()]),
        "",
        f"*{len(page['prompts'])} prompts from four sides. {made(page)}*",
        "",
    ]


def assets(page: Page | None) -> list[str]:
    """The exported assets of a few prompts: mesh, texture, files, film."""
    lines = section("The exported asset", "python benchmarks/assets.py --out runs/assets")
    if page is None:
        return [*lines, *NOTHING]
    head = [
        "prompt",
        "triangles",
        "silhouettes, IoU",
        "missing",
        "pieces",
        "slivers",
        "slivers at 5,000",
        "texels used",
        "charts",
    ]
    head += ["GLB, MB", "film, s", "field over mesh", "albedo slope", "undersides"]
    body = []
    for prompt, found in page["prompts"].items():
        mesh, few, film = found["default"], found["few"], found["film_seconds"]
        shown = mesh["silhouettes"]
        cells = [
            prompt,
            f"{mesh['triangles']:,}",
            f"{shown['iou']:.3f}",
            f"{shown['missing']:.1%}",
            str(found["pieces"]),
        ]
        cells += [f"{mesh['slivers']:.2%}", f"{few['slivers']:.2%}", f"{mesh['texels_used']:.0%}", str(mesh["charts"])]
        cells += [f"{found['bytes']['glb'] / 1e6:.2f}", f"{film['mesh']:.1f}", f"{film['ratio']:.1f}"]
        bright = found.get("undersides")
        body.append([*cells, f"{found['albedo_slope']:+.2f}", "–" if bright is None else f"{bright:.0%}"])
    return [
        *lines,
        f"Runs of the preset `{page['preset']}`, exported with the defaults. *Slivers* are triangles with an angle below 10 degrees. "
        "*Texels used* belong to a chart. *Film* is the time of 120 frames at 512 x 512, drawn from the mesh and encoded; *field over "
        "mesh* is how much longer the frames of the field take. *Albedo slope* is the correlation of the albedo's luminance with the "
        "upward component of the normal: 0 where the albedo knows nothing of the light, negative where undersides are too bright. In a "
        "thing of one plain colour, tiny differences make it large. *Undersides* is how bright they are, as a share of tops.",
        "",
        *table(head, body),
        "",
        f"*{page['threads']} threads. {made(page)}*",
        "",
    ]


def maps(page: Page | None) -> list[str]:
    """Normal maps and ambient occlusion."""
    lines = section("Normal map and ambient occlusion", "python benchmarks/maps.py runs/a-teddy-bear-0")
    if page is None:
        return [*lines, *NOTHING]
    head = [
        "triangles",
        "normals off by, without",
        "with the map",
        "GLB without maps, kB",
        "with both, kB",
        "by default, kB",
        "seconds",
    ]
    body = [
        [
            f"{row['faces']:,}", f"{row['degrees_own']:.1f}°", f"{row['degrees_map']:.1f}°", f"{row['bytes_none'] / 1e3:,.0f}",
            f"{row['bytes_both'] / 1e3:,.0f}", f"{row['bytes_auto'] / 1e3:,.0f}", f"{row['seconds']:.2f}",
        ]
        for row in page["rows"]
    ]  # fmt: skip
    return [
        *lines,
        f'"{page["prompt"]}" at several sizes. *Off by* is the angle between the mesh\'s normals and those of the dense surface.',
        "",
        *table(head, body),
        "",
        f"*{made(page)}*",
        "",
    ]
