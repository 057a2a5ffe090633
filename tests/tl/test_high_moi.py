"""Cells with several guides: dosages that add up, controls, designs that are refused."""

from __future__ import annotations

from typing import Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")

NTC_ONLY = np.isin(np.arange(322), np.arange(12, 22))
MANY = {"guides": "guides", "use_all_cells": True}


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    adata = ds.datasets.high_moi(6000, 40, moi=12, rng=1, n_ntc_guides=30, n_other_guides=60)
    ds.tl.fit_technical(adata, batch_key="batch", **MANY)
    ds.tl.fit_cis(adata, "GFI1B", control_group="complement")
    ds.tl.fit_trans(adata)
    return adata


def test_dosages_add_up(fitted: ad.AnnData) -> None:
    table = ds.get.guides(fitted)
    table = table[~table["is_control"]]
    truth = fitted.uns["titration"]["guides"].set_index("guide")["log2_dosage"].reindex(table.index)
    z = (table["log2_dosage"] - truth) / table["sd"]
    assert abs(z).max() < 4
    assert np.sqrt((z**2).mean()) < 1.6
    cells = ds.get.cis(fitted)
    n = np.asarray(fitted.obsm["guides"][:, :12].sum(1)).ravel()
    several = n > 1
    assert several.sum() > 1000
    assert cells["log2_x_true"].notna().all()
    truth = fitted.obs["true_log2_dosage"]
    error = cells["log2_x_true"] - truth
    assert np.sqrt((error[several] ** 2).mean()) < 0.5
    inside = (cells["log2_q025"] < truth) & (truth < cells["log2_q975"])
    assert 0.92 < inside[several].mean() < 0.98


def test_what_was_used_is_stored(fitted: ad.AnnData) -> None:
    n = np.asarray(fitted.obsm["guides"][:, :12].sum(1)).ravel()
    counted = fitted.uns["cis"]["n_cells"]
    want = {"targeting": (n > 0).sum(), "several_guides": (n > 1).sum(), "control": (n == 0).sum(), "excluded": 0}
    assert counted == want
    of_cell = fitted.obs["cis_guide"]
    assert (of_cell.isna() == (n > 1)).all()
    one = np.flatnonzero(n == 1)
    names = fitted.uns["guides_ids"][fitted.obsm["guides"][one][:, :12].toarray().argmax(1)]
    assert (of_cell.iloc[one].astype(str) == names).all()
    table = ds.get.guides(fitted)
    assert table["is_control"].sum() == 31  # 30 NTC guides, and the cells without
    assert table.loc["complement", "n_cells"] + table[table["target"] == "NTC"]["n_cells"].sum() == (n == 0).sum()
    # a control counts under an NTC guide that it has
    ntc = of_cell[(n == 0) & (of_cell != "complement")]
    column = {g: i for i, g in enumerate(fitted.uns["guides_ids"])}
    rows = fitted.obs_names.get_indexer(ntc.index)
    assert all(fitted.obsm["guides"][r, column[g]] for r, g in zip(rows[:50], ntc[:50], strict=True))


def test_responders_are_found(fitted: ad.AnnData) -> None:
    table, var = ds.get.trans(fitted), fitted.var
    called = table["qvalue"] < 0.05
    null = (var["true_model"] == "null") & (var.index != "GFI1B")
    movers = (var["true_log2fc_range"] >= 1) & (var["true_baseline"] >= 0.5)
    assert (called & null).sum() <= 1
    assert called[movers].mean() > 0.9


def test_cells_with_several_guides_take_part_under_their_set(fitted: ad.AnnData) -> None:
    table, members = fitted.uns["cis"]["guide_sets"], fitted.uns["cis"]["guide_set_members"]
    guides = ds.get.guides(fitted)
    carried = fitted.obsm["guides"][:, :12].toarray() > 0
    several, of_cell = carried.sum(1) > 1, fitted.obs["cis_guide_set"]
    assert not of_cell[~several].notna().any()
    counted = of_cell.value_counts()
    assert (table["n_cells"] == counted.reindex(table["guides"]).to_numpy()).all()
    assert table["n_cells"].min() >= 5
    names = fitted.uns["guides_ids"][:12]
    for cell in np.flatnonzero(of_cell.notna())[:40]:
        assert of_cell.iloc[cell] == "+".join(sorted(names[carried[cell]]))
    of_guides = [[guides.index[i] for i in row if i >= 0] for row in members]
    assert table["guides"].tolist() == ["+".join(g) for g in of_guides]
    want = [guides["log2_dosage"].loc[g].sum() for g in of_guides]
    np.testing.assert_allclose(table["log2_dosage"], want)
    assert (table["sd"] >= [guides["sd"].loc[g].max() for g in of_guides]).all()
    used = (carried.sum(1) <= 1).sum() + of_cell.notna().sum()
    assert ds.get.trans(fitted)["n_cells"].max() == used
    # the table of guides of the trans step is that of guides
    assert fitted.uns["trans"]["guides"]["guide"].tolist() == guides.index.tolist()


def test_draws_with_sets_are_accurate(fitted: ad.AnnData) -> None:
    assert (ds.get.trans(fitted)["pareto_k"] > 0.7).mean() <= 0.05


def test_a_handful_of_cells_in_sets_takes_no_part(fitted: ad.AnnData) -> None:
    n = np.asarray(fitted.obsm["guides"][:, :12].sum(1)).ravel()
    several = np.flatnonzero(fitted.obs["cis_guide_set"].notna())
    with_one = int((n == 1).sum())
    for most, there in ((0.05, False), (0.6, True)):
        cells = np.sort(np.append(np.flatnonzero(n <= 1), several[: int(most * with_one)]))
        adata = fitted[cells, :4].copy()
        ds.tl.fit_cis(adata, "GFI1B", control_group="complement", min_cells_per_guide=2)
        assert ("guide_sets" in adata.uns["cis"]) == there
        # nor is what an earlier fit has left there
        assert ("cis_guide_set" in adata.obs) == there


def test_sets_that_are_not_whole_are_refused(fitted: ad.AnnData) -> None:
    adata = fitted[:, :4].copy()
    column, uns = adata.obs.pop("cis_guide_set"), adata.uns["cis"]
    with pytest.raises(KeyError, match=r"cis_guide_set.*fit_cis again"):
        ds.tl.fit_trans(adata)
    adata.obs["cis_guide_set"], members = column, uns.pop("guide_set_members")
    with pytest.raises(ValueError, match=r"guides of 0 are in 'guide_set_members'; call dream_sc.tl.fit_cis again"):
        ds.tl.fit_trans(adata)
    uns["guide_set_members"], uns["guide_sets"] = members, uns["guide_sets"].iloc[:3]
    with pytest.raises(ValueError, match=r"3 are in its table 'guide_sets'"):
        ds.tl.fit_trans(adata)


def test_a_fit_with_sets_is_not_calibrated(fitted: ad.AnnData) -> None:
    with pytest.raises(ValueError, match=r"cannot be regrouped.*take 'guide_sets' out of .uns\['cis'\]"):
        ds.tl.calibrate(fitted, n=1, copy=True)


def test_sets_of_combinations_have_names_of_their_own() -> None:
    """Guides may be constructs already, with the sign of a set in their names."""
    adata = ds.datasets.high_moi(1500, 5, moi=3, rng=0, n_guides=4, n_ntc_guides=6, n_other_guides=0)
    adata.uns["guides_ids"] = np.array(["a", "b+c", "a+b", "c", *adata.uns["guides_ids"][4:]])
    ds.tl.fit_technical(adata, **MANY)
    ds.tl.fit_cis(adata, "GFI1B", control_group="complement")
    names = adata.uns["cis"]["guide_sets"]["guides"].tolist()
    assert {"a+(b+c)", "(a+b)+c"} <= set(names)
    assert len(set(names)) == len(names)


def test_engines_without_sets_take_cells_with_one_guide(fitted: ad.AnnData) -> None:
    adata = fitted[:, :4].copy()
    n = np.asarray(fitted.obsm["guides"][:, :12].sum(1)).ravel()
    ds.tl.fit_trans(adata, inference="svi", niters=20, nsamples=20, features="gene_0001", function_type="single_hill")
    assert ds.get.trans(adata).loc["gene_0001", "n_cells"] == (n <= 1).sum()


def test_one_guide_per_cell_is_the_same_either_way() -> None:
    labels = ds.datasets.titration(1500, 30, rng=0)
    matrix = labels.copy()
    matrix.obsm["g"] = pd.get_dummies(labels.obs["guide"].astype(str)).astype(int)
    target = labels.obs.drop_duplicates("guide").set_index("guide")["target"]
    matrix.uns["g_target"] = [target[g] for g in matrix.obsm["g"].columns]
    del matrix.obs["guide"], matrix.obs["target"]
    ds.tl.fit_technical(labels, batch_key="batch")
    ds.tl.fit_technical(matrix, batch_key="batch", guides="g")
    pd.testing.assert_frame_equal(labels.varm["technical"], matrix.varm["technical"])
    for each in (labels, matrix):
        ds.tl.fit_cis(each, "GFI1B")
        ds.tl.fit_trans(each)
        assert "guide_sets" not in each.uns["cis"]
        assert "cis_guide_set" not in each.obs
    pd.testing.assert_frame_equal(ds.get.guides(labels), ds.get.guides(matrix))
    pd.testing.assert_frame_equal(labels.varm["trans"], matrix.varm["trans"])


def test_a_modality_of_guides_with_other_cells() -> None:
    adata = ds.datasets.high_moi(1500, 10, moi=4, rng=0, n_ntc_guides=10, n_other_guides=20)
    order = np.random.default_rng(0).permutation(1400)
    other = ad.AnnData(adata.obsm["guides"][order].astype(np.float32), pd.DataFrame(index=adata.obs_names[order]))
    other.var_names = adata.uns["guides_ids"]
    other.var["target"] = adata.uns["guides_target"]
    whole, part = adata.copy(), md.MuData({"rna": adata[:, :].copy(), "guide": other})
    whole.obsm["guides"] = _only(whole.obsm["guides"], np.arange(1500) < 1400)
    ds.tl.fit_technical(whole, **MANY)
    ds.tl.fit_cis(whole, "GFI1B", control_group="complement")
    ds.tl.fit_technical(part, mod="rna", guides="guide", use_all_cells=True)
    ds.tl.fit_cis(part, "GFI1B", mod="rna", control_group="complement")
    pd.testing.assert_frame_equal(ds.get.guides(whole), ds.get.guides(part, mod="rna"))


def test_a_guide_with_several_targets_acts_on_each() -> None:
    adata = ds.datasets.high_moi(1500, 10, moi=4, rng=0, n_ntc_guides=10, n_other_guides=20)
    adata.uns["guides_target"] = adata.uns["guides_target"].astype(object)
    adata.uns["guides_target"][:3] = "other;GFI1B"
    ds.tl.fit_technical(adata, **MANY)
    ds.tl.fit_cis(adata, "GFI1B", control_group="complement")
    table = ds.get.guides(adata)
    assert (~table["is_control"]).sum() == 12
    assert table["target"].iloc[0] == "other;GFI1B"


def test_guides_whose_cells_all_have_one_that_is_left_out() -> None:
    adata = _small()
    x = adata.obsm["guides"].toarray()
    few = np.flatnonzero(x[:, 0])[:3]
    x[np.setdiff1d(np.arange(800), few), 0] = 0  # three cells carry the first guide
    x[:, 1] = x[:, 0]  # the second is seen beside it only
    x[few, 1:12] = 0
    x[few, 1] = 1
    more = np.flatnonzero(x[:, 12:].any(1) & ~x[:, :12].any(1))[:4]
    x[more, 1] = 1  # and in too few cells without
    adata.obsm["guides"] = sparse.csr_matrix(x)
    ds.tl.fit_technical(adata, **MANY)
    ds.tl.fit_cis(adata, "GFI1B", control_group="complement")
    table, names = ds.get.guides(adata), adata.uns["guides_ids"]
    assert not set(names[:2]) & set(table.index)
    assert set(names[2:12]) <= set(table.index)
    carried = x[:, 2:12][~x[:, :2].any(1)]
    assert table["n_cells"].reindex(names[2:12]).tolist() == carried.sum(0).tolist()
    cells = ds.get.cis(adata)["log2_x_true"].isna().to_numpy()
    assert np.flatnonzero(cells & x[:, :12].any(1)).tolist() == sorted([*few, *more])


def test_a_modality_that_has_the_name_of_what_is_stored() -> None:
    rna = _small()
    umis = rna.obsm["guides"].toarray().astype(np.float32) * 5
    umis[0, 0] = 1.0  # of the surroundings
    raw = ad.AnnData(sparse.csr_matrix(umis), pd.DataFrame(index=rna.obs_names))
    raw.var_names, raw.var["target"] = rna.uns["guides_ids"], rna.uns["guides_target"]
    del rna.obsm["guides"], rna.uns["guides_ids"], rna.uns["guides_target"]
    data = md.MuData({"rna": rna, "guides": raw})
    ds.pp.guide_matrix(data, "guides", mod="rna", min_umis=2)
    ds.pp.guide_matrix(data, "guides", mod="rna", min_umis=2)  # from the modality again
    assert data["rna"].obsm["guides"][0, 0] == 0
    ds.tl.fit_technical(data, mod="rna", **MANY)
    ds.tl.fit_cis(data, "GFI1B", mod="rna", control_group="complement")
    alone = data["rna"].copy()
    ds.tl.fit_cis(alone, "GFI1B", control_group="complement", key_added="again")
    pd.testing.assert_frame_equal(ds.get.guides(alone, key="again"), ds.get.guides(data, mod="rna"))


def test_labels_in_spite_of_a_technical_fit_with_a_matrix() -> None:
    adata = _small(moi=1)
    carried = adata.obsm["guides"]
    one = np.diff(carried.indptr) == 1
    first = np.minimum(carried.indptr[:-1], carried.nnz - 1)
    for column, names in (("guide", adata.uns["guides_ids"]), ("target", adata.uns["guides_target"])):
        adata.obs[column] = pd.Categorical(np.where(one, np.asarray(names)[carried.indices[first]], None))
    ds.tl.fit_technical(adata, guides="guides")
    ds.tl.fit_cis(adata, "GFI1B", guides=False, min_cells_per_guide=1)
    assert adata.uns["cis"]["params"]["guides"] is None
    labelled = adata.obs["guide"].notna() & adata.obs["target"].isin(["GFI1B", "NTC"])
    assert ds.get.cis(adata)["log2_x_true"].notna().sum() == labelled.sum()


def test_guides_taken_apart_by_the_groups_do_not_follow_them() -> None:
    adata = ds.datasets.high_moi(2000, 10, moi=4, rng=0, n_ntc_guides=10, n_other_guides=10)
    ds.tl.fit_technical(adata, batch_key="batch", **MANY)
    ds.tl.fit_cis(adata, "GFI1B", control_group="complement", guide_covariate_key="batch")
    assert (~ds.get.guides(adata)["is_control"]).sum() == 24


def test_two_cis_genes_side_by_side() -> None:
    adata = _small(moi=3)
    targets = np.array(adata.uns["guides_target"], dtype=object)
    other = adata.var_names[3]
    targets[np.flatnonzero(targets == "GFI1B")[6:]] = other
    adata.uns["guides_target"] = targets
    ds.tl.fit_technical(adata, **MANY)
    for gene in ("GFI1B", other):
        ds.tl.fit_cis(adata, gene, control_group="complement", key_added=f"cis_{gene}")
        keys = {"cis_key": f"cis_{gene}", "key_added": f"trans_{gene}"}
        ds.tl.fit_trans(adata, **keys, function_type="single_hill", nsamples=50)
    for gene, lacks in (("GFI1B", other), (other, "GFI1B")):
        table = ds.get.guides(adata, key=f"cis_{gene}")
        assert set(table["target"][~table["is_control"]]) == {gene}
        trans = ds.get.trans(adata, key=f"trans_{gene}")
        assert trans.loc[gene, "status"] != "fitted"
        assert np.isfinite(trans.loc[lacks, "qvalue"])
    checked = ds.tl.check_confounding(adata, cis_key=f"cis_{other}")
    assert len(checked)


def test_labels_of_controls_that_no_guide_has() -> None:
    adata = _small()
    for control, match in (("ntc", "did you mean"), (["NTC", "nope"], "targets 'nope'")):
        with pytest.raises(ValueError, match=match):
            ds.tl.fit_technical(adata, **MANY, control=control)
    ds.tl.fit_technical(adata, **MANY)
    with pytest.raises(ValueError, match="no guide of 'guides' targets 'xyz'"):
        ds.tl.fit_cis(adata, "GFI1B", control="xyz", control_group="complement")
    adata.uns["guides_target"] = np.where(adata.uns["guides_target"] == "NTC", "safe", adata.uns["guides_target"])
    ds.tl.fit_technical(adata, **MANY)  # a screen without NTC guides
    adata.uns["guides_target"] = np.where(adata.uns["guides_target"] == "safe", "NTS", adata.uns["guides_target"])
    ds.tl.fit_technical(adata, **MANY)  # nor is a gene of a name that is alike a misspelled one


def test_targets_go_by_the_names_of_guides() -> None:
    adata = _small()
    ds.tl.fit_technical(adata, **MANY)
    ds.tl.fit_cis(adata, "GFI1B", control_group="complement")
    want = ds.get.guides(adata)
    frame = pd.DataFrame(adata.obsm["guides"].toarray(), adata.obs_names, adata.uns["guides_ids"])
    adata.obsm["guides"] = frame[sorted(frame.columns, reverse=True)]
    ds.tl.fit_technical(adata, **MANY)
    ds.tl.fit_cis(adata, "GFI1B", control_group="complement")
    got = ds.get.guides(adata)
    mine = want.index[~want["is_control"]]
    assert set(got.index[~got["is_control"]]) == set(mine)
    np.testing.assert_allclose(got.loc[mine, "log2_dosage"], want.loc[mine, "log2_dosage"], atol=0.1)
    adata.obsm["guides"] = frame.rename(columns={frame.columns[0]: "another"})
    with pytest.raises(ValueError, match="name different guides"):
        ds.tl.fit_technical(adata, **MANY)


def _small(**changes: Any) -> ad.AnnData:
    return ds.datasets.high_moi(800, 8, rng=0, **({"moi": 4, "n_ntc_guides": 10, "n_other_guides": 20} | changes))


def test_designs_without_controls_are_refused() -> None:
    adata = _small(moi=20)
    with pytest.raises(ValueError, match=r"no cell has NTC guides only: 10 of 42 guides .* use_all_cells=True"):
        ds.tl.fit_technical(adata, guides="guides")
    ds.tl.fit_technical(adata, **MANY)
    with pytest.raises(ValueError, match=r"none NTC guides only\. Take control_group='complement'"):
        ds.tl.fit_cis(adata, "GFI1B")
    with pytest.raises(ValueError, match="no guide of 'guides' targets"):
        ds.tl.fit_cis(adata, "GFI1B", cis_targets="nothing", control_group="complement")
    with pytest.raises(ValueError, match="control_group"):
        ds.tl.fit_cis(adata, "GFI1B", control_group="all")
    everywhere = _small()
    everywhere.uns["guides_target"][:] = "GFI1B"
    everywhere.obsm["guides"] = sparse.hstack([np.ones((800, 1), np.int8), everywhere.obsm["guides"][:, 1:]], "csr")
    ds.tl.fit_technical(everywhere, **MANY)
    with pytest.raises(ValueError, match="no cell is a control: of 800 cells, 800 carry"):
        ds.tl.fit_cis(everywhere, "GFI1B", control_group="complement")
    labels = ds.datasets.titration(800, 8, rng=0)
    ds.tl.fit_technical(labels)
    with pytest.raises(ValueError, match="is for cells with several guides"):
        ds.tl.fit_cis(labels, "GFI1B", control_group="complement")
    with pytest.raises(TypeError, match=r"pp\.guide_matrix"):
        ds.tl.fit_technical(adata, guides=adata.obsm["guides"])
    assert "cis" not in labels.uns


def test_groups_that_follow_guides_are_refused() -> None:
    adata = _small(n_other_guides=300, moi=30)
    first = np.asarray(adata.obsm["guides"][:, :6].sum(1)).ravel() > 0
    second = np.asarray(adata.obsm["guides"][:, 6:12].sum(1)).ravel() > 0
    draw = np.random.default_rng(0).random(800) < 0.5
    adata.obs["lane"] = np.where(first & ~second, "a", np.where(second & ~first, "b", np.where(draw, "a", "b")))
    ds.tl.fit_technical(adata, batch_key="lane", **MANY)
    with pytest.raises(ValueError, match="follows the guides of the cis gene: Cramér's V"):
        ds.tl.fit_cis(adata, "GFI1B", control_group="complement")
    adata.obs["lane"] = np.where(first | second, "a", np.where(draw, "a", "b"))
    ds.tl.fit_technical(adata, batch_key="lane", **MANY)
    with pytest.raises(ValueError, match="follows whether a cell is targeted"):
        ds.tl.fit_cis(adata, "GFI1B", control_group="complement")
    ntc = np.arange(800) < 400
    adata.obsm["guides"] = _only(adata.obsm["guides"], np.where(ntc[:, None], NTC_ONLY, ~NTC_ONLY))
    adata.obs["lane"] = np.where(ntc, "a", "b")
    with pytest.raises(ValueError, match=r"follows the guides of 'guides': Cramér's V"):
        ds.tl.fit_technical(adata, batch_key="lane", **MANY)


def _only(guides: Any, keep: np.ndarray) -> Any:
    """A matrix of guides without some cells or entries."""
    out = guides.multiply(keep if keep.ndim > 1 else keep[:, None]).tocsr()
    out.eliminate_zeros()
    return out


def test_files_keep_it(fitted: ad.AnnData, tmp_path: Any) -> None:
    fitted.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(ds.get.guides(again), ds.get.guides(fitted))
    ds.tl.fit_cis(again, "GFI1B", control_group="complement")
    pd.testing.assert_frame_equal(ds.get.guides(again), ds.get.guides(fitted))
    assert ds.pl.cis(again) is not None
    assert ds.pl.dose_response(again, again.var_names[1]) is not None
