"""``load_prior``: the one way to get a prior or a scorer by its id."""

from __future__ import annotations

import torch

from .clip.guide import is_guide
from .clip.guide import load as load_guide
from .device import pick_device
from .errors import UserError
from .paths import file_to_read, readable
from .priors.bundled_prior import WEIGHTS, BundledPrior
from .priors.finding import find_checkpoint, is_bundled_kind
from .priors.memory import Memory, refuse_what_cannot_fit
from .priors.mixture import Mixture, is_mixture, parse_mixture
from .priors.prior import Prior, Scorer
from .priors.prior_client import is_served
from .priors.served_prior import ServedPrior
from .torch_state import kept_random, own_torch


@readable()
@own_torch()
@kept_random()
def load_prior(
    id: str = "bundled",
    device: str | torch.device = "auto",
    precision: str = "auto",
    memory: Memory = "auto",
    text_8bit: bool = False,
    views: int = 1,
    graphs: int = 0,
    instance: int = 0,
) -> Prior | Scorer:
    """Load a prior: 'bundled', a safetensors file of its kind, 'hf:OWNER/NAME[@REVISION]', the folder of a diffusers
    pipeline, a single file of one, any of these ' + lora:FILE@0.8' (``priors.prior_id``), or a mixture of them,
    '0.7*A + 0.3*B'; or 'guide', a CLIP ('guide:hf:OWNER/NAME' for another one); or 'ray://HOST:PORT', one that is served.

    ``memory`` and ``text_8bit``: see ``PriorSettings``. The estimate of the memory needs ``views``, the pictures in one
    question, and ``graphs``, the answers whose graphs are kept (``distillation.rules.kept_graphs``). ``instance``: which of a
    name's shapes a bundled prior means. UserError, before anything large is loaded, if the prior does not exist or does not fit.
    """
    device = pick_device(str(device))
    if is_guide(id):
        return load_guide(id, device)
    if is_mixture(id):
        rest = device, precision, memory, text_8bit, views, graphs, instance
        return Mixture([(share, _part(id, load_prior(part, *rest))) for share, part in parse_mixture(id)])
    if is_served(id):
        return ServedPrior(id, device, instance)
    if is_bundled_kind(id):
        return BundledPrior(WEIGHTS if id == "bundled" else file_to_read(id), device, precision, instance)
    checkpoint = find_checkpoint(id, device, precision)
    from .priors.diffusers_prior import DiffusersPrior  # diffusers is an extra
    from .priors.hub_checkpoint import download

    if checkpoint.folder is None:
        refuse_what_cannot_fit(checkpoint, device, precision)
    return DiffusersPrior(download(checkpoint), device, precision, memory, text_8bit, views, graphs)


def _part(id: str, part: Prior | Scorer) -> Prior:
    if isinstance(part, Scorer):
        raise UserError(
            f"the mixture {id!r} cannot have {part.id!r} in it, which scores pictures and predicts no noise"
        )
    return part
