"""The compact posterior record of a feature: a kernel mixture in 1 kB, and draws from it.

Layout (version 1) of the 256 float32 numbers: code of the curve (NaN: no posterior), number `M` of components, two
constants of the curve; then the lower Cholesky factor, row by row, of the covariance that all components share; then
the means of the components over the `P` parameters. Components have equal weight.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from .dose_response import curve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .dose_response import Curve

    Floats = NDArray[np.float64]

WIDTH = 256
HEADER = 4
LAYOUT_VERSION = 1


N_COMPONENTS = 32


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


def pack_block(draws: Floats, c: Curve, consts: Floats) -> NDArray[np.float32]:
    """Compress draws ``(T, S, P)`` into records ``(T, 256)``.

    The draws are cut into 32 groups by repeated bisection; a component stands at each group's mean, and all share the
    mean covariance within groups, so the total mean and covariance are kept and ridges stay bent.
    """
    n_t, n_s, n_p = draws.shape
    levels = min(int(np.log2(N_COMPONENTS)), int(np.log2(max(n_s // 4, 1))))
    m = 2**levels
    # the same number of draws in each group: evenly spaced ones are taken
    kept = draws[:, np.linspace(0, n_s - 1, n_s // m * m).round().astype(int)]
    groups = _bisect(kept, levels)
    means = groups.mean(2)
    diff = groups - means[:, :, None]
    cov = np.einsum("tgsi,tgsj->tij", diff, diff) / (groups.shape[1] * groups.shape[2])
    ridge = 1e-10 + 1e-6 * np.einsum("tii->ti", cov)
    chol = np.linalg.cholesky(cov + ridge[:, :, None] * np.eye(n_p))
    out = np.zeros((n_t, WIDTH), dtype=np.float32)
    out[:, 0], out[:, 1], out[:, 2:4] = c.code, m, consts
    tril = np.tril_indices(n_p)
    start = HEADER + len(tril[0])
    out[:, HEADER:start] = chol[:, tril[0], tril[1]]
    out[:, start : start + m * n_p] = means.reshape(n_t, -1)
    return out


def pack(draws: Floats, c: Curve, consts: Floats) -> NDArray[np.float32]:
    """Compress the draws ``(S, P)`` of one feature."""
    return pack_block(draws[None], c, np.asarray(consts)[None])[0]


def unpack(record: NDArray[np.float32]) -> tuple[Curve, Floats, Floats, Floats]:
    """Curve, constants ``(2,)``, means ``(M, P)`` and the shared Cholesky factor ``(P, P)`` of one record."""
    if not np.isfinite(record[0]):
        raise ValueError("this feature has no posterior: it was not fitted")
    c = curve(int(record[0]))
    m, n_p = int(record[1]), len(c.params)
    body = record[HEADER:].astype(np.float64)
    tril = np.tril_indices(n_p)
    chol = np.zeros((n_p, n_p))
    chol[tril] = body[: len(tril[0])]
    means = body[len(tril[0]) : len(tril[0]) + m * n_p].reshape(m, n_p)
    return c, record[2:4].astype(np.float64), means, chol


def draw(record: NDArray[np.float32], n: int, seed: int, name: str) -> Floats:
    """`n` draws ``(n, P)`` of one feature, from a stream that is keyed by its name."""
    _, _, means, chol = unpack(record)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    which = np.resize(np.arange(len(means)), n)
    rng.shuffle(which)
    z = rng.standard_normal((n, means.shape[1]))
    return means[which] + z @ chol.T


def draw_many(records: NDArray[np.float32], n: int, seed: int, names: Sequence[str]) -> list[Floats]:
    """Draws of several features, a list because curves differ in their parameters."""
    return [draw(r, n, seed, str(name)) for r, name in zip(records, names, strict=True)]
