"""Sticks against scipy's multinomial, both layouts, formats and files, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from dream_sc._core.likelihoods import likelihood
from dream_sc._core.sums.pair_sums import pair_sums, score_sums
from dream_sc._data.scores import open_scores
from dream_sc._data.shares import open_pairs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

N, SIZES = 40, (3, 1, 4, 2, 3)
STARTS = np.cumsum([0, *SIZES])
FORMS = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "dense": np.asarray,
    "float32": lambda y: sparse.csr_matrix(y.astype(np.float32)),
    "dask": lambda y: da.from_array(y, chunks=(17, 5)),
}


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """Categories of the five features in `SIZES`; one category of the third and one of the fourth never occur."""
    y = np.random.default_rng(0).poisson(np.linspace(0.3, 3, sum(SIZES)), (N, sum(SIZES)))
    y[:, [5, 9]] = 0
    y[:, 0] = y[:, 1][::-1]
    return y


def _junctions(x: Any) -> ad.AnnData:
    labels = np.repeat([f"d{i}" for i in range(len(SIZES))], SIZES)
    return ad.AnnData(x, var=pd.DataFrame({"donor": labels}, index=[f"j{k}" for k in range(len(labels))]))


def _dense(pairs: Any, size: int = 3) -> tuple[np.ndarray, np.ndarray]:
    parts = list(pairs.blocks(size))
    assert [p for p, _, _ in parts] == [slice(i, min(i + size, pairs.n_sticks)) for i in range(0, pairs.n_sticks, size)]
    assert all(m.format == "csc" and m.has_canonical_format for _, *both in parts for m in both)
    y, n = (np.hstack([p[i].toarray() for p in parts]) for i in (1, 2))
    return y, n


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_sticks_are_the_multinomial(counts: np.ndarray, form: Callable[[np.ndarray], Any]) -> None:
    pairs = open_pairs(_junctions(form(counts)), likelihood("multinomial"), category_key="donor")
    s = pairs.sticks
    assert s.features == ["d0", "d1", "d2", "d3", "d4"]
    np.testing.assert_array_equal(s.n_categories, [3, 0, 3, 0, 3])  # of d1 and d3 only one category occurs
    np.testing.assert_array_equal(s.has_stick, [True, False, True, False, True])
    chain = [*s.category[:2], s.following[1]]
    assert chain.index(0) + 1 == chain.index(1)  # these tie
    y, n = _dense(pairs)
    np.testing.assert_array_equal(y, counts[:, s.category])
    rng = np.random.default_rng(1)
    for f in (0, 2, 4):
        mine = np.flatnonzero(s.feature == f)
        order = np.r_[s.category[mine], s.following[mine[-1]]]
        totals = counts[:, order].sum(0)
        assert (np.diff(totals) <= 0).all()
        np.testing.assert_array_equal(n[:, mine[0]], counts[:, STARTS[f] : STARTS[f + 1]].sum(1))
        p = rng.dirichlet(np.ones(len(order)))
        conditional = p[:-1] / np.cumsum(p[::-1])[::-1][:-1]
        product = stats.binom.logpmf(y[:, mine], n[:, mine], conditional).sum(1)
        np.testing.assert_allclose(product, stats.multinomial.logpmf(counts[:, order], n[:, mine[0]], p), atol=1e-10)


def test_sticks_of_the_dirichlet_multinomial(counts: np.ndarray) -> None:
    """Beta-binomial sticks with the parameters of the remaining categories."""
    pairs = open_pairs(_junctions(counts), likelihood("multinomial"), category_key="donor")
    y, n = _dense(pairs)
    order = np.r_[pairs.sticks.category[:2], pairs.sticks.following[1]]
    alpha = np.array([2.0, 0.7, 1.3])
    rest = np.cumsum(alpha[::-1])[::-1][1:]
    product = stats.betabinom.logpmf(y[:, :2], n[:, :2], alpha[:-1], rest).sum(1)
    expected = [stats.dirichlet_multinomial.logpmf(c, alpha, m) for c, m in zip(counts[:, order], n[:, 0], strict=True)]
    np.testing.assert_allclose(product, np.array(expected).ravel(), atol=1e-10)


def test_both_layouts_give_the_same() -> None:
    rng = np.random.default_rng(3)
    y = rng.poisson(1.5, (N, 4, 3))
    y[:, 2, 1] = 0
    wide = ad.AnnData(np.zeros((N, 4)), layers={f"c{k}": sparse.csr_matrix(y[:, :, k]) for k in range(3)})
    var = pd.DataFrame({"of": np.repeat(list("0123"), 3)}, index=list("abcdefghijkl"))
    long = ad.AnnData(y.reshape(N, 12), var=var)
    by_layer = open_pairs(wide, likelihood("multinomial"), category_layers=["c0", "c1", "c2"])
    by_key = open_pairs(long, likelihood("multinomial"), category_key="of")
    for a, b in zip(_dense(by_layer), _dense(by_key), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("features", "feature", "category", "following", "active"):
        np.testing.assert_array_equal(getattr(by_layer.sticks, name), getattr(by_key.sticks, name))
    assert by_layer.sticks.table()["category"].isin(["c0", "c1", "c2"]).all()


def test_two_categories_are_a_binomial(counts: np.ndarray) -> None:
    a, b = counts[:, :4] + 5, counts[:, 4:8]
    adata = ad.AnnData(a, layers={"a": a, "b": b, "both": a + b})
    two = open_pairs(adata, likelihood("multinomial"), category_layers=["b", "a"])
    y, n = _dense(two)
    first = two.sticks.feature
    np.testing.assert_array_equal(y, a[:, first])
    binomial = open_pairs(adata, likelihood("binomial"), layer="a", denominator_layer="both")
    y_, n_ = _dense(binomial)
    np.testing.assert_array_equal(y_[:, first], y)
    np.testing.assert_array_equal(n_[:, first], n)


def test_an_earlier_table_gives_the_same_sticks(counts: np.ndarray) -> None:
    adata = _junctions(counts)
    whole = open_pairs(adata, likelihood("multinomial"), category_key="donor")
    some = adata[:7, adata.var_names[::-1]].copy()  # fewer cells put categories in another order
    again = open_pairs(some, likelihood("multinomial"), category_key="donor", sticks=whole.sticks.table())
    by_name = again.sticks.table().sort_values(["feature"], kind="stable").reset_index(drop=True)
    pd.testing.assert_frame_equal(by_name, whole.sticks.table())
    lacking = adata[:, [n for n in adata.var_names if n != "j2"]].copy()
    less = open_pairs(lacking, likelihood("multinomial"), category_key="donor", sticks=whole.sticks.table())
    assert set(less.sticks.table()["feature"]) == {"d2", "d4"}


def test_backed_files_give_the_same(counts: np.ndarray, tmp_path: Path) -> None:
    for name, x in (("csr", sparse.csr_matrix(counts)), ("csc", sparse.csc_matrix(counts)), ("dense", counts)):
        adata = _junctions(x)
        adata.layers["score"] = counts / 2
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
        backed = ad.read_h5ad(tmp_path / f"{name}.h5ad", backed="r")
        both = (_dense(open_pairs(d, likelihood("multinomial"), category_key="donor")) for d in (adata, backed))
        for a, b in zip(*both, strict=True):
            np.testing.assert_array_equal(a, b)
        scores = np.hstack([v for _, v in open_scores(backed).blocks(4)])
        np.testing.assert_array_equal(scores, counts)
        backed.file.close()


@pytest.mark.parametrize("size", [1, 4, 100])
def test_sums_of_pairs(counts: np.ndarray, size: int) -> None:
    pairs = open_pairs(_junctions(counts), likelihood("multinomial"), category_key="donor")
    y, n = _dense(pairs)
    row = np.random.default_rng(0).integers(-1, 4, N)
    sums = pair_sums(pairs.blocks(size), row, 5, pairs.n_sticks)
    for r in range(5):
        np.testing.assert_array_equal(sums.numerator[:, r], y[row == r].sum(0))
        np.testing.assert_array_equal(sums.denominator[:, r], n[row == r].sum(0))
        np.testing.assert_array_equal(sums.pairs[:, r], (n * (n - 1))[row == r].sum(0))


def test_sums_of_scores() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(1e6, 1.0, (N, 7))
    x[rng.random(x.shape) < 0.2] = np.nan
    x[:, 3] = np.nan
    row = rng.integers(-1, 3, N)
    one, other = (score_sums(open_scores(ad.AnnData(x)).blocks(k), row, 3, 7) for k in (1, 5))
    for name in ("n_cells", "total", "squares", "centre"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    used = x[row >= 0]
    np.testing.assert_array_equal(one.n_cells[3], 0)
    assert np.isnan(one.centre[3])
    for t in (0, 6):
        np.testing.assert_allclose(one.centre[t], np.nanmean(used[:, t]), rtol=1e-15)
        for r in range(3):
            np.testing.assert_allclose(one.mean[t, r], np.nanmean(x[row == r, t]), rtol=1e-14)
            squares = np.nansum((x[row == r, t] - one.centre[t]) ** 2)
            np.testing.assert_allclose(one.squares[t, r], squares, rtol=1e-9)


def test_sparse_scores_hold_zeros() -> None:
    x = np.array([[0.0, 1.5], [np.nan, 0.0], [-2.0, 0.0]])
    for form in (sparse.csr_matrix, sparse.csc_matrix, lambda v: da.from_array(v, chunks=(2, 1))):
        ((part, values),) = open_scores(ad.AnnData(form(x))).blocks()
        assert part == slice(0, 2)
        np.testing.assert_array_equal(values, x)


def test_wrong_scores_are_refused() -> None:
    x = np.zeros((3, 2))
    x[1, 1] = np.inf
    with pytest.raises(ValueError, match=r"infinite scores, cell '1' feature '1'"):
        list(open_scores(ad.AnnData(x)).blocks())
    with pytest.raises(TypeError, match="scores are numbers"):
        open_scores(ad.AnnData(np.array([["a"]])))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"distribution": "binomial"}, "needs denominator_layer"),
        ({"distribution": "binomial", "denominator_layer": "n", "layer": "n"}, "both 'n'"),
        ({"distribution": "binomial", "denominator_layer": "m"}, "'m' is not there"),
        ({"distribution": "binomial", "denominator_layer": "small"}, r"above .layers\['small'\] .* cell '3' feature"),
        ({"distribution": "binomial", "denominator_layer": "nan"}, "NaN"),
        ({"distribution": "binomial", "denominator_layer": "n", "layer": "negative"}, "negative"),
        ({"distribution": "binomial", "denominator_layer": "n", "layer": "half"}, "fractions"),
        ({"distribution": "binomial", "denominator_layer": "n", "category_key": "donor"}, "for distribution"),
        ({"distribution": "multinomial"}, "neither"),
        ({"distribution": "multinomial", "category_key": "donor", "category_layers": ["n", "half"]}, "and got"),
        ({"distribution": "multinomial", "category_key": "donor", "denominator_layer": "n"}, "leave it out"),
        ({"distribution": "multinomial", "category_key": "donors"}, r"did you mean \['donor'"),
        ({"distribution": "multinomial", "category_key": "holes"}, r"no feature for 1 categories, \['j1'\]"),
        ({"distribution": "multinomial", "category_layers": ["n", "n"]}, "more than once"),
        ({"distribution": "multinomial", "category_layers": ["n"]}, "two layers or more"),
        ({"distribution": "multinomial", "category_layers": ["n", "small"], "layer": "n"}, "beside category_layers"),
    ],
)
def test_wrong_input_is_refused(counts: np.ndarray, arguments: dict[str, Any], match: str) -> None:
    adata, arguments = _junctions(counts), dict(arguments)
    adata.layers["n"], adata.layers["small"] = counts + 1, np.maximum(counts - 1, 0)
    adata.layers["nan"] = np.where(counts > 2, np.nan, 9.0)
    adata.layers["negative"], adata.layers["half"] = -counts, counts / 2
    adata.var["holes"] = ["a", None, *["b"] * (adata.n_vars - 2)]
    with pytest.raises((ValueError, KeyError), match=match):
        open_pairs(adata, likelihood(arguments.pop("distribution")), **arguments)
