"""Kernels work on one view at a time; the views of a batch are dealt out to torch's threads."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .mlp_pass import single_threaded_pool


def for_each(work: Callable[[int], object], count: int) -> None:
    """work(view) for all views, on as many threads as torch uses."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        for view in range(count):
            work(view)
    else:
        list(single_threaded_pool(threads).map(work, range(count)))
