"""The trans step on single cells by variational inference, and progress of the cis step."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")

SVI = {"inference": "svi", "niters": 600, "nsamples": 200, "device": "cpu", "function_type": "single_hill"}


@pytest.fixture(scope="module")
def ready() -> ad.AnnData:
    adata = ds.datasets.titration(1500, 30, rng=0)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, function_type="single_hill")
    return adata


def test_single_cells_say_what_their_sums_say(ready: ad.AnnData) -> None:
    table = ds.get.trans(ready)
    clear = table[(table["qvalue"] < 0.01) & (table["mean"] > 1)].index[:3].tolist()
    assert len(clear) == 3
    ds.tl.fit_trans(ready, **SVI, features=clear, minibatch_size=400, key_added="cells")
    ds.tl.fit_trans(ready, **SVI, features=clear, minibatch_size=10_000, key_added="every")  # all cells in each step
    for key in ("cells", "every"):
        found, want = ds.get.trans(ready, key=key).loc[clear], table.loc[clear]
        np.testing.assert_allclose(found["lfdr"], want["lfdr"], rtol=1e-9)  # calls are the fast engine's
        width = (want["log2fc_full_q975"] - want["log2fc_full_q025"]).max()
        assert (found["log2fc_full"] - want["log2fc_full"]).abs().max() < 0.5 * width
        assert (found["baseline"] / want["baseline"] - 1).abs().max() < 0.15
    assert ready.uns["cells"]["params"]["minibatch_size"] == 400
    how = {"minibatch_size": 400, "hyper": ready.uns["cells"]["hyper"]}
    alone = ds.tl.fit_trans(ready, **SVI, **how, features=clear[1], copy=True)
    one, both = ds.get.trans(alone).loc[clear[1]], ds.get.trans(ready, key="cells").loc[clear[1]]
    np.testing.assert_allclose(one["log2_ec50"], both["log2_ec50"], rtol=1e-6)  # whatever else is in its block


@pytest.mark.parametrize("kind", ["additive_hill", "polynomial"])
def test_other_curves_of_single_cells(ready: ad.AnnData, kind: str) -> None:
    options = {"function_type": kind, "features": ready.var_names[3:6].tolist(), "copy": True}
    fast = ds.tl.fit_trans(ready, **options).varm["trans"]
    cells = ds.tl.fit_trans(ready, **SVI | options | {"niters": 350}, minibatch_size=500).varm["trans"]
    some = fast.index[fast["log2fc_full"].notna()]
    assert len(some) == 3
    assert (cells["log2fc_full"] - fast["log2fc_full"])[some].abs().max() < 1.0


def test_what_is_not_offered(ready: ad.AnnData) -> None:
    for options, match in (
        ({"minibatch_size": 100}, 'has no effect with inference="laplace", only with "svi"'),
        (SVI | {"minibatch_size": 0}, "minibatch_size"),
    ):
        with pytest.raises(ValueError, match=match):
            ds.tl.fit_trans(ready, **options, key_added="wrong")
    adata = ready[:, :10].copy()
    adata.obs["depth"] = np.random.default_rng(0).normal(size=adata.n_obs)
    ds.tl.fit_technical(adata, batch_key="batch", covariates="depth")
    with pytest.raises(ValueError, match="covariates of the technical fit are not offered"):
        ds.tl.fit_trans(adata, **SVI, minibatch_size=100)
    assert "wrong" not in ready.uns


@pytest.mark.parametrize("options", [{}, {"inference": "svi", "niters": 30, "nsamples": 20}])
def test_the_cis_step_shows_its_progress(ready: ad.AnnData, capsys: pytest.CaptureFixture[str], options: dict) -> None:
    ds.tl.fit_cis(ready, "GFI1B", progress=True, key_added="again", **options)
    assert "dosage of GFI1B" in capsys.readouterr().err
    ds.tl.fit_cis(ready, "GFI1B", progress=False, key_added="again", **options)
    assert "dosage of GFI1B" not in capsys.readouterr().err
