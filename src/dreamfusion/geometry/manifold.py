"""Take a triangle mesh apart where edge collapses have pinched it, so that it encloses a volume again."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NUDGE = 0.02
"""Copies of a vertex move this share of the way towards the middle of their own faces, so that they stay apart."""


def unpinch(vertices: Floats, faces: Ints, rounds: int = 4) -> tuple[Floats, Ints]:
    """Vertices (V', 3) and faces (F', 3) of the same surface in which every edge has two faces and every vertex one
    fan of faces (after the cutting of Gueziec et al. 2001).

    Faces folded onto each other cancel. At an edge of more than two faces those that bound the same solid are paired;
    corners of faces that hang together through paired edges share a vertex, others get copies. Where two pairs still
    join the same two vertices, one of them gets a vertex in its middle. Edges whose faces do not match up (in a mesh
    that is not closed) stay as they are.
    """
    for _ in range(rounds):
        faces = without_folds(faces)
        first, second = paired_edges(vertices, faces)
        vertices, faces = _separate(vertices, faces, first, second)
        vertices, faces, done = _split_doubles(vertices, faces, first, second)
        if done:
            break
    return vertices, faces


def _following(half_edge: Ints) -> Ints:
    """The next half-edge of the same face, which begins where this one ends."""
    return half_edge - half_edge % 3 + (half_edge + 1) % 3


def _separate(vertices: Floats, faces: Ints, first: Ints, second: Ints) -> tuple[Floats, Ints]:
    """Give a vertex of its own to each set of corners that hangs together through the paired half-edges."""
    ends = np.concatenate([first, _following(first)]), np.concatenate([_following(second), second])
    graph = scipy.sparse.coo_matrix((np.ones(len(ends[0]), np.int8), ends), shape=(3 * len(faces),) * 2)
    count, corner = connected_components(graph, directed=False)
    source = np.zeros(count, np.int64)
    source[corner] = faces.ravel()
    made = corner.reshape(-1, 3).astype(np.int64)
    moved = vertices[source].astype(np.float64)
    copied = np.bincount(source, minlength=len(vertices))[source] > 1
    middle = np.zeros_like(moved)
    np.add.at(middle, made, vertices[faces].mean(1)[:, None])
    middle /= np.bincount(corner, minlength=count)[:, None]
    moved[copied] += NUDGE * (middle - moved)[copied]
    return moved, made


def _split_doubles(vertices: Floats, faces: Ints, first: Ints, second: Ints) -> tuple[Floats, Ints, bool]:
    """Put a vertex in the middle of every pair of half-edges but one that join the same two vertices. The flag tells
    that nothing was left to do; a face is split once a round."""
    start, end = faces.ravel()[first], faces.ravel()[_following(first)]
    key = np.minimum(start, end) * len(vertices) + np.maximum(start, end)
    _, kept = np.unique(key, return_index=True)
    extra = np.setdiff1d(np.arange(len(first)), kept)
    touched: set[int] = set()
    points, more, faces = [vertices], [faces[:0]], faces.copy()
    for pair in extra:
        halves = [int(first[pair]), int(second[pair])]
        if touched & {h // 3 for h in halves}:
            continue
        touched |= {h // 3 for h in halves}
        middle = len(vertices) + len(points) - 1
        corners = [faces[h // 3][[(h % 3 + k) % 3 for k in range(3)]] for h in halves]  # begins, ends, opposite
        a, b, _ = corners[0]
        aside = vertices[[c[2] for c in corners]].mean(0)
        points.append(((1 - NUDGE) * (vertices[a] + vertices[b]) / 2 + NUDGE * aside)[None])
        for h, (u, v, w) in zip(halves, corners, strict=True):
            faces[h // 3] = u, middle, w
            more.append(np.array([[middle, v, w]]))
    return np.concatenate(points), np.concatenate([faces, *more]), len(extra) == 0


def without_folds(faces: Ints) -> Ints:
    """The faces without those that use a vertex twice, and without pairs of equal corners but opposite winding."""
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    _, group = np.unique(np.sort(faces, 1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    if len(group) == 0 or np.bincount(group).max() == 1:
        return faces
    # The winding as a sign: +1 for a cyclic shift of the sorted corners, -1 for the others.
    sign = np.sign((faces[:, 1] - faces[:, 0]) * (faces[:, 2] - faces[:, 1]) * (faces[:, 0] - faces[:, 2]))
    keep = np.ones(len(faces), bool)
    for g in np.flatnonzero(np.bincount(group) > 1):
        rows = np.flatnonzero(group == g)
        net = int(sign[rows].sum())
        keep[rows] = False
        keep[rows[sign[rows] == np.sign(net)][: abs(net)]] = True
    return faces[keep]


def paired_edges(vertices: Floats, faces: Ints) -> tuple[Ints, Ints]:
    """Half-edges (3 f + i runs from corner i to corner i + 1 of face f) in pairs that run against each other: (E,),
    (E,). At an edge of more than two faces, neighbours in the turn about it are paired through the solid between."""
    start, end = faces.ravel(), np.roll(faces, -1, 1).ravel()
    key = np.minimum(start, end) * (faces.max(initial=0) + 1) + np.maximum(start, end)
    forward = start < end
    order = np.argsort(key, kind="stable")
    _, where, size = np.unique(key[order], return_index=True, return_counts=True)
    plain = where[size == 2]
    a, b = order[plain], order[plain + 1]
    against = forward[a] != forward[b]
    first, second = [a[against]], [b[against]]
    for at, n in zip(where[size > 2], size[size > 2], strict=True):
        group = order[at : at + n]
        u, v = sorted((start[group[0]], end[group[0]]))
        axis = vertices[v] - vertices[u]
        axis = axis / max(float(np.linalg.norm(axis)), 1e-30)
        away = vertices[faces[group // 3, (group + 2) % 3]] - vertices[u]  # towards each face's third corner
        away = away - (away @ axis)[:, None] * axis
        x = away[0] / max(float(np.linalg.norm(away[0])), 1e-30)
        turn = np.arctan2(away @ np.cross(axis, x), away @ x)
        # Going round, the solid lies between a backward face (its inside is ahead) and the forward one that follows.
        trip = group[np.argsort(turn, kind="stable")].tolist()
        opened: list[int] = []
        used: set[int] = set()
        for h in [*trip, *trip]:  # matching brackets, on a circle
            if h in used or h in opened:
                continue
            if not forward[h]:
                opened.append(h)
            elif opened:
                pair = opened.pop(), h
                used.update(pair)
                first.append(np.array(pair[:1]))
                second.append(np.array(pair[1:]))
    return np.concatenate(first).astype(np.int64), np.concatenate(second).astype(np.int64)
