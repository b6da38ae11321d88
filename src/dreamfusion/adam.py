"""PyTorch's Adam and AdamW without its compiler: they import it, which takes seconds, and here never use it.

``torch.optim`` wraps ``add_param_group``, ``zero_grad`` and ``step`` for the case that they are compiled, and the wrappers
import ``torch._dynamo``. What they wrap is the same arithmetic.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch

STEP: Any = inspect.unwrap(torch.optim.Adam.step)
W_STEP: Any = inspect.unwrap(torch.optim.AdamW.step)


class Adam(torch.optim.Adam):
    """``torch.optim.Adam`` for steps that are not compiled."""

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the parameters once."""
        STEP(self)


class AdamW(torch.optim.AdamW):
    """``torch.optim.AdamW`` for steps that are not compiled."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move the parameters once."""
        W_STEP(self)
