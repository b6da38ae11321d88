"""Write docs/settings.md from the settings themselves: python tools/settings_page.py (a test compares the two)."""

from __future__ import annotations

from pathlib import Path

from dreamfusion.settings.catalogue import all_settings
from dreamfusion.settings.names import as_text, flatten
from dreamfusion.settings.options import GROUPS
from dreamfusion.settings.presets import resolve

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
SHOWN = ("balanced", "fast", "dreamfusion")
HEAD = """# Settings

<!-- written by tools/settings_page.py -->

Every setting can be given on the command line by its dotted name (`--view.fov-deg 50`), in Python as a keyword
(`generate(..., view__fov_deg=50)`) and in a preset's page (`view: {fov_deg: 50}`). Angles are in degrees, lengths in
units in which the object's sphere has radius 1.

- A range is two numbers, `-30,60`. A list of whole numbers is written the same way, `16,40,96`.
- A schedule is a number, or `progress:value` pairs: `0:0.98,1:0.5` falls from 0.98 at the start of the run to 0.5 at
  its end, in a straight line.
- A page of your own is a preset too: `--preset mine.yaml`. It needs only what differs from the defaults: the column
  `balanced`, except `shading.lambertian` 0.8, `shading.textureless` 0.2 and `shading.depth` 0.
  A run's `run.yaml` is such a page, so `--preset runs/a-red-armchair-0/run.yaml` repeats that run.

The columns are three presets' values; `dreamfusion presets NAME` shows any preset's page with its reasons.
"""


def page() -> str:
    """The whole page."""
    presets = {name: flatten(resolve(name, {}, "x").model_dump()) for name in SHOWN}
    lines = [HEAD]
    for group, title in GROUPS.items():
        lines += [f"## {title[0].upper()}{title[1:]}", ""]
        lines += [
            f"| setting | allowed | {' | '.join(presets)} | what it is |",
            f"|---|---|{'---|' * len(presets)}---|",
        ]
        for setting in all_settings().values():
            if setting.group == group and setting.name not in ("prompt", "preset"):
                # A preset has no value for what belongs to another kind of scene or rule.
                values = " | ".join(
                    as_text(values[setting.name]) if setting.name in values else "–" for values in presets.values()
                )
                help = " ".join(setting.help.split()).replace("|", "\\|")
                lines.append(f"| `{setting.name}` | {setting.allowed} | {values} | {help} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
