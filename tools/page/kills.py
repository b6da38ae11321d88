"""Runs that are killed at random moments and resumed: single ones, and those of a batch's and a studio's workers."""

from __future__ import annotations

from .text import NOTHING, Page, made, section, table

OF = {"batch": "the worker of a batch", "studio": "the worker of a studio"}


def kills(page: Page | None) -> list[str]:
    """A row for each way in which runs are killed."""
    lines = section(
        "Kills",
        "python benchmarks/kills.py --trials 100",
        "python benchmarks/kills.py --of batch --trials 34",
        "python benchmarks/kills.py --of studio --trials 33",
    )
    if page is None:
        return [*lines, *NOTHING]
    workers = {of: page["workers"][of] for of in OF if of in page.get("workers", {})}
    body = [["`generate`", kind, row] for kind, row in page.get("kinds", {}).items()]
    body += [[OF[of], "SIGKILL", row] for of, row in workers.items()]
    lines += [
        "Small runs are killed at random moments and resumed: by `generate --resume`, by the crew of the batch, or through the studio's "
        "REST interface. *Exact* are those that end with the same tensors, bit by bit, and the same asset as a run that was left alone.",
        "",
        *table(
            ["killed", "by", "runs", "exact"], [[a, b, str(row["trials"]), str(row["exact"])] for a, b, row in body]
        ),
        "",
    ]
    for of, row in workers.items():
        when = ", ".join(f"{count} {moment}" for moment, count in row["moments"].items() if count)
        lines += [f"The {row['trials']} kills of {OF[of]} came at these moments: {when}.", ""]
    sources = dict.fromkeys(made(row) for row in ([page] if "kinds" in page else []) + list(workers.values()))
    return [*lines, f"*{' '.join(sources)}*", ""]
