"""What goes with the dosage beside it: size factors, depth, covariates, batches, and being a control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dream_sc import _validate
from dream_sc._data import made_from, results, stored
from dream_sc._data.cis_cells import guide_cells
from dream_sc._keys import CHECKED_GUIDES, CHECKS, CIS, CONFOUNDING, EQUAL_DOSAGE_COLUMNS, MADE_FROM, TECHNICAL
from dream_sc._logging import logger
from dream_sc.pp._size_factors import stable, totals

from . import _confounding as checks
from ._response_inputs import response_inputs, technical_counts
from ._without_dosage import refuse_without_dosage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from mudata import MuData

SIZE_FACTOR_ADVICE = (
    "size factors follow the perturbation: right if depth does so in truth, wrong if many features respond and the "
    "totals with them. Compare with pp.size_factors(method='stable'), and see the rows of stable features"
)
DEPTH_ADVICE = (
    "even in features that differ least between guides, the counts of cells follow the perturbation: depth does, or "
    "nearly all features. Size factors have to follow it as much; do not adjust or refit them"
)
OFFSET_ADVICE = (
    "at these size factors, features that differ least between guides follow the perturbation, so that all that do not "
    "respond seem to: use pp.size_factors(method='stable'), and keep guide_offsets=True in fit_trans"
)
EXPRESSION_ADVICE = (
    "targeting guides at NTC dosage do not look like control guides: something else than the dosage sets them apart "
    "(lane, line, virus, selection). Find what, read p_trend_within_targeting beside each call, and do not trust calls "
    "that rest on controls against targeting guides"
)
COVARIATE_ADVICE = (
    "{0} follows the perturbation, so features that follow {0} seem to respond: compare cells of like {0}, or leave "
    "out the guides that differ"
)
LABEL_ADVICE = (
    "guides of different dosage are spread unevenly over {0}: what differs between its groups looks like a response; "
    "{1}"
)
CONTROL_ADVICE = "control cells are spread over {0} otherwise than targeted ones; {1}"
GIVEN = "its effects are in the technical fit, and rest on the control cells of each group"
NOT_GIVEN = "give it to fit_technical as batch_key=, with control cells in every group"


def check_confounding(
    data: AnnData | MuData,
    *,
    covariates: str | Sequence[str] | None = None,
    batch_key: str | None = None,
    mod: str | None = None,
    cis_mod: str | None = None,
    near: float = 0.5,
    level: float = 0.05,
    technical_key: str = TECHNICAL,
    cis_key: str = CIS,
    memory_limit: int | str | None = None,
    rng: int | np.random.Generator = 0,
    key_added: str = CONFOUNDING,
    copy: bool = False,
) -> pd.DataFrame | AnnData | MuData:
    """Check what goes with the dosage beside it, and whether targeted cells at NTC dosage look like NTC cells.

    Units of all tests are guides: means of guides are regressed by a random-effects meta-regression, whose variance
    between guides is learned, with Student's t :cite:p:`DerSimonian1986,Knapp2003`. The checks are

    - size factor (log2), depth (log2 of a cell's counts in the half of the features that differ least between guides,
      as in ``pp.size_factors(method="stable")``) and numeric covariates: slope over the log2 dosage, and targeting less
      control guides;
    - batches and categorical covariates: slope of the fraction of a guide's cells in a group, for the group in which
      it is clearest; and the association of controls with groups (bias-corrected Cramér's V), with the groups that
      lack control cells. Groups with fewer cells than there are guides are not tested;
    - offset of stable features (log2; those of `tl.fit_trans`): what is left in the size factors. It is flagged where
      composition moved them, and not where depth itself follows the dosage. As size factors and depth, it is flagged
      from 0.1 log2 on, between the ends of the dosages or between controls and others;
    - expression at NTC dosage: each feature is compared between control guides and the targeting guides within `near`
      of their dosage, less what the feature's trend among all targeting guides gives for the distance. The estimate is
      the share of features with p < 0.05, its p-value is over relabelling guides (up to 200 times; missing if
      there are fewer than 20 ways, and a share above 0.25 is flagged instead).

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_technical` (of counts) and `tl.fit_cis` have run.
    covariates
        Columns of `.obs`: numbers are compared by their means, all else as groups.
    batch_key
        Column of `.obs` with batches; that of the technical fit by default.
    mod, cis_mod
        Modality to check, and the one that holds the dosage (the same by default); cells are matched by name.
    near
        Distance to NTC dosage, log2, up to which a targeting guide counts as of equal dosage.
    level
        Of flags: with nothing to find, at most about this share of data sets has any flag, and as much again has that
        of expression at NTC dosage, which is judged by itself.
    technical_key, cis_key
        Names of the earlier fits.
    memory_limit
        Bytes, or a text such as "4GB", for reading the counts and their sums; half of what is available by default.
    rng
        Seed of the relabellings.
    key_added
        Name under which results are stored.
    copy
        Write into a new object and return that instead of the table, which `get.confounding` then reads.

    Returns
    -------
    The new object if `copy`, else the table with a row per check: what, statistic, estimate, pvalue (NaN where there is
    none), pvalue_adjusted (Holm's method over the rows; expression at NTC dosage by itself), flag, advice. The table is
    stored as `.uns[key_added]["checks"]`, with the means of guides behind it in ``"guides"``; `.varm[key_added]` has
    the differences of features at NTC dosage (log2_difference, se, pvalue).

    Raises
    ------
    KeyError, ValueError
        If an earlier step or a column is missing, the technical fit is not of counts, or the guides have no dosages
        (``dosage="none"`` of `tl.fit_trans`).

    Examples
    --------
    >>> checks = ds.tl.check_confounding(adata, batch_key="batch")
    >>> {"size factor", "depth", "batch"} <= set(checks["what"])
    True
    """
    started = results.now()
    for name, value in (("near", near), ("level", level)):
        if not value > 0:
            raise ValueError(f"{name}={value} is not allowed: use a number above 0")
    data = results.own(data, copy)
    adata = _validate.resolve(data, mod)
    holder = adata if cis_mod is None else _validate.resolve(data, cis_mod)
    _validate.new_key(adata, key_added, "tl.check_confounding")
    technical = _validate.step(adata, technical_key, "fit_technical(data)")
    if (like := stored.likelihood_of(technical)).statistics != "counts":
        raise ValueError(
            f".uns[{technical_key!r}] is a technical fit of {like.name} data, but size "
            "factors and depth are of counts: check the modality of counts"
        )
    refuse_without_dosage(holder, cis_key)
    seed, cells = results.seed_of(rng), guide_cells(adata, holder, cis_key)
    batch_key = technical["params"]["batch_key"] if batch_key is None else batch_key
    columns = _validate.names("covariates", covariates)
    taken = [c for c in columns if c in checks.BUILT_IN]
    if taken:
        raise ValueError(f"the covariates {taken} have the names of checks that are always made: rename the columns")
    values = {} if batch_key is None else {batch_key: _validate.column(adata, batch_key, "batch_key")}
    values |= {name: _validate.column(adata, name, "covariates") for name in columns}
    columns = list(values)
    found = checks.Found(cells)
    _size_and_depth(found, adata, technical, memory_limit)
    for name, column in values.items():
        _covariate(found, adata, name, column, technical["params"]["batch_key"], is_batch=name == batch_key)
    differences = _expression(found, adata, holder, (technical_key, cis_key), memory_limit, (float(near), seed))
    frame = checks.table(found.checks, float(level))
    params = {
        "covariates": columns,
        "batch_key": batch_key,
        "near": float(near),
        "level": float(level),
        "technical_key": technical_key,
        "cis_key": cis_key,
    }
    info = results.run_info(started, seed, params) | {
        "cis_gene": cells.cis_gene,
        "cis_mod": cis_mod,
        MADE_FROM: made_from.of_steps({cis_key: holder.uns[cis_key], technical_key: technical}),
        CHECKS: frame,
        CHECKED_GUIDES: pd.concat(found.guides, ignore_index=True),
    }
    results.write(adata, "tl.check_confounding", {("uns", key_added): info, ("varm", key_added): differences}, started)
    return data if copy else frame.copy()


def _size_and_depth(found: checks.Found, adata: AnnData, technical: Any, limit: int | str | None) -> None:
    """Size factors, and counts of cells in features that do not follow the perturbation."""
    params = technical["params"]
    s = _validate.size_factors(adata, params["size_factor_key"])
    checks.numbers(found, checks.SIZE_FACTOR, np.log2(s), SIZE_FACTOR_ADVICE, checks.SMALLEST)
    cells, counts = found.cells, results.counts(adata, params["layer"], limit)
    keep = np.asarray(adata.var_names != cells.cis_gene) & (_validate.other_features(adata) == "")
    # all control guides as one
    groups = np.where(cells.guide >= 0, np.where(cells.control, 0, np.cumsum(~cells.control))[cells.guide], -1)
    try:
        keep = stable(counts, s / s.mean(), keep, groups)
    except ValueError:  # too few features to choose from: all but the cis gene
        logger.info("tl.check_confounding: too few features with counts for stable ones, depth is over all features")
    total = totals(counts, keep)
    depth = np.log2(total, out=np.full(len(total), np.nan), where=total > 0)
    checks.numbers(found, checks.DEPTH, depth, DEPTH_ADVICE, checks.SMALLEST)


def _covariate(
    found: checks.Found, adata: AnnData, name: str, column: pd.Series, batch_of_fit: str | None, *, is_batch: bool
) -> None:
    """A column of `.obs`, as numbers or as groups; batches are groups whatever they are called."""
    numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if numeric and not is_batch:
        checks.numbers(found, name, column.to_numpy(float, na_value=np.nan), COVARIATE_ADVICE.format(name))
        return
    what = GIVEN if name == batch_of_fit else NOT_GIVEN
    advice = LABEL_ADVICE.format(name, what), CONTROL_ADVICE.format(name, what)
    checks.categories(found, name, _validate.labels(adata, name, "covariates"), advice)


def _expression(
    found: checks.Found,
    adata: AnnData,
    holder: AnnData,
    keys: tuple[str, str],
    limit: int | str | None,
    settings: tuple[float, int],
) -> pd.DataFrame:
    """Offsets of guides, and features at NTC dosage; gives the table of the latter."""
    from dream_sc._core.response.prepare import expected

    technical_key, cis_key = keys
    inputs = response_inputs(
        adata,
        holder,
        technical_key=technical_key,
        cis_key=cis_key,
        slopes=False,
        limit=limit,
        label="tl.check_confounding",
    )
    measured, ok = inputs.prepared, inputs.prepared.fitted
    checks.offsets(found, inputs.guides["offset"].to_numpy(float), OFFSET_ADVICE)
    at_ntc = expected(measured.stats, technical_counts(inputs.opened), ok)
    sums = checks.by_guide(measured.stats.take(ok), at_ntc, measured.overdispersion[ok])
    tested, numbers = checks.equal_dosage(found, sums, *settings, EXPRESSION_ADVICE)
    frame = pd.DataFrame(np.nan, index=adata.var_names, columns=list(EQUAL_DOSAGE_COLUMNS))
    for name, column in numbers.items():
        frame.iloc[np.flatnonzero(ok)[tested], frame.columns.get_loc(name)] = column
    return frame
