"""Many assets: workers, a served prior, a cluster that loses a node; and what goes over the wire."""

from __future__ import annotations

from .text import NOTHING, Page, made, section, table


def batch(page: Page | None) -> list[str]:
    """The rows that are there."""
    lines = section("Many assets", "python benchmarks/batch.py --out runs/batch")
    if page is None:
        return [*lines, *NOTHING]
    rows = {name: row for name, row in page["rows"].items() if name != "traffic"}
    lines += [
        f"{page['assets']} small assets ({page['settings']['steps']} steps of {page['settings']['views_per_step']} view), a thread each. "
        "*Of linear* is the throughput divided by that of one worker times the workers. *Exact* are the assets that are bit by "
        "bit those of one worker.",
        "",
    ]
    if rows:
        head = ["row", "workers", "assets an hour", "of linear", "memory of a worker, MB", "views an answer", "exact"]
        body = []
        for name, row in rows.items():
            occupied = f"{row['prior']['occupancy']:.2f}" if "prior" in row else "–"
            cells = [
                name,
                str(row["workers"]),
                f"{row['per_hour']:.0f}",
                f"{row['of_linear']:.2f}",
                str(row["peak_mb"]),
            ]
            body.append([*cells, occupied, f"{row['exact']} of {row['assets']}" if "exact" in row else "–"])
        lines += [*table(head, body), ""]
    if traffic := page["rows"].get("traffic"):
        head = ["preset", "sent a step, kB", "received a step, kB", "checkpoint, MB", "folder, MB"]
        keys = {"sent_per_step": 1e3, "received_per_step": 1e3, "checkpoint": 1e6, "folder": 1e6}
        body = [[f"`{name}`", *(f"{t[key] / unit:.0f}" for key, unit in keys.items())] for name, t in traffic.items()]
        lines += ["What a run sends to a served prior, and writes:", "", *table(head, body), ""]
    return [*lines, f"*{made(page)}*", ""]
