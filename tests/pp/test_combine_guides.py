"""Combinations of guides as labels, and guides that are never apart as one column."""

from __future__ import annotations

import logging
from typing import Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")

GUIDES = ["a1", "a2", "a3", "b1", "b2", "n1", "n2", "n3"]
TARGETS = ["A", "A", "A", "B", "B", "NTC", "NTC", "NTC"]


def _cells(*carried: tuple[str, int]) -> ad.AnnData:
    """Cells by what they carry, such as ("a1 a2", 30)."""
    sets = [set(names.split()) for names, n in carried for _ in range(n)]
    out = ad.AnnData(np.ones((len(sets), 2), dtype=np.float32))
    out.obs_names = [f"c{i}" for i in range(len(sets))]
    x = np.array([[6 * (g in s) for g in GUIDES] for s in sets])
    out.obsm["umis"] = pd.DataFrame(x, out.obs_names, GUIDES)
    out.uns["umis_target"] = TARGETS
    return out


def _counts(adata: ad.AnnData, key: str = "guide") -> dict[str, int]:
    return {str(k): int(v) for k, v in adata.obs[key].value_counts().items() if v}


def test_combinations_become_labels() -> None:
    adata = _cells(("a1 a2", 30), ("b1 b2", 25), ("n1 n2", 40), ("", 3))
    ds.pp.combine_guides(adata, "umis")
    assert _counts(adata) == {"a1+a2": 30, "b1+b2": 25, "n1+n2": 40}
    assert _counts(adata, "target") == {"A": 30, "B": 25, "NTC": 40}
    assert adata.obs["guide"].isna().sum() == 3
    assert adata.obs["n_guides"].tolist() == [2] * 95 + [0] * 3


def test_cells_with_one_guide_keep_it() -> None:
    adata = _cells(("a1", 3), ("b1 b2", 25), ("n1", 4))
    ds.pp.combine_guides(adata, "umis")
    assert _counts(adata) == {"a1": 3, "b1+b2": 25, "n1": 4}


def test_rare_combinations_and_several_targets() -> None:
    adata = _cells(("a1 b1", 30), ("a2 b1", 19), ("a3 b2", 6), ("a1 n1", 22), ("n1", 30))
    ds.pp.combine_guides(adata, "umis")
    assert _counts(adata) == {"a1+b1": 30, "a1": 22, "n1": 30}
    assert _counts(adata, "target") == {"A;B": 30, "A": 22, "NTC": 30}
    ds.pp.combine_guides(adata, "umis", min_cells=5, guide_key="g", target_key="t")
    assert _counts(adata, "g") == {"a1+b1": 30, "a3+b2": 6, "a1": 22, "n1": 30}  # a2+b1 shares b1
    assert _counts(adata, "t") == {"A;B": 36, "A": 22, "NTC": 30}


def test_labels_of_one_target_share_no_guide(caplog: pytest.LogCaptureFixture) -> None:
    adata = _cells(("a1 a2", 40), ("a1 a3", 30), ("a2 a3", 25), ("a3", 5), ("n1", 30))
    ds.pp.combine_guides(adata, "umis")
    assert _counts(adata) == {"a1+a2": 40, "a3": 5, "n1": 30}
    assert "55 cells have no label, since their combination shares a guide" in caplog.text


def test_guides_that_were_not_captured(caplog: pytest.LogCaptureFixture) -> None:
    adata = _cells(
        ("a1 a2", 30), ("a1", 9), ("a2", 8), ("b1 b2", 30), ("b2", 2), ("b1 a1", 3), ("n1 n2", 30), ("n2", 7)
    )
    ds.pp.combine_guides(adata, "umis")
    assert _counts(adata) == {"a1+a2": 30, "b1+b2": 30, "n1+n2": 30, "n2": 7}
    assert "pass complete=False" in caplog.text
    ds.pp.combine_guides(adata, "umis", complete=False)
    assert _counts(adata) == {"a1+a2": 47, "b1+b2": 32, "n1+n2": 37}


@pytest.mark.parametrize("capture", [0.5, 0.6, 0.8])
@pytest.mark.parametrize("size", [2, 3])
def test_constructs_go_before_their_parts(capture: float, size: int) -> None:
    names, rng = np.array(["a1", "a2", "a3"][:size]), np.random.default_rng(0)
    seen = [" ".join(names[rng.random(size) < capture]) for _ in range(2000)]
    adata = _cells(*((names, seen.count(names)) for names in sorted(set(seen))), ("b1", 1000), ("n1", 1000))
    with_any = sum(s != "" for s in seen)
    ds.pp.combine_guides(adata, "umis", complete=False)
    assert _counts(adata) == {"+".join(names): with_any, "b1": 1000, "n1": 1000}
    ds.pp.combine_guides(adata, "umis", complete=False, dosage="additive")
    x = pd.DataFrame(adata.obsm["constructs"].toarray(), adata.obs_names, adata.uns["constructs_ids"])
    assert x.sum()["+".join(names)] == with_any


def test_cells_with_a_part_count_towards_the_cells_of_a_construct() -> None:
    adata = _cells(("a1 a2", 8), ("a1", 9), ("a2", 8), ("b1 b2", 4), ("b1", 9), ("b2", 9), ("n1", 30))
    ds.pp.combine_guides(adata, "umis", complete=False)
    assert _counts(adata) == {"a1+a2": 25, "b1": 9, "b2": 9, "n1": 30}
    ds.pp.combine_guides(adata, "umis", complete=False, min_cells=26)
    assert _counts(adata) == {"a1": 9, "a2": 8, "b1": 9, "b2": 9, "n1": 30}


def test_cells_with_two_constructs_leave_their_parts_as_they_are() -> None:
    singles = [(name, 22) for name in ("a1", "a2", "n1", "n2")]
    adata = _cells(("a1 a2", 30), ("n1 n2", 30), *singles, ("a1 a2 n1", 2), ("a1 n2", 3))
    ds.pp.combine_guides(adata, "umis", complete=False)
    assert _counts(adata) == {"a1+a2": 74, "n1+n2": 74}


def test_guides_that_are_no_construct_stay_apart() -> None:
    pairs = _cells(("a1 a2", 40), ("a1 a3", 40), ("a2 a3", 40), ("b1", 60), ("n1", 60))  # all pairs of three guides
    ds.pp.combine_guides(pairs, "umis", complete=False, dosage="additive")
    assert {"a1", "a2", "a3"} < set(pairs.uns["constructs_ids"])
    rng = np.random.default_rng(1)
    sets = [" ".join(g for g in ("a1", "a2", "b1", "n1") if rng.random() < 0.45) for _ in range(1000)]  # by chance
    chance = _cells(*((names, sets.count(names)) for names in sorted(set(sets))))
    ds.pp.combine_guides(chance, "umis", complete=False, dosage="additive")
    assert "a1+a2" not in set(chance.uns["constructs_ids"])


def test_controls_without_a_common_combination_go_by_their_rarest_guide() -> None:
    adata = _cells(("a1 a2", 30), ("n1 n2", 8), ("n1 n3", 7), ("n2 n3", 6))
    ds.pp.combine_guides(adata, "umis")
    assert _counts(adata) == {"a1+a2": 30, "n3": 13, "n2": 8}
    assert _counts(adata, "target") == {"A": 30, "NTC": 21}


def test_other_labels_of_controls() -> None:
    adata = _cells(("a1 a2", 30), ("a1 n1", 25))
    adata.uns["umis_target"] = ["safe" if t == "NTC" else t for t in TARGETS]
    ds.pp.combine_guides(adata, "umis", control="safe")
    assert _counts(adata) == {"a1+a2": 30}
    adata = _cells(("a1 n1", 25), ("n1", 5))
    adata.uns["umis_target"] = ["safe" if t == "NTC" else t for t in TARGETS]
    ds.pp.assign_guides(adata, "umis", combine=True, control=["safe"])
    assert _counts(adata) == {"a1": 25, "n1": 5}


def test_the_order_of_cells_and_guides_does_not_matter() -> None:
    adata = _cells(("a1 a2", 30), ("a1 a3", 30), ("b1 b2", 25), ("n1 n2", 9), ("n2 n3", 9), ("n3", 2))
    other = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    other.obsm["umis"] = other.obsm["umis"][GUIDES[::-1]]
    other.uns["umis_target"] = TARGETS[::-1]
    for each in (adata, other):
        ds.pp.combine_guides(each, "umis")
    pd.testing.assert_series_equal(
        adata.obs["guide"].astype(object), other.obs["guide"].astype(object).reindex(adata.obs_names)
    )


def test_a_matrix_of_constructs() -> None:
    adata = _cells(("a1 a2", 30), ("a1", 2), ("b1", 20), ("b2", 20), ("b1 b2", 10), ("n1 n2", 30))
    ds.pp.combine_guides(adata, "umis", dosage="additive")
    x = pd.DataFrame(adata.obsm["constructs"].toarray(), adata.obs_names, adata.uns["constructs_ids"])
    assert x.sum().to_dict() == {"a1": 2, "a1+a2": 30, "a3": 0, "b1": 30, "b2": 30, "n1+n2": 30, "n3": 0}
    assert dict(zip(x.columns, adata.uns["constructs_target"], strict=True))["a1+a2"] == "A"
    ds.pp.combine_guides(adata, "umis", dosage="additive", complete=False, key_added="whole")
    x = pd.DataFrame(adata.obsm["whole"].toarray(), adata.obs_names, adata.uns["whole_ids"])
    assert x.sum().to_dict() == {"a1+a2": 32, "a3": 0, "b1": 30, "b2": 30, "n1+n2": 30, "n3": 0}


def test_what_cannot_be_is_said() -> None:
    adata = _cells(("a1 a2", 30), ("n1 n2", 30))
    before = set(adata.obs)
    with pytest.raises(ValueError, match=r"key_added='x' has no effect with dosage=\"free\", only with \"additive\""):
        ds.pp.combine_guides(adata, "umis", key_added="x")
    with pytest.raises(ValueError, match="min_cells=3 has no effect"):
        ds.pp.combine_guides(adata, "umis", dosage="additive", min_cells=3)
    with pytest.raises(ValueError, match="dosage='both' is not known"):
        ds.pp.combine_guides(adata, "umis", dosage="both")
    with pytest.raises(ValueError, match=r"no cell gets a label: 60 of 60 have no guide"):
        ds.pp.combine_guides(adata, "umis", min_umis=50)
    with pytest.raises(ValueError, match="control='NTC' has no effect without combine=True"):
        ds.pp.assign_guides(adata, "umis", control="NTC")
    with pytest.raises(ValueError, match=r"0 have none and 60 several.*combine=True.*dream_sc\.pp\.combine_guides"):
        ds.pp.assign_guides(adata, "umis")
    with pytest.raises(ValueError, match="would be lost"):
        ds.pp.combine_guides(adata, "umis", dosage="additive", key_added="umis")
    assert set(adata.obs) == before


def test_a_modality_of_guides() -> None:
    whole = _cells(("a1 a2", 30), ("n1 n2", 30))
    guides = ad.AnnData(whole.obsm["umis"].to_numpy(np.float32), whole.obs[[]], pd.DataFrame(index=GUIDES))
    guides.var["target"] = TARGETS
    rna = ad.AnnData(whole.X, whole.obs[[]].copy())
    data = md.MuData({"rna": rna, "guide": guides})
    ds.pp.assign_guides(data, "guide", mod="rna", combine=True)
    assert _counts(data["rna"]) == {"a1+a2": 30, "n1+n2": 30}


# two guides of each target in every cell, through the three steps


def _pairs(labels: ad.AnnData) -> ad.AnnData:
    """The same screen with two guides in place of each label."""
    out, label = labels.copy(), labels.obs["guide"].astype(str)
    names = sorted(set(label))
    target = labels.obs.drop_duplicates("guide").set_index("guide")["target"]
    one = (label.to_numpy()[:, None] == np.array(names)).astype(int)
    out.obsm["umis"] = pd.DataFrame(np.repeat(one, 2, 1), out.obs_names, [f"{g}{s}" for g in names for s in "xy"])
    out.uns["umis_target"] = [str(target[g]) for g in names for _ in "xy"]
    del out.obs["guide"], out.obs["target"]
    return out


def _fit(adata: ad.AnnData, **options: Any) -> pd.DataFrame:
    ds.tl.fit_technical(adata, **options)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    return ds.get.trans(adata)


def test_two_guides_of_each_target_in_every_cell() -> None:
    labels = ds.datasets.titration(2000, 30, rng=0)
    pairs = _pairs(labels)
    want = _fit(labels)
    assert (want["qvalue"] < 0.05).sum() >= 5
    combined = pairs.copy()
    ds.pp.combine_guides(combined, "umis")
    pd.testing.assert_frame_equal(_fit(combined), want)
    ds.pp.guide_matrix(pairs, "umis")
    pd.testing.assert_frame_equal(_fit(pairs, guides="guides"), want)  # guides that are never apart count as one
    assert set(ds.get.guides(pairs).index) == set(combined.obs["guide"].cat.categories)
    assert pairs.obs["cis_guide"].notna().all()


def test_combinations_that_are_not_one_say_what_to_call(caplog: pytest.LogCaptureFixture) -> None:
    adata = _pairs(ds.datasets.titration(1200, 8, rng=0))
    names, target = adata.obsm["umis"].columns, np.array(adata.uns["umis_target"])
    pool, rng = np.flatnonzero(target == "GFI1B")[:6], np.random.default_rng(0)
    x = adata.obsm["umis"].to_numpy().copy()
    for row in x[(x[:, target == "GFI1B"] > 0).any(1)]:
        row[:] = 0
        row[rng.choice(pool, 2, replace=False)] = 1
    x[:, target == "GFI1B"] = 0
    acting = np.flatnonzero(x.sum(1) == 0)
    for i in acting:
        x[i, rng.choice(pool, 2, replace=False)] = 1
    adata.obsm["umis"] = pd.DataFrame(x, adata.obs_names, names)
    ds.pp.guide_matrix(adata, "umis")
    ds.tl.fit_technical(adata, guides="guides")
    with caplog.at_level(logging.WARNING):
        ds.tl.fit_cis(adata, "GFI1B")
    assert f"{len(acting)} of {len(acting)} targeted cells carry several guides" in caplog.text
    with pytest.raises(
        ValueError, match=rf"each of the {len(acting)} cells .* several.*combine_guides\(data, 'guides'\)"
    ):
        ds.tl.fit_trans(adata, inference="svi")
    ds.tl.fit_trans(adata)  # under the sets of guides
    assert (ds.get.trans(adata)["n_cells"] == adata.n_obs).all()
    ds.pp.combine_guides(adata, "umis")
    acting_labels = adata.obs.loc[adata.obs["target"] == "GFI1B", "guide"].astype(str).unique()
    assert len(acting_labels) == 3  # of six guides
    assert len({g for label in acting_labels for g in label.split("+")}) == 6
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    assert np.isfinite(ds.get.trans(adata)["qvalue"]).any()


def test_cells_with_a_part_of_a_construct_take_no_part() -> None:
    adata = _pairs(ds.datasets.titration(1200, 8, rng=0))
    x, target = adata.obsm["umis"].to_numpy().copy(), np.array(adata.uns["umis_target"])
    first = int(np.flatnonzero(target == "GFI1B")[0])
    lost = np.flatnonzero(x[:, first])[:3]
    x[lost, first] = 0
    adata.obsm["umis"] = pd.DataFrame(x, adata.obs_names, adata.obsm["umis"].columns)
    ds.pp.guide_matrix(adata, "umis")
    ds.tl.fit_technical(adata, guides="guides", use_all_cells=True)
    for group in ("nt_cells", "complement"):
        ds.tl.fit_cis(adata, "GFI1B", control_group=group)
        assert np.flatnonzero(adata.obs["cis_guide"].isna()).tolist() == lost.tolist()
        assert np.flatnonzero(ds.get.cis(adata)["log2_x_true"].isna()).tolist() == lost.tolist()


def test_constructs_that_were_captured_in_part_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    adata = _pairs(ds.datasets.titration(1200, 8, rng=0))
    full, rng = adata.obsm["umis"].copy(), np.random.default_rng(1)
    adata.obsm["umis"] = full * (rng.random(full.shape) < 0.85)  # a pair is then together in 74 %
    ds.pp.guide_matrix(adata, "umis")
    ds.pp.combine_guides(adata, "umis", dosage="additive", complete=False)
    ds.tl.fit_technical(adata, guides="constructs")
    found = {}
    for key in ("constructs", "guides"):
        caplog.clear()
        ds.tl.fit_cis(adata, "GFI1B", guides=key)
        table = ds.get.guides(adata)
        found[key] = table.loc[~table["is_control"].astype(bool), "log2_dosage"]
        assert ("complete=False), and the steps with guides='constructs'" in caplog.text) == (key == "guides")
    truth = adata.uns["titration"]["guides"].query("target == 'GFI1B'")["log2_dosage"]
    np.testing.assert_allclose(found["constructs"].mean(), truth.mean(), atol=0.2)
    assert len(found["guides"]) == 2 * len(found["constructs"])
