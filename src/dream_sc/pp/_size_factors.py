"""Size factors of cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from dream_sc import _validate
from dream_sc._data import results
from dream_sc._keys import GUIDE, NTC, SIZE_FACTOR, SIZE_FACTORS, TARGET

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData
    from mudata import MuData

    from dream_sc._data.counts import Counts

Method = Literal["total", "median_ratio", "stable"]
MIN_MEAN = 0.05  # counts per cell of a feature that may count as stable
MIN_STABLE = 10


def size_factors(
    data: AnnData | MuData,
    *,
    mod: str | None = None,
    layer: str | None = None,
    method: Method = "total",
    exclude: Iterable[str] | None = None,
    guide_key: str | None = GUIDE,
    target_key: str | None = TARGET,
    control: str | list[str] = NTC,
    memory_limit: int | str | None = None,
    key_added: str = SIZE_FACTOR,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Compute size factors, one per cell, with mean 1.

    Parameters
    ----------
    data
        AnnData or MuData with raw counts, cells x features.
    mod
        Modality of a MuData.
    layer
        Layer of the counts; `.X` by default.
    method
        "total": the cell's total count. "median_ratio": the median, over the cell's detected features, of the
        ratio of its counts to the features' means, for data with few features of which some dominate.
        "stable": the total over features that do not follow the perturbation, for screens in which many do: the half
        of the features (of at least 0.05 counts per cell) that differ least between guides, beyond the noise of
        counts, compared with features of similar mean. Guides have an offset each, which is found together with these
        features, so a total that follows the perturbation does not mislead the choice. If much more than half of the
        counts respond, no method can tell what stood still. Fewer counts make noisier size factors.
    exclude
        Names of features to leave out, such as the cis gene or one that holds much of all counts.
    guide_key, target_key
        For "stable": columns of `.obs` with each cell's guide and target. Without guides (`guide_key=None`) features
        are compared between targets; for guides of few cells each that tells more. With neither, the features of least
        overdispersion for their mean are taken, which needs no labels (as where cells carry several guides), but takes
        cell states for the perturbation.
    control
        For "stable": label(s) of non-targeting cells in `.obs[target_key]`. Their guides count as one, so that many
        control guides do not outvote those that do something.
    memory_limit
        Bytes, or a text such as "4GB", for reading the counts; half of what is available by default.
    key_added
        Column of `.obs` to write.
    copy
        Return a new object instead of writing into `data`.

    Returns
    -------
    The object if `copy`, else None. Writes `.obs[key_added]`; how it was made goes to `.uns["size_factors"]`.

    Raises
    ------
    ValueError, KeyError
        If the counts are not counts, a cell has none, or, for "stable", labels are missing or features too few.

    Examples
    --------
    >>> ds.pp.size_factors(adata, method="median_ratio")
    >>> round(float(adata.obs["size_factor"].mean()), 6)
    1.0
    """
    started = results.now()
    _validate.one_of("method", method, get_args(Method))
    data = results.own(data, copy)
    adata = _validate.resolve(data, mod)
    _validate.new_size_factors(adata, key_added)
    genes = _validate.gene_features(adata, "pp.size_factors")
    groups = _groups(adata, guide_key, target_key, control) if method == "stable" else None
    names = [] if exclude is None else [exclude] if isinstance(exclude, str) else list(exclude)
    keep = genes.copy()
    for name in names:
        keep[_validate.feature(adata, name, "exclude")] = False
    s = compute(adata, layer, method, keep, limit=memory_limit, groups=groups)
    results.write(adata, "pp.size_factors", {("obs", key_added): s}, started)
    made_by(adata, key_added, "pp.size_factors", method=method, layer=layer, exclude=names)
    return data if copy else None


def made_by(adata: AnnData, key: str, step: str, **how: Any) -> None:
    """Note how a column of size factors was made, with what tells whether it is still the same."""
    before = adata.uns.get(SIZE_FACTORS, {})
    if not isinstance(before, Mapping):  # the user's own
        return
    s = adata.obs[key].to_numpy(float)
    given = {name: value for name, value in how.items() if value not in (None, [])}
    adata.uns[SIZE_FACTORS] = {**before, key: {"step": step, "how": given, "n_cells": len(s), "check": float(s @ s)}}


def compute(
    adata: AnnData,
    layer: str | None,
    method: str = "total",
    keep: np.ndarray | None = None,
    limit: int | str | None = None,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Size factors with mean 1 over the features to keep; `groups` are those of `_groups`."""
    held = {} if groups is None else {f"sums of {adata.n_vars} features by guide": _sums_bytes(groups, adata.n_vars)}
    counts = results.counts(adata, layer, limit, held)
    keep = _validate.other_features(adata) == "" if keep is None else keep
    s = totals(counts, keep) if method == "total" else _median_ratios(counts, keep)
    if method == "stable":
        # from totals, a feature that dominates them would seem the most stable of all
        s = totals(counts, stable(counts, s / s.mean(), keep, groups))
    if (s <= 0).any():
        raise ValueError(
            f"{int((s <= 0).sum())} cells have no count in the features used: drop them first, "
            "scanpy.pp.filter_cells(adata, min_counts=1)"
        )
    return s / s.mean()


def totals(counts: Counts, keep: np.ndarray) -> np.ndarray:
    """Total count of each cell over the features to keep."""
    from dream_sc._core.sums.guide_sums import add_cell_moments

    out = np.zeros((counts.shape[0], 3))
    for block in counts.blocks():
        add_cell_moments(block, keep.astype(np.float64), out)
    return out[:, 2].copy()


def _feature_moments(counts: Counts, s: np.ndarray) -> np.ndarray:
    """Sums over cells of each feature's counts, their squares, and counts times size factor, ``(3, T)``."""
    from dream_sc._core.sums.guide_sums import add_feature_moments

    out = np.zeros((counts.shape[1], 3))
    for block in counts.blocks():
        add_feature_moments(block, s, out)
    return out.T


def _median_ratios(counts: Counts, keep: np.ndarray) -> np.ndarray:
    """Median over a cell's detected features of count over mean."""
    from dream_sc._core.sums.guide_sums import median_ratios

    means = _feature_moments(counts, np.zeros(counts.shape[0]))[0] / counts.shape[0]
    s = np.zeros(counts.shape[0])
    for block in counts.cell_blocks():
        s[block.cells] = median_ratios(block, keep, means)
    return s


def _groups(
    adata: AnnData, guide_key: str | None, target_key: str | None, control: str | list[str]
) -> np.ndarray | None:
    """Guide, or target, of each cell as a number, all controls as one; -1 of cells without; None without labels."""
    if guide_key is None and target_key is None:
        return None
    own, name = (guide_key, "guide_key") if guide_key is not None else (target_key, "target_key")
    if own not in adata.obs:
        raise KeyError(
            f"method='stable' compares features between guides, but {name}={own!r} is not a column of .obs; there are "
            f"{list(adata.obs.columns)}. Name the columns as guide_key= and target_key=; in Python, None stands for "
            "one that is not there"
        )
    label = _validate.labels(adata, str(own), name).astype(object)
    if target_key is not None:
        is_control = _validate.controls(_validate.labels(adata, target_key, "target_key"), control, target_key)
        label[is_control] = None  # one group, named unlike any label
    names, code = np.unique([f"_{n}" if n is not None else "" for n in label], return_inverse=True)
    if "_" in names:  # cells without a label
        code = np.where(names[code] == "_", -1, code - (code > list(names).index("_")))
    if code.max() < 1:
        raise ValueError(
            f'method="stable" compares features between guides, but .obs[{own!r}] holds only one beside missing labels'
        )
    return np.asarray(code, dtype=np.int64)


def _sums_bytes(groups: np.ndarray, n_features: int) -> int:
    from dream_sc._core.sums.guide_sums import row_bytes

    return 2 * row_bytes(int(groups.max()) + 1, n_features)


def stable(counts: Counts, s: np.ndarray, keep: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Features that differ least between groups of cells for their mean, given size factors `s`.

    Raises
    ------
    ValueError
        If too few features have enough counts.
    """
    y, y2, ys = _feature_moments(counts, s)
    mean = y / s.sum()
    candidates = np.flatnonzero(keep & (mean >= MIN_MEAN))
    if len(candidates) < 2 * MIN_STABLE:
        raise ValueError(
            f'method="stable" needs at least {2 * MIN_STABLE} features of {MIN_MEAN} counts per cell or more, '
            f'there are {len(candidates)}: use method="median_ratio"'
        )
    out = np.zeros(len(keep), dtype=bool)
    if groups is None:
        from dream_sc._core.stats.stable_features import lowest_half

        m, square = mean[candidates], s @ s
        variance = y2[candidates] - 2 * m * ys[candidates] + m**2 * square
        out[candidates] = lowest_half((variance - m * s.sum()) / (m**2 * square), m)
    else:
        out[candidates] = _stable_between(counts, s, candidates, groups)
    return out


def _stable_between(counts: Counts, s: np.ndarray, candidates: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Which of the candidates differ least between groups of cells, beyond the noise of counts."""
    from dream_sc._core.stats import stable_features
    from dream_sc._core.sums.guide_sums import RowSums, add_feature_moments

    present, code = np.unique(groups, return_inverse=True)  # labels that no cell has are no groups
    labelled, n, unlabelled = int((present >= 0).sum()), len(present), int(present[0] < 0)
    row = np.where(code < unlabelled, labelled, code - unlabelled)  # those without: for the noise of counts only
    sums, moments = RowSums(row, n, counts.shape[1], s), np.zeros((counts.shape[1], 3))
    for block in counts.blocks():
        sums.add(block)
        add_feature_moments(block, s, moments)
    total, weighted = (x[candidates] for x in sums.closed())
    exposure, exposure2 = (np.bincount(row, s**k, n).astype(float) for k in (1, 2))
    o2 = stable_features.overdispersion2(total, weighted, moments[candidates, 1], exposure, exposure2)
    groups_only = stable_features.GroupSums(total[:, :labelled], exposure[:labelled], exposure2[:labelled], o2)
    return stable_features.stable_features(groups_only, total.sum(1) / exposure.sum())
