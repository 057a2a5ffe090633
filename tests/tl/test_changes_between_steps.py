"""Whatever changes between two steps is harmless, or is named by the next step and by those who read the results."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")

GENE = "GFI1B"
Change = Callable[[ad.AnnData], Any]


def _high_moi() -> ad.AnnData:
    adata = ds.datasets.high_moi(500, 12, rng=0, moi=1.0, n_other_guides=4)
    ds.tl.fit_technical(adata, guides="guides", use_all_cells=True)
    ds.tl.fit_cis(adata, GENE, control_group="complement")
    ds.tl.fit_trans(adata, function_type="single_hill")
    return adata


@pytest.fixture(scope="module")
def counts() -> ad.AnnData:
    adata = ds.datasets.titration(500, 14, rng=3, n_guides=6)
    adata.layers["counts"] = adata.X.copy()
    adata.layers["other"] = sparse.csr_matrix(np.random.default_rng(0).poisson(2.0, adata.shape).astype(float))
    adata.obs["percent"] = np.random.default_rng(0).uniform(size=adata.n_obs)
    adata.var["gene_symbols"] = [f"S{i}" for i in range(adata.n_vars)]
    ds.tl.fit_technical(adata, batch_key="batch", covariates=["percent"], layer="counts")
    ds.tl.fit_cis(adata, GENE)
    ds.tl.fit_trans(adata, function_type="single_hill")
    return adata


@pytest.fixture(scope="module")
def carried() -> ad.AnnData:
    return _high_moi()


def _shares(counts: ad.AnnData, **how: Any) -> ad.AnnData:
    """Shares in the cells of the counts, with their dosages."""
    rng = np.random.default_rng(1)
    total = rng.poisson(4.0, (counts.n_obs, 6)).astype(float)
    first = rng.binomial(total.astype(int), 0.5).astype(float)
    values = first if "denominator_layer" in how else np.stack([first, total - first], 2).reshape(counts.n_obs, -1)
    names = [f"f{i}" for i in range(values.shape[1])]
    var = pd.DataFrame({"donor": [f"d{i // 2}" for i in range(len(names))]}, names)
    adata = ad.AnnData(sparse.csr_matrix(values), counts.obs.copy(), var)
    if "denominator_layer" in how:
        adata.layers["denominator"] = sparse.csr_matrix(total)
    adata.obsm["cis"], adata.uns["cis"] = counts.obsm["cis"].copy(), dict(counts.uns["cis"])
    adata.uns["cis"].pop("made_from")  # of another matrix
    ds.tl.fit_technical(adata, **how)
    return adata


@pytest.fixture(scope="module")
def binomial(counts: ad.AnnData) -> ad.AnnData:
    return _shares(counts, distribution="binomial", denominator_layer="denominator")


@pytest.fixture(scope="module")
def multinomial(counts: ad.AnnData) -> ad.AnnData:
    return _shares(counts, distribution="multinomial", category_key="donor")


def _set(store: str, name: str, values: Callable[[Any], Any]) -> Change:
    def change(a: ad.AnnData) -> None:
        getattr(a, store)[name] = values(getattr(a, store)[name])

    return change


def _relabel(column: str, of: str, to: str) -> Change:
    return _set("obs", column, lambda c: c.astype(str).replace({of: to}))


def _edited(store: str, key: str, column: str, add: float) -> Change:
    def change(a: ad.AnnData) -> None:
        getattr(a, store)[key][column] = getattr(a, store)[key][column] + add

    return change


def _edited_guides(a: ad.AnnData) -> None:
    table = a.uns["cis"]["guides"].copy()
    table.loc[0, "log2_dosage"] -= 1.0
    a.uns["cis"]["guides"] = table


def _names(a: ad.AnnData) -> None:
    a.var_names = [f"ENS{i}" if name != GENE else name for i, name in enumerate(a.var_names)]


def _technical_again(a: ad.AnnData) -> None:
    ds.tl.fit_technical(a, layer="counts")


def _cis_again(a: ad.AnnData) -> None:
    ds.tl.fit_cis(a, GENE, layer="other")


def _matrix(a: ad.AnnData) -> None:
    a.obsm["guides"] = sparse.csr_matrix(a.obsm["guides"].toarray()[:, ::-1])


# what changes -> what the next step says, and the step to call
NAMED: dict[str, tuple[str, Change, str, str]] = {
    "size factors": ("counts", _set("obs", "size_factor", lambda s: s * 1.2), r"\.obs\['size_factor'\]", "technical"),
    "labels of guides": ("counts", _relabel("guide", f"{GENE}_g01", f"{GENE}_g02"), r"\.obs\['guide'\]", "cis"),
    "labels of targets": ("counts", _relabel("target", GENE, "promoter"), r"\.obs\['target'\]", "cis"),
    "label of controls": ("counts", _relabel("target", "NTC", "safe"), r"\.obs\['target'\]", "technical"),
    "batches": (
        "counts",
        _set("obs", "batch", lambda b: b.astype(str).map({"batch_1": "batch_2", "batch_2": "batch_1"})),
        r"\.obs\['batch'\]",
        "technical",
    ),
    "covariate": ("counts", _set("obs", "percent", lambda p: p.to_numpy()[::-1]), r"\.obs\['percent'\]", "technical"),
    "counts of a layer": (
        "counts",
        _set("layers", "counts", lambda x: x.multiply(2).tocsr()),
        r"counts of \.layers\['counts'\]",
        "technical",
    ),
    "names of genes": ("counts", _names, "names of features", "technical"),
    "technical fit again": ("counts", _technical_again, r"\.uns\['technical'\] was made again", "cis"),
    "baseline edited": ("counts", _edited("varm", "technical", "mu", 1.0), r"\.varm\['technical'\]", "technical"),
    "group effects edited": (
        "counts",
        _set("varm", "technical_effects", lambda e: np.asarray(e) + 0.3),
        r"\.varm\['technical_effects'\]",
        "technical",
    ),
    "dosages of cells edited": ("counts", _edited("obsm", "cis", "x_true", 0.5), r"\.obsm\['cis'\]", "cis"),
    "dosages of guides edited": ("counts", _edited_guides, r"\.uns\['cis'\]\['guides'\]", "cis"),
    "matrix of guides": ("carried", _matrix, r"\.obsm\['guides'\]", "technical"),
    "denominators": (
        "binomial",
        _set("layers", "denominator", lambda x: (x + x.astype(bool)).tocsr()),
        r"counts of \.layers\['denominator'\]",
        "technical",
    ),
    "numerators": (
        "binomial",
        lambda a: setattr(a, "X", sparse.csr_matrix((a.X > 0).astype(float))),
        r"counts of \.X",
        "technical",
    ),
    "categories": (
        "multinomial",
        _set("var", "donor", lambda d: np.roll(d.to_numpy(), 1)),
        r"\.var\['donor'\]",
        "technical",
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_the_next_step_names_what_changed(name: str, request: pytest.FixtureRequest) -> None:
    of, change, text, step = NAMED[name]
    adata = request.getfixturevalue(of).copy()
    change(adata)
    with pytest.raises(ValueError, match=rf"tl\.fit_trans: .*{text}.*call dream_sc\.tl\.fit_{step} again"):
        ds.tl.fit_trans(adata, function_type="single_hill", key_added="new")
    assert "new" not in adata.uns


@pytest.mark.parametrize("name", [name for name, row in NAMED.items() if row[0] == "counts"])
def test_who_reads_the_results_is_warned(name: str, counts: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    _, change, text, _ = NAMED[name]
    adata = counts.copy()
    with caplog.at_level(logging.WARNING, "dream_sc"):
        ds.get.trans(adata)
        assert not caplog.records
        change(adata)
        for read in (ds.get.trans, ds.pl.volcano):
            caplog.clear()
            read(adata)
            said = " ".join(r.getMessage() for r in caplog.records)
            want = r"made with an earlier \.uns\['technical'\]" if name == "technical fit again" else text
            assert pd.Series([said]).str.contains(want).all(), said


def test_a_cis_fit_that_was_made_again_is_told(counts: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = counts.copy()
    _cis_again(adata)
    with caplog.at_level(logging.WARNING, "dream_sc"):
        ds.get.responders(adata)
    assert ".uns['trans'] was made with an earlier .uns['cis'] than is there now" in caplog.text
    with pytest.raises(ValueError, match="holds other dosages than 'trans' was fitted with"):
        ds.tl.calibrate(adata, n=2)


def test_an_edited_table_is_told_and_a_calibrated_one_is_not(
    counts: ad.AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    adata = counts.copy()
    with caplog.at_level(logging.WARNING, "dream_sc"):
        ds.tl.calibrate(adata, n=2, replace=True)
        ds.get.trans(adata)
        assert "changed since" not in caplog.text
        adata.varm["trans"]["qvalue"] = 0.0
        ds.get.trans(adata)
    assert ".varm['trans'] changed since dream_sc.tl.fit_trans wrote it" in caplog.text


@pytest.mark.filterwarnings("ignore:only .* NTC guides:UserWarning")
def test_calibration_and_checks_name_it_too(counts: ad.AnnData) -> None:
    adata = counts.copy()
    adata.obs["size_factor"] = np.random.default_rng(0).permutation(adata.obs["size_factor"])
    with pytest.raises(ValueError, match=r"not those of the trans fit any more \(\.obs\['size_factor'\] changed\)"):
        ds.tl.calibrate(adata, n=2)
    with pytest.raises(ValueError, match=r"tl\.check_confounding: \.obs\['size_factor'\] changed since"):
        ds.tl.check_confounding(adata)


NUMBERS = ["lfdr", "log_bf", "log2fc_full", "log2_ec50"]


def _of(a: ad.AnnData, **options: Any) -> pd.DataFrame:
    ds.tl.fit_trans(a, function_type="single_hill", key_added="new", **options)
    return ds.get.trans(a, key="new")


def _permuted(a: ad.AnnData) -> ad.AnnData:
    return a[np.random.default_rng(2).permutation(a.n_obs)].copy()


HARMLESS: dict[str, Callable[[ad.AnnData], ad.AnnData]] = {
    "order of cells": _permuted,
    "order of genes": lambda a: a[:, list(a.var_names[::-1])].copy(),
    "symbols of genes": lambda a: a[:].copy() if a.var.__setitem__("gene_symbols", "x") is None else a,
    "another column of .obs": lambda a: a.copy() if a.obs.__setitem__("new", 1.0) is None else a,
    "counts as csc": lambda a: a.copy() if a.layers.__setitem__("counts", a.layers["counts"].tocsc()) is None else a,
    ".X, which no step reads": lambda a: a.copy() if setattr(a, "X", a.layers["other"]) is None else a,
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_harmless_changes_no_number(name: str, counts: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = HARMLESS[name](counts.copy())
    with caplog.at_level(logging.WARNING, "dream_sc"):
        table = _of(adata)
        assert "changed" not in caplog.text
    want = ds.get.trans(counts)
    # cells of another order are added up in another order
    np.testing.assert_allclose(table.loc[want.index, NUMBERS], want[NUMBERS], rtol=1e-5, atol=1e-7)


def test_parts_and_other_layers_are_allowed(counts: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "dream_sc"):
        fewer = _of(counts[np.arange(counts.n_obs) % 5 > 0].copy())
        genes = _of(counts[:, counts.var_names[:8]].copy())
        other = _of(counts.copy(), layer="other")
    assert "changed" not in caplog.text
    assert fewer["n_cells"].max() < ds.get.trans(counts)["n_cells"].max()
    assert len(genes) == 8
    assert not np.allclose(other["mean"], ds.get.trans(counts)["mean"])


def test_after_a_concatenation_the_steps_are_called_again(counts: ad.AnnData) -> None:
    both = ad.concat({"a": counts, "b": counts}, index_unique="-")
    for read in (ds.get.trans, ds.get.technical, ds.get.guides, ds.get.summary, ds.pl.volcano, ds.tl.fit_trans):
        with pytest.raises(KeyError, match=r"dream_sc\.tl\.fit_\w+\(.*\) (first|again)"):
            read(both)
    ds.tl.fit_technical(both, batch_key="batch")
    ds.tl.fit_cis(both, GENE)  # the dosages of the parts are replaced
    assert both.obsm["cis"]["x_true"].notna().sum() > counts.obsm["cis"]["x_true"].notna().sum()


def test_there_are_twenty_kinds() -> None:
    assert len(NAMED) + len(HARMLESS) > 20
