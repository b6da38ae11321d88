"""How triangles hang together. V = vertices, F = faces, E = edges; edge i of a face is opposite to its corner i."""

from __future__ import annotations

import torch
from torch import Tensor

NEXT = torch.tensor([1, 2, 0])
"""The corner after a corner."""


def half_edges(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Where the edges (3 F,) begin and end; edge i of face f is number 3 f + i."""
    return faces[:, NEXT].reshape(-1), faces[:, NEXT[NEXT]].reshape(-1)


def face_neighbours(faces: Tensor, pairs: Tensor | None = None) -> Tensor:
    """The other face (F, 3) at each edge; -1 at borders, and where more than two faces meet. ``pairs``: ``edge_pairs``."""
    pairs = edge_pairs(faces) if pairs is None else pairs
    found = torch.full((3 * len(faces),), -1, device=faces.device)
    found[pairs[0]], found[pairs[1]] = pairs[1] // 3, pairs[0] // 3
    return found.reshape(-1, 3)


def edge_pairs(faces: Tensor) -> Tensor:
    """Numbers (2, E) of the two half-edges of each edge that has exactly two."""
    begin, end = half_edges(faces)
    key = torch.minimum(begin, end) * (int(faces.max()) + 1 if len(faces) else 1) + torch.maximum(begin, end)
    key, order = key.sort(stable=True)
    same = key[1:] == key[:-1]
    alone = torch.ones_like(same)
    alone[1:] &= ~same[:-1]
    alone[:-1] &= ~same[1:]
    first = (same & alone).nonzero()[:, 0]
    return torch.stack([order[first], order[first + 1]])


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals (V, 3): face normals averaged by area; zero for vertices without a face. Differentiable."""
    a, b, c = vertices[faces].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices).index_add(0, faces.reshape(-1), normal.repeat_interleave(3, 0))
    return total / (total.square().sum(-1, keepdim=True) + 1e-20).sqrt()


def normal_consistency(vertices: Tensor, faces: Tensor, pairs: Tensor) -> Tensor:
    """Mean of 1 - cos of the angle between the normals of faces that share an edge (``edge_pairs``); 0 for a plane."""
    a, b, c = vertices[faces].unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=1e-20)
    first, second = pairs // 3
    return (1 - (normal[first] * normal[second]).sum(-1)).mean() if len(first) else vertices.new_zeros(())


def laplacian(vertices: Tensor, faces: Tensor) -> Tensor:
    """Mean squared distance of vertices from the mean of their neighbours (the uniform Laplacian), over the squared mean
    length of an edge, so that it does not depend on the scale. It needs an oriented mesh."""
    begin, end = half_edges(faces)  # each edge of a closed oriented mesh once in each direction
    count = torch.zeros(len(vertices), device=vertices.device, dtype=vertices.dtype)
    count = count.index_add(0, begin, torch.ones_like(count[:1]).expand(len(begin)))
    around = torch.zeros_like(vertices).index_add(0, begin, vertices[end]) / count.clamp_min(1)[:, None]
    off = (vertices - around)[count > 0].square().sum(-1)
    length = (vertices[end] - vertices[begin]).square().sum(-1).mean().detach()
    return off.mean() / length if len(off) else vertices.new_zeros(())
