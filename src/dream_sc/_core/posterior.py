"""The compact posterior record of a feature: a mixture of Gaussians in at most 1 kB, and draws from it.

Layout (version 1) of the 256 float32 numbers: code of the curve (NaN: no posterior), number `M` of
components, two constants of the curve; then per component the mean of the `P` parameters and the lower
Cholesky factor of their covariance, row by row. Components have equal weight.
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


def n_components(n_params: int) -> int:
    """How many components of `n_params` parameters fit into a record."""
    return (WIDTH - HEADER) // (n_params + n_params * (n_params + 1) // 2)


def pack_block(draws: Floats, c: Curve, consts: Floats) -> NDArray[np.float32]:
    """Compress draws ``(T, S, P)`` into records ``(T, 256)``.

    The draws are sorted along their first principal axis and cut into equal groups; each gives a component,
    so the total mean and covariance are kept.
    """
    n_t, n_s, n_p = draws.shape
    m = min(n_components(n_p), max(n_s // 8, 1))
    out = np.zeros((n_t, WIDTH), dtype=np.float32)
    out[:, 0], out[:, 1], out[:, 2:4] = c.code, m, consts
    centre, scale = draws.mean(1, keepdims=True), draws.std(1, keepdims=True) + 1e-12
    z = (draws - centre) / scale
    _, vectors = np.linalg.eigh(np.einsum("tsi,tsj->tij", z, z) / n_s)
    order = np.argsort(np.einsum("tsi,ti->ts", z, vectors[:, :, -1]), axis=1, kind="stable")
    ranked = np.take_along_axis(draws, order[:, :, None], 1)
    tril = np.tril_indices(n_p)
    size = n_p + len(tril[0])
    for j, index in enumerate(np.array_split(np.arange(n_s), m)):
        group = ranked[:, index]
        mean = group.mean(1)
        diff = group - mean[:, None]
        cov = np.einsum("tsi,tsj->tij", diff, diff) / len(index)
        ridge = 1e-10 + 1e-6 * np.einsum("tii->ti", cov)
        chol = np.linalg.cholesky(cov + ridge[:, :, None] * np.eye(n_p))
        start = HEADER + j * size
        out[:, start : start + n_p] = mean
        out[:, start + n_p : start + size] = chol[:, tril[0], tril[1]]
    return out


def pack(draws: Floats, c: Curve, consts: Floats) -> NDArray[np.float32]:
    """Compress the draws ``(S, P)`` of one feature."""
    return pack_block(draws[None], c, np.asarray(consts)[None])[0]


def unpack(record: NDArray[np.float32]) -> tuple[Curve, Floats, Floats, Floats]:
    """Curve, constants ``(2,)``, means ``(M, P)`` and Cholesky factors ``(M, P, P)`` of one record."""
    if not np.isfinite(record[0]):
        raise ValueError("this feature has no posterior: it was not fitted")
    c = curve(int(record[0]))
    m, body = int(record[1]), record[HEADER:].astype(np.float64)
    n_p = len(c.params)
    tril = np.tril_indices(n_p)
    size = n_p + len(tril[0])
    blocks = body[: m * size].reshape(m, size)
    chol = np.zeros((m, n_p, n_p))
    chol[:, tril[0], tril[1]] = blocks[:, n_p:]
    return c, record[2:4].astype(np.float64), blocks[:, :n_p], chol


def draw(record: NDArray[np.float32], n: int, seed: int, name: str) -> Floats:
    """`n` draws ``(n, P)`` of one feature, from a stream that is keyed by its name."""
    _, _, means, chol = unpack(record)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    which = np.resize(np.arange(len(means)), n)
    rng.shuffle(which)
    z = rng.standard_normal((n, means.shape[1]))
    return means[which] + np.einsum("nij,nj->ni", chol[which], z)


def draw_many(records: NDArray[np.float32], n: int, seed: int, names: Sequence[str]) -> list[Floats]:
    """Draws of several features, a list because curves differ in their parameters."""
    return [draw(r, n, seed, str(name)) for r, name in zip(records, names, strict=True)]
