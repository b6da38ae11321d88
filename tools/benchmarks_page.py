"""Write docs/benchmarks.md from the results that are kept in benchmarks/results: ``python tools/benchmarks_page.py``."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

sys.path.append(str(Path(__file__).parent))

from page.ablation import ablation
from page.assets import assets, maps, opinion
from page.batch import batch
from page.bright import bright
from page.directions import directions
from page.diversity import diversity
from page.hollows import hollows
from page.images import images
from page.kills import kills
from page.live_view import live_view
from page.rules import costs, rules, scenes
from page.sizes import sizes
from page.suites import suites
from page.text import DOCS, ROOT, kept

PAGE = DOCS / "benchmarks.md"
ROWS = ROOT / "benchmarks" / "ablation.yaml"

HEAD = """# Benchmarks

`python tools/benchmarks_page.py` writes this page from the files in `benchmarks/results`, which the commands below write. All
assets of a table are made and judged in the same way. The judge is a CLIP that took no part in making them.

- **R-Precision @ k** is the share of renders for which the true prompt is among the k prompts of the suite that the judge finds
  most similar. The renders are from views that no training step used.
- **Textureless** is the same on renders of the bare shape.
- **Haze** is how much of what is seen shines through. R-Precision does not see it: a veil of the right colour ranks well.
- **Janus** is the share of things with a front that show two fronts, or one on their back. The sides are told by comparison with
  the vocabulary's shapes ([how](evaluation.md#what-is-measured)). Of {rings:,} rings of real objects of the vocabulary the score calls
  {false_janus:.1%} a Janus, and it finds {found_janus:.1%} of those that were made two-faced.
- **In brackets** are 95 % intervals: Wilson's for shares, which counts assets and not views, and the bootstrap's for differences.
"""


def page() -> str:
    """The whole page."""
    told = yaml.safe_load(ROWS.read_text(encoding="utf-8"))
    faces = kept("janus")
    assert faces is not None
    return "\n".join(
        [
            HEAD.format(**faces["own"]),
            *suites(),
            *ablation(kept("ablation"), told),
            *rules({equal: kept(f"rules-{equal}") for equal in ("calls", "time")}),
            *costs(kept("rules-cost")),
            *scenes(kept("scenes")),
            *directions(kept("directions")),
            *diversity({preset: kept(f"diversity-{preset}") for preset in ("fast", "words")}),
            *images(kept("images")),
            *hollows(kept("hollows")),
            *bright(kept("bright")),
            *sizes(kept("sizes")),
            *opinion(kept("opinion")),
            *assets(kept("assets")),
            *maps(kept("maps")),
            *batch(kept("batch")),
            *kills(kept("kills")),
            *live_view(kept("live_view")),
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
