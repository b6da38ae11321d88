"""A second device that every machine has: tensors "elsewhere" compute on the CPU, but do not mix with the CPU's, as on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
"""Under whose name the tensors go; its own tensors have no values."""
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class Away(Tensor):
    """A tensor elsewhere; ``inner`` has the values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, requires_grad: bool = False) -> Away:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, dtype=inner.dtype, device=DEVICE, requires_grad=requires_grad, strides=inner.stride()
        )
        made.inner = inner
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """One operation. RuntimeError if it mixes devices: only numbers (tensors without axes) may come from the CPU."""
    given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    away = any(isinstance(x, Away) for x in given)
    asked = kwargs.get("device")
    if func not in MOVES and away and any(not isinstance(x, Away) and x.ndim for x in given):
        raise RuntimeError(f"{func} mixes devices")
    args, kwargs = tree_map(lambda x: x.inner if isinstance(x, Away) else x, (list(args), dict(kwargs)))
    if asked is not None:
        kwargs["device"] = torch.device("cpu")
    out = func(*args, **kwargs)
    there = torch.device(asked) == DEVICE if asked is not None else away
    if func._schema.is_mutable:
        return given[0]
    return tree_map(lambda x: Away(x) if isinstance(x, Tensor) and there else x, out)


class Elsewhere(TorchDispatchMode):
    """Inside, ``device="meta"`` means elsewhere."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})
