"""Splats as a density in space, from which a surface is extracted (the local density of DreamGaussian, Tang et al. 2023,
section 3.3, in the unit of a radiance field).

sigma(x) = sum_i s_i exp(-r^T cov_i^-1 r / 2), with s_i = -log(1 - opacity_i) / (sqrt(2 pi) t_i), t_i being the shortest axis:
a ray through the middle of a splat, along its shortest axis, loses just the splat's opacity to it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from ..geometry.mesh import Floats

CELLS, FEWEST, ENTRIES = 48, 6, 4e6
"""Cells per side in which splats are looked up: fewer where the splats are so large that the lists would hold more entries."""
REACH = 3.5
"""A splat ends this many standard deviations from its centre."""
MOST = 0.99
"""Opacities count as at most this."""
AT_ONCE = 1 << 16


class Density:
    """N splats: centres (N, 3), covariances (N, 6), opacity (N,), shortest axes (N,), colours (N, 3), all double."""

    def __init__(self, centres: Floats, covs: Floats, opacity: Floats, thinnest: Floats, colours: Floats):
        full = covs[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
        inverse = np.linalg.inv(full) if len(full) else full
        self.centres, self.colours = centres, colours
        self.inverses = np.ascontiguousarray(inverse.reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]])
        self.strengths = -np.log1p(-np.minimum(opacity, MOST)) / (np.sqrt(2 * np.pi) * thinnest)
        self.wide = REACH * np.sqrt(covs[:, [0, 3, 5]])
        self.cells = CELLS
        while self.cells > FEWEST and np.prod(self.wide * self.cells + 1, axis=1).sum() > ENTRIES:
            self.cells //= 2

    def sample(self, points: Floats) -> NDArray[np.float64]:
        """Density and colour (P, 4) at points (P, 3), by compiled kernels on torch's number of threads."""
        from ..kernels import splat_cells  # the compiler is slow to load

        starts, lists = splat_cells.cell_lists(self.centres - self.wide, self.centres + self.wide, self.cells)
        points, out = np.ascontiguousarray(points), np.empty((len(points), 4))
        held = self.centres, self.inverses, self.strengths, self.colours, starts, lists, self.cells, REACH**2

        def work(low: int) -> None:
            splat_cells.sample(points[low : low + AT_ONCE], *held, out[low : low + AT_ONCE])

        with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
            list(pool.map(work, range(0, len(points), AT_ONCE)))
        return out

    def sample_plainly(self, points: Floats) -> NDArray[np.float64]:
        """The same, by the formula above: all pairs of a point and a splat."""
        full = self.inverses[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
        away = points[:, None] - self.centres
        q = np.einsum("pni,nij,pnj->pn", away, full, away)
        share = np.where(q <= REACH**2, self.strengths * np.exp(-q / 2), 0)
        total = share.sum(1, keepdims=True)
        colour = np.where(total > 0, share @ self.colours / np.maximum(total, 1e-300), 0.5)
        return np.concatenate([total, colour], 1)
