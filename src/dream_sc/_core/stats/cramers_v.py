"""How much two labels of cells go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


def cramers_v(a: Ints, b: Ints) -> float:
    """Cramér's V of two labels, corrected for its bias :cite:p:`Bergsma2013`; 0 if one of them has one value.

    Without the correction it is above 0 for independent labels, the more so the more values there are.
    """
    n = len(a)
    if n < 2 or min(len(np.unique(a)), len(np.unique(b))) < 2:
        return 0.0
    _, a = np.unique(a, return_inverse=True)
    _, b = np.unique(b, return_inverse=True)
    r, k = int(a.max()) + 1, int(b.max()) + 1
    table = np.bincount(a * k + b, minlength=r * k).reshape(r, k).astype(float)
    expected = np.outer(table.sum(1), table.sum(0)) / n
    phi2 = float(((table - expected) ** 2 / expected).sum() / n)
    phi2 = max(0.0, phi2 - (r - 1) * (k - 1) / (n - 1))
    rows, columns = (m - (m - 1) ** 2 / (n - 1) for m in (r, k))
    return float(min(1.0, np.sqrt(phi2 / max(min(rows, columns) - 1, 1e-12))))


def balanced_v(a: Ints, b: Ints) -> float:
    """The same for a label `b` of two values, 0 and 1, as if each had as many; the rarer one shows what it does."""
    n = np.bincount(b, minlength=2)
    if min(n) < 2 or len(np.unique(a)) < 2:
        return 0.0
    _, a = np.unique(a, return_inverse=True)
    r = int(a.max()) + 1
    shares = np.array([np.bincount(a[b == k], minlength=r) / n[k] for k in (0, 1)])
    mean = shares.mean(0)
    phi2 = float(((shares - mean) ** 2 / mean / 2).sum())
    # what it is in the mean of independent labels
    return float(min(1.0, np.sqrt(max(0.0, phi2 - (r - 1) * float((1 / n).sum()) / 4))))
