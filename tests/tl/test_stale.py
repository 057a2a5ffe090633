"""Steps refuse what was made from other things than are there now; tables say in the log that they are old."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anndata as ad
import mudata as md
import numpy as np
import pytest

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")

GENE = "GFI1B"


@pytest.fixture(scope="module")
def technical() -> ad.AnnData:
    adata = ds.datasets.titration(1200, 60, rng=3)
    adata.layers["counts"] = adata.X.copy()
    ds.pp.size_factors(adata)
    adata.obs["percent"] = np.random.default_rng(0).uniform(size=adata.n_obs)
    ds.tl.fit_technical(adata, batch_key="batch", covariates=["percent"], layer="counts")
    return adata


@pytest.fixture(scope="module")
def cis(technical: ad.AnnData) -> ad.AnnData:
    return ds.tl.fit_cis(technical, GENE, copy=True)


@pytest.fixture(scope="module")
def fitted(cis: ad.AnnData) -> ad.AnnData:
    return ds.tl.fit_trans(cis, copy=True)


def size_factors(a: ad.AnnData) -> None:
    a.obs["size_factor"] *= 1.1


def size_factors_of_targeted_cells(a: ad.AnnData) -> None:
    a.obs.loc[a.obs["target"] == GENE, "size_factor"] *= 1.1


def names_of_genes(a: ad.AnnData) -> None:
    a.var_names = [f"ENS{i}" if name != GENE else name for i, name in enumerate(a.var_names)]


def swapped_names(a: ad.AnnData) -> None:
    names = list(a.var_names)
    names[-1] = "another"
    a.var_names = names


def batches(a: ad.AnnData) -> None:
    other = {"batch_1": "batch_2", "batch_2": "batch_1"}
    a.obs["batch"] = a.obs["batch"].astype(str).map(lambda b: other.get(b, b)).astype("category")


def controls(a: ad.AnnData) -> None:
    some = a.obs["guide"].astype(str) == "NTC_01"
    a.obs["target"] = a.obs["target"].astype(str).mask(some, "safe")


def guides(a: ad.AnnData) -> None:
    a.obs["guide"] = a.obs["guide"].astype(str).replace({f"{GENE}_g01": f"{GENE}_g02"})


def targets(a: ad.AnnData) -> None:
    a.obs["target"] = a.obs["target"].astype(str).replace({GENE: "promoter"})


def covariate(a: ad.AnnData) -> None:
    a.obs["percent"] = a.obs["percent"].to_numpy()[::-1]


def counts(a: ad.AnnData) -> None:
    a.layers["counts"] = a.layers["counts"].multiply(2).tocsr()


def technical_again(a: ad.AnnData) -> None:
    ds.tl.fit_technical(a, layer="counts")


BEFORE_CIS = [size_factors, names_of_genes, swapped_names, batches, controls, covariate, counts]
BEFORE_TRANS = [*BEFORE_CIS, size_factors_of_targeted_cells, guides, targets, technical_again]


def _call(change: Callable[[ad.AnnData], None]) -> str:
    ours = (size_factors_of_targeted_cells, guides, targets, technical_again)
    return "call dream_sc.tl.fit_cis again" if change in ours else "call dream_sc.tl.fit_technical again"


WHAT = {
    size_factors: r"\.obs\['size_factor'\]",
    size_factors_of_targeted_cells: r"\.obs\['size_factor'\]",
    names_of_genes: "names of features",
    swapped_names: "names of features",
    batches: r"\.obs\['batch'\]",
    controls: r"\.obs\['target'\]",
    guides: r"\.obs\['guide'\]",
    targets: r"\.obs\['target'\]",
    covariate: r"\.obs\['percent'\]",
    counts: r"counts of \.layers\['counts'\]",
    technical_again: r"\.uns\['technical'\] was made again",
}


@pytest.mark.parametrize("change", BEFORE_CIS, ids=lambda f: f.__name__)
def test_the_cis_step_refuses_a_stale_technical_fit(technical: ad.AnnData, change: Callable[[Any], None]) -> None:
    adata = technical.copy()
    change(adata)
    with pytest.raises(ValueError, match=rf"tl\.fit_cis: .*{WHAT[change]}.*call dream_sc\.tl\.fit_technical again"):
        ds.tl.fit_cis(adata, GENE)
    assert "cis" not in adata.uns


@pytest.mark.parametrize("change", BEFORE_TRANS, ids=lambda f: f.__name__)
def test_the_trans_step_refuses_stale_fits(cis: ad.AnnData, change: Callable[[Any], None]) -> None:
    adata = cis.copy()
    change(adata)
    with pytest.raises(ValueError, match=rf"tl\.fit_trans: .*{WHAT[change]}.*{_call(change)}"):
        ds.tl.fit_trans(adata)
    assert "trans" not in adata.uns


def test_what_changes_nothing_is_no_change(technical: ad.AnnData, cis: ad.AnnData, tmp_path: Any) -> None:
    """Parts, orders, files, other columns, and the same fit once more."""
    again = cis.copy()
    ds.tl.fit_technical(again, batch_key="batch", covariates=["percent"], layer="counts")
    again.obs["new"], again.obs["size_factor"] = 1.0, again.obs["size_factor"].astype(np.float32)
    again.X = again.X.tocsc()
    order = np.random.default_rng(1).permutation(again.n_obs)
    part = again[order[:900]].copy()[:, list(again.var_names[::-1])].copy()
    part.write_h5ad(tmp_path / "part.h5ad")
    read = ad.read_h5ad(tmp_path / "part.h5ad")
    part.obs_names = [f"run1_{name}" for name in part.obs_names]
    for adata in (read, part, again[:, :40].copy()):
        ds.tl.fit_trans(adata, function_type="single_hill", features=list(adata.var_names[:3]))
        assert adata.uns["trans"]["made_from"]["steps"] == {key: cis.uns[key]["id"] for key in ("technical", "cis")}


def test_refitted_size_factors_leave_the_technical_fit(cis: ad.AnnData) -> None:
    adata = ds.pp.refit_size_factors(cis, copy=True)
    with pytest.raises(ValueError, match=r"size_factor.*call dream_sc\.tl\.fit_cis again"):
        ds.tl.fit_trans(adata)
    ds.tl.fit_cis(adata, GENE)
    assert adata.uns["cis"]["id"] != cis.uns["cis"]["id"]
    assert adata.uns["cis"]["made_from"]["steps"] == {"technical": cis.uns["technical"]["id"]}


@pytest.mark.parametrize("step", ["technical", "cis"])
def test_tables_of_an_earlier_fit_say_so(fitted: ad.AnnData, step: str, caplog: pytest.LogCaptureFixture) -> None:
    adata = fitted.copy()
    with caplog.at_level(logging.WARNING, "dream_sc"):
        ds.get.trans(adata)
        ds.pl.dose_response(adata, adata.var_names[3])
        assert not caplog.records
    technical_again(adata) if step == "technical" else ds.tl.fit_cis(adata, GENE, guide_offsets=False)
    for read in (ds.get.trans, lambda a: ds.get.dose_response(a, a.var_names[3])):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "dream_sc"):
            read(adata)
        assert f".uns['trans'] was made with an earlier .uns['{step}'] than is there now" in caplog.text
        assert "call dream_sc.tl.fit_trans again" in caplog.text


def test_modalities_have_fits_of_their_own(cis: ad.AnnData) -> None:
    """The cis fit of one modality, features of another."""
    other = cis[:, :20].copy()
    for slot in (other.uns, other.obsm, other.varm):
        slot.clear()
    other.var_names = [f"other_{name}" for name in other.var_names]
    both = md.MuData({"rna": cis.copy(), "other": other})
    ds.tl.fit_technical(both, mod="other", layer="counts")
    ds.tl.fit_trans(both, mod="other", cis_mod="rna")
    assert both["other"].uns["trans"]["made_from"]["steps"]["cis"] == cis.uns["cis"]["id"]
    both["rna"].obs["guide"] = both["rna"].obs["guide"].astype(str).to_numpy()[::-1]
    with pytest.raises(ValueError, match=r"\.obs\['guide'\].*call dream_sc\.tl\.fit_cis again"):
        ds.tl.fit_trans(both, mod="other", cis_mod="rna")


def test_results_without_a_record_are_taken_as_they_are(cis: ad.AnnData) -> None:
    """Of an earlier version."""
    adata = cis.copy()
    for key in ("technical", "cis"):
        for name in ("id", "made_from"):
            del adata.uns[key][name]
    size_factors(adata)
    ds.tl.fit_trans(adata, features=list(adata.var_names[:3]))
    assert adata.uns["trans"]["made_from"]["steps"] == {}


def test_what_reads_counts_again_says_that_they_changed(fitted: ad.AnnData, caplog: pytest.LogCaptureFixture) -> None:
    adata = fitted.copy()
    size_factors_of_targeted_cells(adata)
    with caplog.at_level(logging.WARNING, "dream_sc"):
        ds.get.guide_effects(adata, adata.var_names[3])
    assert ".obs['size_factor'] changed since the fits" in caplog.text
