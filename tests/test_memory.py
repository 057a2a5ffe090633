"""Estimates of memory: sizes from data, bad input, advice; and what fits store."""

from __future__ import annotations

import pickle

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc._cli.main import main
from dream_sc._memory.table import IMPORTS

pytestmark = pytest.mark.usefixtures("few_null_features")

STEPS = ["fit_technical", "fit_cis", "fit_trans"]


@pytest.fixture(scope="module")
def titration():
    return ds.datasets.titration(600, 60, rng=1)


def total(estimate, step="fit_trans", kind="RAM"):
    rows = estimate[(estimate["step"] == step) & (estimate["component"] == "total")]
    return int(rows[kind].iloc[0])


def test_a_total_for_each_step_is_the_sum_of_its_components():
    e = ds.memory.estimate(2000, 5000)
    assert list(e.loc[e["component"] == "total", "step"]) == STEPS
    for step in STEPS:
        parts = e[(e["step"] == step) & (e["component"] != "total")]
        assert total(e, step) == pytest.approx(parts["RAM"].sum(), abs=len(parts))
        assert set(parts["component"]) >= {"imports", "counts", "size factors", "guide assignment"}
    assert total(e) > IMPORTS["laplace"]["fit_trans"] + e.sizes.matrix


def test_counts_are_values_and_indices():
    e = ds.memory.estimate(30_000, 50_000, sparsity=0.85)
    counts = e[(e["step"] == "fit_trans") & (e["component"] == "counts")]["RAM"].iloc[0]
    assert counts == pytest.approx(30_000 * 50_000 * 0.15 * 8, rel=1e-3)
    dense = ds.memory.estimate(30_000, 50_000, storage="dense")
    assert dense[dense["component"] == "counts"]["RAM"].iloc[0] == 30_000 * 50_000 * 4
    backed = ds.memory.estimate(30_000, 50_000, storage="backed")
    assert "counts" not in set(backed[backed["RAM"] > 0]["component"])


@pytest.mark.parametrize(
    "change",
    [
        {"n_features": 4000},
        {"n_cells": 20_000},
        {"n_guides": 400},
        {"n_groups": 4},
        {"sparsity": 0.5},
        {"distribution": "binomial"},
        {"distribution": "multinomial"},
        {"storage": "dense"},
        {"nsamples": 5000, "inference": "svi"},
    ],
)
def test_more_of_anything_takes_more(change):
    base = {"n_features": 2000, "n_cells": 10_000, "autoguide": "AutoNormal"}
    if "inference" in change:
        base["inference"] = "svi"
    before, after = (ds.memory.estimate(**options).peak()[0] for options in (base, base | change))
    assert after > before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_features": 0}, "n_features=0 is not allowed"),
        ({"n_cells": -5}, "n_cells=-5"),
        ({"n_cells": 2.5}, "n_cells=2.5"),
        ({"sparsity": 1.5}, "share of zeros, from 0 to 1"),
        ({"sparsity": -0.1}, "share of zeros"),
        ({"sparsity": float("nan")}, "finite number"),
        ({"distribution": "poisson"}, "distribution='poisson' is not known"),
        ({"inference": "mcmc"}, "inference='mcmc'"),
        ({"n_ntc_cells": 200}, "n_ntc_cells=200 is more than n_cells=100"),
        ({"device": "tpu"}, "device='tpu'"),
        ({"n_categories": 5}, 'n_categories=5 is for distribution="multinomial"'),
        ({"storage": "tape"}, "storage='tape'"),
        ({"n_guides": 0}, "n_guides=0"),
        ({"function_type": "line"}, "function_type='line'"),
        ({"nsamples": 0}, "nsamples=0"),
        ({"distribution": "multinomial", "n_categories": 1}, "n_categories=1"),
        ({"memory_limit": "much"}, "no amount"),
    ],
)
def test_impossible_sizes_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ds.memory.estimate(**({"n_features": 10, "n_cells": 100} | wrong))


def test_sizes_are_read_off_data(titration):
    e = ds.memory.estimate_for(titration, batch_key="batch", cis_gene="GFI1B")
    s, obs = e.sizes, titration.obs
    assert (s.n_features, s.n_cells) == (titration.n_vars, titration.n_obs)
    assert s.n_ntc_cells == (obs["target"] == "NTC").sum()
    assert s.n_groups == obs["batch"].nunique()
    assert s.n_guides == obs.loc[obs["target"].isin(["NTC", "GFI1B"]), "guide"].nunique()
    x = titration.X
    assert s.n_stored == (x.nnz if sparse.issparse(x) else x.size)
    held = x.data.nbytes + x.indices.nbytes + x.indptr.nbytes + titration.varm["true_technical_effects"].nbytes
    assert s.held == held


def test_a_file_is_read_for_its_shape_only(titration, tmp_path):
    path = tmp_path / "data.h5ad"
    titration.write_h5ad(path)
    in_memory, from_path = ds.memory.estimate_for(titration), ds.memory.estimate_for(path)
    assert total(from_path) == pytest.approx(total(in_memory), rel=0.01)
    on_disk = ds.memory.estimate_for(path, backed=True)
    held, read = (e[e["step"] == "fit_trans"].set_index("component")["RAM"] for e in (from_path, on_disk))
    assert read.get("counts", 0) < held["counts"]
    assert read["reading"] > 0
    assert "reading" not in held
    backed = ad.read_h5ad(path, backed="r")
    assert ds.memory.estimate_for(backed).sizes.storage == "backed"
    backed.file.close()


def test_shares_and_categories(titration):
    adata = ad.AnnData(sparse.csr_matrix(titration.X), titration.obs, pd.DataFrame(index=titration.var_names))
    adata.var["donor"] = [f"d{i // 3}" for i in range(adata.n_vars)]
    adata.layers["n"] = adata.X * 2
    shares = ds.memory.estimate_for(adata, distribution="binomial", denominator_layer="n")
    both = (adata.X, adata.layers["n"])
    assert shares.sizes.held == sum(x.data.nbytes + x.indices.nbytes + x.indptr.nbytes for x in both)
    usage = ds.memory.estimate_for(adata, distribution="multinomial", category_key="donor")
    assert (usage.sizes.n_features, usage.sizes.n_categories) == (20, 3)


def test_what_is_no_anndata_is_refused(tmp_path):
    with pytest.raises(TypeError, match="must be an AnnData or a MuData"):
        ds.memory.estimate_for(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="is not there"):
        ds.memory.estimate_for(tmp_path / "none.h5ad")
    text = tmp_path / "text.h5ad"
    text.write_text("no data")
    with pytest.raises(ValueError, match="is no h5ad file"):
        ds.memory.estimate_for(text)
    with pytest.raises(TypeError, match=r"does not know \['colour'\]"):
        ds.memory.estimate_for(ad.AnnData(np.ones((3, 3), dtype=np.float32)), colour=1)


def test_fits_and_advice():
    e = ds.memory.estimate(30_000, 50_000)
    assert e.fits(ram="64GB")
    assert not e.fits(ram="1GB")
    assert "It fits" in e.advice(ram="64GB")
    said = e.advice(ram="2GB")
    assert "It does not fit" in said
    assert "backed='r'" in said
    assert said.count("less.") >= 1
    assert e.machine().endswith("GB RAM, no GPU needed")
    gpu = ds.memory.estimate(30_000, 50_000, inference="svi", device="cuda", autoguide="AutoNormal")
    assert total(gpu, "fit_technical", "VRAM") > 0
    assert not gpu.fits(ram="64GB", vram="100MB")
    assert "VRAM" in gpu.machine()
    assert "sufficient statistics" in repr(e)
    assert isinstance(e[["step"]], pd.DataFrame)
    assert not isinstance(e[["step"]], ds.memory.Estimate)


def test_the_rule_of_the_guide():
    from dream_sc._core.pyro.choose_family import guide_of, n_latent

    assert n_latent(30_000, 2) == 90_000
    guide, why = guide_of("auto", 90_000, 80e9)
    assert guide == "AutoNormal"
    assert "146 GB" in why
    assert guide_of("auto", 3000, 80e9) == ("AutoIAFNormal", "")
    assert guide_of("auto", 3000, 10e9)[0] == "AutoNormal"
    guide, why = guide_of("auto", 20_000, 80e9, free=20e9)
    assert guide == "AutoNormal"
    assert "that are free" in why
    assert guide_of("AutoIAFNormal", 90_000, 1e9)[0] == "AutoIAFNormal"


def test_fits_store_what_they_took(titration):
    adata = titration.copy()
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    for key in ("technical", "cis"):
        found = adata.uns[key]["memory"]
        assert set(found) == {"measured", "peak", "estimated", "estimated_total"}
        assert 0 <= found["measured"] < found["peak"]
        assert 0 < found["estimated"] < found["estimated_total"]


def test_a_fit_that_cannot_keep_its_limit_is_refused(monkeypatch, titration):
    from dream_sc._memory import guard as preflight

    monkeypatch.setattr(preflight, "SMALL", 0)
    with pytest.raises(ValueError, match=r"needs about .* more than the memory_limit='10kB'.*\(1\)"):
        ds.tl.fit_technical(titration.copy(), memory_limit="10kB")
    monkeypatch.setattr(preflight, "available", lambda: 10)
    with pytest.raises(ValueError, match="more than the free memory"):
        ds.tl.fit_technical(titration.copy())


def test_one_thread_where_that_saves_enough(titration):
    from dream_sc._core.parallel import at_most, n_threads
    from dream_sc._memory import guard as preflight

    e = ds.memory.estimate_for(titration, n_threads=8)
    between = (e.added("fit_trans") + preflight._with_threads(e, 1).added("fit_trans")) // 2
    assert preflight._plan("fit_trans", e, {"memory_limit": max(between, preflight.SMALL)}) in (1, None)
    with at_most(1):
        assert n_threads() == 1


def test_out_of_memory_says_what_helps(monkeypatch, titration):
    from dream_sc._memory import guard as preflight

    def fails(data, *, key_added="technical", copy=False):
        raise MemoryError

    with pytest.raises(MemoryError, match=r"fit_technical ran out of memory. What helps: \(1\)"):
        preflight.watched("fit_technical")(fails)(titration)


def test_min_cells(titration):
    adata = titration.copy()
    ds.tl.fit_technical(adata, min_cells=100)
    control = (adata.obs["target"] == "NTC").to_numpy()
    detected = np.asarray((adata.X[control] > 0).sum(0)).ravel()
    fitted = adata.varm["technical"]["mu"].notna().to_numpy()
    assert (fitted == (detected >= 100)).all()
    assert 0 < fitted.sum() < adata.n_vars
    with pytest.raises(ValueError, match="min_cells=0"):
        ds.tl.fit_technical(adata, min_cells=0)
    with pytest.raises(ValueError, match=r'minibatch_size=8 has no effect .*only with "svi" on counts'):
        ds.tl.fit_technical(adata, minibatch_size=8)


def test_shell(capsys, titration, tmp_path):
    assert main(["memory", "--features", "30000", "--cells", "50000", "--ram", "64GB"]) == 0
    assert "It fits" in capsys.readouterr().out
    assert main(["memory", "--features", "30000", "--cells", "50000", "--ram", "1GB"]) == 1
    assert "It does not fit" in capsys.readouterr().out
    assert main(["memory"]) == 2
    assert "--features" in capsys.readouterr().err
    assert main(["memory", "--features", "3", "--cells", "9", "--sparsity", "7"]) == 2
    assert "from 0 to 1" in capsys.readouterr().err
    path = tmp_path / "data.h5ad"
    titration.write_h5ad(path)
    assert main(["memory", str(path), "--cis-gene", "GFI1B", "--batch-key", "batch", "--ram", "8GB"]) == 0
    assert "60 features x 600 cells" in capsys.readouterr().out


def test_the_shell_lists_what_is_known(capsys):
    with pytest.raises(SystemExit):
        main(["memory", "--features", "3", "--cells", "9", "--distribution", "gamma"])
    assert "negbinom" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["memory", "--help"])
    assert "one of auto, single_hill" in " ".join(capsys.readouterr().out.split())


def test_plot(titration):
    e = ds.memory.estimate(2000, 5000)
    table = ds.pl.memory_data(e)
    assert list(table.index) == STEPS
    assert table.loc["fit_trans"].sum() * 1e9 == pytest.approx(total(e), rel=1e-6)
    ax = ds.pl.memory(e, limit="8GB")
    assert ax.get_ylabel() == "RAM (GB)"
    assert "limit, 8 GB" in [t.get_text() for t in ax.get_legend().get_texts()]
    with pytest.raises(ValueError, match="kind='disk'"):
        ds.pl.memory(e, kind="disk")


def test_a_gpu_that_is_too_small(monkeypatch, caplog):
    from dream_sc._memory import guard as preflight

    e = ds.memory.estimate(30_000, 50_000, inference="svi", device="cuda", autoguide="AutoNormal")
    monkeypatch.setattr(preflight, "_free_vram", lambda: 10**8)
    assert preflight._off_gpu("fit_technical", e, {"device": "auto"}) == {"device": "cpu"}
    assert preflight._off_gpu("fit_technical", e, {"device": "cuda"}) == {}
    assert "What helps: (1) device='cpu'" in caplog.text
    monkeypatch.setattr(preflight, "_free_vram", lambda: 10**11)
    assert preflight._off_gpu("fit_technical", e, {"device": "auto"}) == {}


def test_out_of_memory_of_the_gpu(monkeypatch, titration):
    import torch

    from dream_sc._memory import guard as preflight

    tried = []

    def fails(data, *, device="auto", key_added="technical", copy=False):
        tried.append(device)
        if device != "cpu":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    fit = preflight.watched("fit_technical")(fails)
    fit(titration)
    assert tried == ["auto", "cpu"]
    with pytest.raises(MemoryError, match=r"ran out of memory of the GPU. What helps: \(1\) device='cpu'"):
        fit(titration, device="cuda")


def test_a_matrix_of_guides_is_counted(tmp_path, capsys):
    adata = ds.datasets.high_moi(800, 20, moi=4, rng=0, n_ntc_guides=10, n_other_guides=20)
    s = ds.memory.estimate_for(adata, guides="guides", cis_gene="GFI1B").sizes
    assert (s.n_cis_guides, s.n_guides) == (12, 12 + 10 + 1)
    names = np.asarray(adata.uns["guides_target"]) == "NTC"
    carried = adata.obsm["guides"].toarray() > 0
    assert s.n_ntc_cells == (carried[:, names].any(1) & ~carried[:, ~names].any(1)).sum()
    assert ds.memory.estimate_for(adata, guides="guides").sizes.n_cis_guides == 32
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert ds.memory.estimate_for(tmp_path / "a.h5ad", guides="guides", cis_gene="GFI1B").sizes.n_guides == 23
    command = ["memory", str(tmp_path / "a.h5ad"), "--guide-matrix", "guides", "--cis-gene", "GFI1B", "--ram", "4GB"]
    assert main(command) == 0
    assert "23 guides" in capsys.readouterr().out


def test_sets_of_guides_are_counted():
    adata = ds.datasets.high_moi(800, 20, moi=4, rng=0, n_guides=8, n_ntc_guides=10, n_other_guides=10)
    ds.tl.fit_technical(adata, guides="guides", use_all_cells=True)
    ds.tl.fit_cis(adata, "GFI1B", control_group="complement")
    n_sets = len(adata.uns["cis"]["guide_sets"])
    asked = {"guides": "guides", "cis_gene": "GFI1B"}
    assert n_sets > 10
    assert ds.memory.estimate_for(adata, **asked).sizes.n_guide_sets == n_sets
    assert ds.memory.estimate_for(adata, **asked, inference="svi").sizes.n_guide_sets == 0
    ds.tl.fit_trans(adata, features=["gene_0001"], function_type="single_hill")
    told = ds.memory.estimate_for(adata, **asked, function_type="single_hill", use_all_cells=True)
    assert adata.uns["trans"]["memory"]["estimated"] == pytest.approx(told.added("fit_trans"), rel=0.02)


def test_sets_of_guides_take_memory_in_the_trans_step_alone():
    without, sets = (ds.memory.estimate(20_000, 50_000, n_guides=26, n_cis_guides=13, n_guide_sets=n) for n in (0, 74))
    assert total(sets) - total(without) > 3 * 8 * 20_000 * 74 * 2
    assert total(sets, "fit_cis") == total(without, "fit_cis")
    with pytest.raises(ValueError, match="n_guide_sets=3"):
        ds.memory.estimate(2000, 5000, n_guide_sets=3, inference="svi")
    both = [e[e["step"] == "compare"]["RAM"].sum() for e in (_compared(0), _compared(74))]
    assert both[0] == both[1]  # which takes cells with one guide


def _compared(n_sets):
    return ds.memory.estimate(2000, 5000, n_guides=26, n_guide_sets=n_sets, n_contexts=2)


def test_what_the_user_says_comes_before_what_the_data_say(titration):
    def stored(**options):
        return ds.memory.estimate_for(titration, **options).sizes.n_stored

    def counts(**options):
        e = ds.memory.estimate_for(titration, **options)
        return e[(e["component"] == "counts") & (e["step"] == "fit_trans")]["RAM"].sum()

    assert stored(sparsity=0.1) > 5 * stored(sparsity=0.9)
    assert counts(storage="backed") < counts(storage="sparse")
    assert ds.memory.estimate_for(titration, n_guides=3).sizes.n_guides == 3
    with pytest.raises(KeyError, match=r"no cell's target is \['GFI1X'\]; did you mean"):
        ds.memory.estimate_for(titration, cis_gene="GFI1X")
    e = ds.memory.estimate(10, 100)
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(e)), pd.DataFrame(e), check_frame_type=False)


def test_arguments_that_would_be_ignored_are_refused(titration, tmp_path, capsys):
    titration.write_h5ad(tmp_path / "a.h5ad")
    for command, said in (
        ([str(tmp_path / "a.h5ad"), "--features", "10"], "--features are read off"),
        (["--features", "10", "--cells", "100", "--backed", "--batch-key", "b"], "--batch-key, --backed are of"),
    ):
        assert main(["memory", *command]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(ValueError, match="n_threads=0"):
        ds.memory.estimate(10, 100, n_threads=0)


@pytest.mark.parametrize("function_type", ["auto", "single_hill", "additive_hill", "polynomial"])
def test_the_estimate_counts_what_the_trans_step_computes(monkeypatch, function_type):
    """Evidence of every feature, curve and tau, masses of every shape, curves of the first pass, as a fit has them."""
    from dream_sc._core.response import evidence
    from dream_sc._memory.lattices import lattices

    seen = {}

    def evaluate(*given, run=evidence.evaluate, **more):
        found = run(*given, **more)
        columns = found.comparison.columns or {}
        seen.setdefault("shapes", [m.shape[1] for m in found.masses])
        seen.setdefault("values", found.values.shape[1:])
        seen.setdefault("first", max((len(c.shape) for c in columns.values()), default=0))
        return found

    monkeypatch.setattr(evidence, "evaluate", evaluate)
    adata = ds.datasets.titration(800, 30, rng=0)
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, function_type=function_type, nsamples=20)
    wanted = lattices(function_type)
    assert seen["values"] == (wanted.curves, wanted.knots)  # few controls, which are not summed up
    assert sum(seen["shapes"]) == pytest.approx(wanted.shapes, rel=0.2, abs=len(seen["shapes"]))
    assert seen["first"] == pytest.approx(wanted.first_pass, rel=0.2)


def test_the_fast_engine_takes_no_gpu():
    assert total(ds.memory.estimate(30_000, 50_000, device="cuda"), kind="VRAM") == 0
