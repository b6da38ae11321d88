"""A differentiable rasteriser in plain PyTorch: the mathematics that the compiled one must match.

B = views, V = vertices, F = faces, H x W pixels, rows from the top. A vertex of a view is v = (x, y, w): w is its distance
along the optical axis, (x / w, y / w) its place in the picture, from -1 to 1, right and up. A pixel's centre is
q = (x, y, 1) in the same coordinates. Everything follows from the edge functions e_i(q) = (v_j x v_k) . q of a triangle's
edges (opposite to corner i), in homogeneous coordinates (Olano & Greer 1997, "Triangle scan conversion using 2D homogeneous
coordinates"): no division by w, and two faces agree exactly about the edge they share.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..geometry.topology import NEXT

STEPS = 8
"""Most faces that ``antialias`` walks over between two pixels."""
BEHIND = 1e-3
"""Faces with a corner nearer than this (w) are left out."""


class Rasteriser(Protocol):
    """One implementation of the three functions below; all agree up to rounding."""

    def rasterise(self, clip: Tensor, faces: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Which face each pixel's centre sees, and where on it.

        clip (B, V, 3), faces (F, 3) int64 -> face (B, H, W) int64, -1 for none; weights (B, H, W, 3) of its corners, which
        interpolate whatever is linear in space. Differentiable by ``clip``.
        """
        ...

    def interpolate(self, values: Tensor, faces: Tensor, face: Tensor, weights: Tensor) -> Tensor:
        """Values (V, C) of vertices as pictures (B, H, W, C); 0 where there is no face. Differentiable."""
        ...

    def antialias(self, picture: Tensor, face: Tensor, clip: Tensor, faces: Tensor, neighbours: Tensor) -> Tensor:
        """The picture (B, H, W, C) with soft silhouettes; see ``Plain.antialias``. Differentiable by picture and clip."""
        ...


def pixel_centres(size: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """x of columns (size,), rising, and y of rows (size,), falling."""
    x = (2 * torch.arange(size, device=like.device, dtype=like.dtype) + 1) / size - 1
    return x, -x


def edge_functions(corners: Tensor) -> Tensor:
    """c_i = v_j x v_k (..., 3, 3) of triangles' corners (..., 3, 3)."""
    return torch.linalg.cross(corners[..., NEXT, :], corners[..., NEXT[NEXT], :])


def _visible(clip: Tensor, faces: Tensor, size: int) -> Tensor:
    """The nearest face (H * W,) of each pixel in one view (V, 3), -1 for none; of equally near ones the first.

    All pairs of a face and a pixel in its bounding box are tried.
    """
    corners = clip.double()[faces]
    none = torch.full((size * size,), -1, device=clip.device)
    in_front = (corners[..., 2] > BEHIND).all(1)
    place = (
        corners[..., :2] / corners[..., 2:].clamp_min(BEHIND) * corners.new_tensor([0.5, -0.5]) + 0.5
    )  # 0 to 1, down
    low = (place.amin(1) * size - 0.5).ceil().clamp(0, size).long()
    high = (place.amax(1) * size - 0.5).floor().clamp(-1, size - 1).long()
    wide, tall = ((high - low + 1).clamp_min(0) * in_front[:, None]).unbind(1)
    owner = torch.repeat_interleave(torch.arange(len(faces), device=clip.device), wide * tall)
    if len(owner) == 0:
        return none
    first = (wide * tall).cumsum(0) - wide * tall
    k = torch.arange(len(owner), device=clip.device) - first[owner]
    column, row = low[owner, 0] + k % wide[owner], low[owner, 1] + k // wide[owner]
    x, y = pixel_centres(size, corners)
    c = edge_functions(corners)[owner]
    e = c[..., 0] * x[column, None] + (c[..., 1] * y[row, None] + c[..., 2])
    total = e.sum(-1)
    inside = ((e >= 0).all(-1) | (e <= 0).all(-1)) & (total != 0)
    owner, e, pixel = owner[inside], e[inside], (row * size + column)[inside]
    depth = (e * corners[owner][..., 2]).sum(-1) / total[inside]
    nearest = depth.new_full((size * size,), torch.inf).scatter_reduce(0, pixel, depth, "amin")
    front = depth == nearest[pixel]
    seen = torch.full_like(none, len(faces)).scatter_reduce(0, pixel[front], owner[front], "amin")
    return torch.where(seen < len(faces), seen, none)


class Plain:
    """The three functions by PyTorch's own operations and automatic differentiation."""

    def rasterise(self, clip: Tensor, faces: Tensor, size: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            face = torch.stack([_visible(view, faces, size) for view in clip]).reshape(-1, size, size)
        b, row, column = (face >= 0).nonzero(as_tuple=True)
        x, y = pixel_centres(size, clip)
        q = torch.stack([x[column], y[row], torch.ones_like(x[column])], -1)
        e = (edge_functions(clip[b[:, None], faces[face[b, row, column]]]) * q[:, None]).sum(-1)
        weights = clip.new_zeros(*face.shape, 3).index_put((b, row, column), e / e.sum(-1, keepdim=True))
        return face, weights

    def interpolate(self, values: Tensor, faces: Tensor, face: Tensor, weights: Tensor) -> Tensor:
        corners = values[faces[face.clamp_min(0)]]
        return (weights[..., None] * corners).sum(-2) * (face >= 0)[..., None]

    def antialias(self, picture: Tensor, face: Tensor, clip: Tensor, faces: Tensor, neighbours: Tensor) -> Tensor:
        """Blend neighbouring pixels where a silhouette passes between them (Laine et al. 2020, section 3.6).

        Between the centres of two pixels a and b, of which a's face is nearer, the silhouette is at the share s of the
        way. a's surface reaches to s: for s < 1/2 the pixel a gets (1/2 - s) of b's colour in the place of its own, else b
        gets (s - 1/2) of a's. So the picture follows the edge's place, and has a gradient by it. Other than there, the
        way from a to b is walked face by face, so that silhouettes are found where faces are smaller than pixels.
        neighbours (F, 3): the face at each edge, -1 for none (``topology.face_neighbours``).
        """
        size = face.shape[1]
        flat, count = face.reshape(-1), face.numel()
        index = torch.arange(count, device=face.device).reshape(face.shape)
        pairs = torch.cat([
            torch.stack([index[:, :, :-1].reshape(-1), index[:, :, 1:].reshape(-1)]),
            torch.stack([index[:, :-1].reshape(-1), index[:, 1:].reshape(-1)]),
        ], 1)  # fmt: skip
        pairs = pairs[:, flat[pairs[0]] != flat[pairs[1]]]
        with torch.no_grad():
            depth = _pixel_depths(flat, clip, faces, size)
            a, b = torch.where(depth[pairs[1]] < depth[pairs[0]], pairs.flip(0), pairs)
            keep, tail, head = _silhouettes(a, b, flat, clip, faces, neighbours, size)
        a, b, view = a[keep], b[keep], a[keep] // size**2
        edge = torch.linalg.cross(clip[view, tail], clip[view, head])
        at_a, at_b = ((edge * _centres_of(p, size, clip)).sum(-1) for p in (a, b))
        s = (at_a / (at_a - at_b)).clamp(0, 1)
        colours = picture.reshape(count, -1)
        near = (s < 0.5)[:, None]
        gain = (s[:, None] - 0.5) * (colours[a] - colours[b])
        return colours.index_add(0, torch.where(near[:, 0], a, b), gain).reshape(picture.shape)


def _centres_of(pixel: Tensor, size: int, like: Tensor) -> Tensor:
    """q (N, 3) of pixels (N,), numbered through all views."""
    x, y = pixel_centres(size, like)
    return torch.stack([x[pixel % size], y[pixel // size % size], torch.ones_like(x[pixel % size])], -1)


def _pixel_depths(flat: Tensor, clip: Tensor, faces: Tensor, size: int) -> Tensor:
    """w (B * H * W,) of what each pixel sees, infinite for nothing: det(v_0, v_1, v_2) / sum_i e_i(q)."""
    seen = (flat >= 0).nonzero()[:, 0]
    corners = clip.double()[seen[:, None] // size**2, faces[flat[seen]]]
    e = (edge_functions(corners) * _centres_of(seen, size, corners)[:, None]).sum(-1)
    depth = (e * corners[..., 2]).sum(-1) / e.sum(-1)
    return depth.new_full(flat.shape, torch.inf).index_put((seen,), depth)


def _silhouettes(
    a: Tensor, b: Tensor, flat: Tensor, clip: Tensor, faces: Tensor, neighbours: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Which pairs of pixels (N,) have a silhouette between them, and its edge's two vertices (of those pairs)."""
    clip, faces_seen = clip.double(), flat[a]
    found = torch.full_like(a, -1)
    corner = torch.zeros_like(a)
    at, pending = faces_seen.clone(), torch.arange(len(a), device=a.device)
    pending = pending[faces_seen >= 0]
    for _ in range(STEPS):
        view, f = a[pending] // size**2, at[pending]
        corners = clip[view[:, None], faces[f]]
        c = edge_functions(corners)
        facing = (corners[:, 0] * c[:, 0]).sum(-1).sign()
        from_a, to_b = ((c * _centres_of(p[pending], size, clip)[:, None]).sum(-1) for p in (a, b))
        leaves = (from_a - to_b) * facing[:, None] > 0
        s, i = torch.where(leaves, from_a / (from_a - to_b), torch.inf).min(-1)
        other = neighbours[f, i]
        across = clip[view[:, None], faces[other.clamp_min(0)]]
        turned = torch.linalg.det(across).sign() != facing
        ends = (other < 0) | turned
        here = (s < 1) & ends
        found[pending[here]], corner[pending[here]] = f[here], i[here]
        on = (s < 1) & ~ends & (other != flat[b[pending]])
        at[pending[on]] = other[on]
        pending = pending[on]
    keep = found >= 0
    where = faces[found[keep]]
    first = NEXT.to(a.device)[corner[keep]]
    return keep, where.gather(1, first[:, None])[:, 0], where.gather(1, NEXT.to(a.device)[first][:, None])[:, 0]


PLAIN = Plain()
