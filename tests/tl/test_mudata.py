"""The three steps on a MuData: modalities by name, cells matched by name, the file format."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mudata as md
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("few_null_features")

CATEGORIES = ["model", "class", "status", "note", "confidence"]


@pytest.fixture(scope="module")
def pair() -> tuple[md.MuData, pd.DataFrame]:
    """A MuData whose modality "other" has some of the genes, and fewer cells in another order; and the plain result."""
    rna = ds.datasets.titration(700, 12, rng=2, mean_range=(0.0, 4.0))
    other = rna[np.random.default_rng(0).permutation(700)[:600], rna.var_names[4:]].copy()
    other.var_names = [f"o_{n}" for n in other.var_names]
    plain = rna.copy()
    ds.tl.fit_technical(plain, batch_key="batch")
    ds.tl.fit_cis(plain, "GFI1B")
    ds.tl.fit_trans(plain)
    both = md.MuData({"rna": rna, "other": other})
    for mod in ("rna", "other"):
        ds.tl.fit_technical(both, mod=mod, batch_key="batch")
    ds.tl.fit_cis(both, "GFI1B", mod="rna")
    ds.tl.fit_trans(both, mod="rna")
    ds.tl.fit_trans(both, mod="other", cis_mod="rna")
    return both, ds.get.trans(plain)


def _text(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype(dict.fromkeys(CATEGORIES, str))


def test_a_modality_gives_what_an_anndata_gives(pair: tuple[md.MuData, pd.DataFrame]) -> None:
    both, plain = pair
    pd.testing.assert_frame_equal(_text(ds.get.trans(both, mod="rna")), _text(plain), check_exact=False)
    assert "cis" in both.mod["rna"].uns
    assert "cis" not in both.mod["other"].uns


def test_another_modality_is_matched_by_name(pair: tuple[md.MuData, pd.DataFrame]) -> None:
    both, plain = pair
    table = ds.get.trans(both, mod="other")
    same = plain.loc[[n[2:] for n in table.index]]
    assert (table["n_cells"] == 600).all()
    difference = (table["log2fc_full"].to_numpy() - same["log2fc_full"].to_numpy())[same["lfdr"] < 0.01]
    assert np.abs(difference).max() < 0.5
    curve = ds.get.dose_response(both, table.index[0], mod="other")
    assert len(curve) == 101
    assert ds.pl.dose_response(both, table.index[0], mod="other").get_title()


def test_h5mu_round_trip(pair: tuple[md.MuData, pd.DataFrame], tmp_path: Path) -> None:
    both, _ = pair
    both.write(tmp_path / "a.h5mu")
    again = md.read_h5mu(tmp_path / "a.h5mu")
    for mod in ("rna", "other"):
        pd.testing.assert_frame_equal(ds.get.trans(again, mod=mod), ds.get.trans(both, mod=mod))


def test_modalities_have_to_be_named(pair: tuple[md.MuData, pd.DataFrame]) -> None:
    both, _ = pair
    with pytest.raises(ValueError, match="rna"):
        ds.tl.fit_trans(both)
    with pytest.raises(KeyError, match="rna"):
        ds.tl.fit_trans(both, mod="RNA")
    with pytest.raises(KeyError, match="fit_cis"):
        ds.tl.fit_trans(both, mod="other")
