"""Frames a second of the studio's live view."""

from __future__ import annotations

from .text import NOTHING, Page, made, section, table


def live_view(page: Page | None) -> list[str]:
    """A row for a run in progress, and one for a stopped one."""
    lines = section("The live view", "python benchmarks/live_view.py")
    if page is None:
        return [*lines, *NOTHING]
    running, stopped = page["running"], page["stopped"]
    lines += [
        f"Frames of {page['side']} x {page['side']} pixels of {page['prompt']!r}, preset `{page['preset']}`, while somebody turns "
        "the object in [the studio](studio.md). A run in progress draws between two steps, for as long as the step took.",
        "",
    ]
    body = [
        ["in progress", f"{running['frames_per_second']:.1f}", f"{running['steps_per_second']:.1f}"],
        ["stopped", f"{stopped['frames_per_second']:.1f}", "–"],
    ]
    lines += [*table(["run", "frames a second", "steps a second"], body), ""]
    lines += [
        f"CPU time of a frame: {stopped['frame_cpu_ms']:.0f} ms, of which {stopped['jpeg_cpu_ms']:.1f} ms are the JPEG; "
        f"to fetch it costs {running['http_cpu_ms']:.1f} ms.",
        "",
    ]
    return [*lines, f"*{made(page)}*", ""]
