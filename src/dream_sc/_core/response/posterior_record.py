"""The compact posterior record of a feature: stratified draws in 1 kB.

Layout (version 2) of the 512 float16 numbers: place of the curve in the list (NaN: no posterior), number `M` of draws,
two constants of the curve; then `M` draws over the `P` parameters of the curve, of equal weight: 127 for one Hill, 72
for two. All draws are ordered by repeated bisection along the longest axis, and evenly spaced ones are kept, so that
they cover the posterior better than random ones.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from dream_sc._core.curves import CURVES, place

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dream_sc._core.curves import Curve

    Floats = NDArray[np.float64]

WIDTH = 512
HEADER = 4
LAYOUT_VERSION = 2
MOST_KEPT = 128
MAX_LEVELS = 7


def _bisect(draws: Floats, levels: int) -> Floats:
    """Split draws ``(T, S, P)`` into ``2^levels`` equal groups, each time at the median of the longest axis.

    Returns ``(T, 2^levels, S / 2^levels, P)``; `S` has to be divisible.
    """
    scale = draws.std(1)[:, None, None, :] + 1e-12
    groups = draws[:, None]
    for _ in range(levels):
        n_t, n_g, n_s, n_p = groups.shape
        z = (groups - groups.mean(2, keepdims=True)) / scale
        _, vectors = np.linalg.eigh(np.einsum("tgsi,tgsj->tgij", z, z))
        order = np.argsort(np.einsum("tgsi,tgi->tgs", z, vectors[..., -1]), axis=2, kind="stable")
        groups = np.take_along_axis(groups, order[..., None], 2).reshape(n_t, 2 * n_g, n_s // 2, n_p)
    return groups


def pack_block(draws: Floats, c: Curve, consts: Floats, *, ordered: bool = False) -> NDArray[np.float16]:
    """Compress draws ``(T, S, P)`` into records ``(T, 512)``: as many evenly spread draws as fit, 128 at most.

    `ordered` draws have neighbours that are alike.
    """
    n_t, n_s, n_p = draws.shape
    if not ordered:
        levels = min(MAX_LEVELS, int(np.log2(n_s)))
        # the same number of draws in each part: evenly spaced ones are taken
        size = n_s // 2**levels
        draws = _bisect(draws[:, np.linspace(0, n_s - 1, size * 2**levels).round().astype(int)], levels)
        draws = draws.reshape(n_t, -1, n_p)
    n = draws.shape[1]
    m = min(n, (WIDTH - HEADER) // n_p, MOST_KEPT)
    out = np.zeros((n_t, WIDTH), dtype=np.float16)
    out[:, 0], out[:, 1], out[:, 2:HEADER] = place(c), m, consts
    picked = draws[:, ((np.arange(m) + 0.5) * n / m).astype(int)]
    out[:, HEADER : HEADER + m * n_p] = picked.reshape(n_t, -1)
    return out


def unpack(record: NDArray[np.float16]) -> tuple[Curve, Floats, Floats]:
    """Curve, constants ``(2,)`` and draws ``(M, P)`` of one record."""
    if not np.isfinite(record[0]):
        raise ValueError("this feature has no posterior: it was not fitted")
    c = CURVES[int(record[0])]
    m, n_p = int(record[1]), len(c.params)
    kept = record[HEADER : HEADER + m * n_p].astype(np.float64).reshape(m, n_p)
    return c, record[2:HEADER].astype(np.float64), kept


def draw(record: NDArray[np.float16], n: int, seed: int, name: str) -> Floats:
    """`n` of the kept draws ``(n, P)`` of one feature, each equally often, in an order keyed by its name."""
    kept = unpack(record)[2]
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    which = np.resize(rng.permutation(len(kept)), n)
    rng.shuffle(which)
    return kept[which]
