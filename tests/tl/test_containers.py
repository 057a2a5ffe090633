"""The same counts in every container: matrix formats, layers, blocks, backed files, zarr, MuData."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc._data import counts as _reading
from dream_sc._data import results

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("few_null_features")

NSAMPLES = 100  # a tenth of the default, of which no test here looks at more
FORMS = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "dense": lambda x: x.toarray(),
    "int": lambda x: x.astype(np.int32),
    "unsigned": lambda x: x.astype(np.uint16),
    "float64": lambda x: x.astype(np.float64),
    "explicit zeros": lambda x: _with_zeros(x),
}


def _with_zeros(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """Every entry stored, zeros too."""
    n, m = x.shape
    return sparse.csr_matrix((x.toarray().ravel(), np.tile(np.arange(m), n), np.arange(n + 1) * m), shape=x.shape)


@pytest.fixture(scope="module")
def base() -> ad.AnnData:
    return ds.datasets.titration(600, 20, rng=7, single_fraction=0.5, mean_range=(0.0, 4.0))


@pytest.fixture(scope="module")
def fitted(base: ad.AnnData) -> ad.AnnData:
    adata = base.copy()
    _fit(adata)
    return adata


@pytest.fixture(scope="module")
def hyper(fitted: ad.AnnData) -> dict[str, Any]:
    """Learned numbers: with them the third step is quick."""
    return fitted.uns["trans"]["hyper"]


def _fit(data: Any, hyper: dict[str, Any] | None = None, *, layer: str | None = None, mod: str | None = None) -> None:
    ds.tl.fit_technical(data, batch_key="batch", layer=layer, mod=mod)
    ds.tl.fit_cis(data, "GFI1B", mod=mod)
    ds.tl.fit_trans(data, function_type="single_hill", hyper=hyper, mod=mod, nsamples=NSAMPLES)


def _same(a: Any, b: ad.AnnData, *, mod: str | None = None) -> None:
    """All tables of two fits are equal, whatever the order of the cells."""
    for read in (ds.get.technical, ds.get.cis, ds.get.guides, ds.get.trans):
        one, two = read(a, mod=mod), read(b)
        text = dict.fromkeys([c for c in two if not pd.api.types.is_numeric_dtype(two[c].dtype)], str)
        pd.testing.assert_frame_equal(one.astype(text).loc[two.index], two.astype(text), rtol=1e-6)


# in memory


def _same_size_factors(adata: ad.AnnData, fitted: ad.AnnData) -> None:
    for method in ("total", "median_ratio"):
        ds.pp.size_factors(adata, method=method, key_added="s")
        ds.pp.size_factors(fitted, method=method, key_added="s")
        np.testing.assert_allclose(adata.obs["s"], fitted.obs["s"], rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_counts_gives_the_same_result(
    base: ad.AnnData, fitted: ad.AnnData, hyper: dict[str, Any], form: str
) -> None:
    adata = base.copy()
    adata.X = FORMS[form](adata.X)
    _fit(adata, hyper)
    _same(adata, fitted)
    _same_size_factors(adata, fitted)


def test_a_layer_is_used_by_all_steps(base: ad.AnnData, fitted: ad.AnnData, hyper: dict[str, Any]) -> None:
    adata = base.copy()
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.log1p()
    _fit(adata, hyper, layer="counts")
    _same(adata, fitted)
    assert adata.uns["trans"]["params"]["layer"] == "counts"


@pytest.mark.parametrize("form", ["dense", "csr"])
def test_blocks_do_not_change_the_result(
    base: ad.AnnData,
    fitted: ad.AnnData,
    hyper: dict[str, Any],
    form: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Sorted by target, many blocks hold no control cell; on disk sparse counts come in blocks too."""
    monkeypatch.setattr(_reading, "LARGEST_BLOCK", 12 * base.n_vars * 47)
    adata = base[np.argsort(base.obs["target"].to_numpy(), kind="stable")].copy()
    adata.X = FORMS[form](adata.X)
    if form == "csr":
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    starts = [block.cell for block in results.counts(adata, None).blocks()]
    assert len(starts) > 5
    if form == "dense":
        assert starts == list(range(0, 600, 47))
    _fit(adata, hyper)
    _same(adata, fitted)
    ds.pp.size_factors(adata, key_added="s")
    ds.pp.size_factors(fitted, key_added="s")
    np.testing.assert_allclose(adata.obs["s"], fitted.obs["s"].loc[adata.obs_names], rtol=1e-6)


# on disk


@pytest.fixture
def backed(base: ad.AnnData, tmp_path: Path) -> Iterator[Any]:
    opened = []

    def open_(form: str, mode: str) -> ad.AnnData:
        adata = base.copy()
        adata.X = FORMS[form](adata.X)
        adata.write_h5ad(tmp_path / "a.h5ad")
        opened.append(ad.read_h5ad(tmp_path / "a.h5ad", backed=mode))
        return opened[-1]

    yield open_
    for adata in opened:
        adata.file.close()


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_a_backed_file_is_read_and_left_alone(
    backed: Any, fitted: ad.AnnData, hyper: dict[str, Any], form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adata = backed(form, "r")
    with caplog.at_level("INFO", "dream_sc"):
        _fit(adata, hyper)
    _same(adata, fitted)
    assert "results are in memory; write them to a new file" in caplog.text
    adata.write_h5ad(tmp_path / "b.h5ad")
    _same(ad.read_h5ad(tmp_path / "b.h5ad"), fitted)
    adata.file.close()
    assert "technical" not in ad.read_h5ad(tmp_path / "a.h5ad").varm


def test_a_file_open_for_writing_keeps_the_results_once_written(
    backed: Any, fitted: ad.AnnData, hyper: dict[str, Any], tmp_path: Path
) -> None:
    adata = backed("csr", "r+")
    _fit(adata, hyper)
    _same(adata, fitted)
    adata.write()
    adata.file.close()
    _same(ad.read_h5ad(tmp_path / "a.h5ad"), fitted)


def test_a_backed_object_is_not_copied_and_its_view_is_refused(backed: Any) -> None:
    adata = backed("csr", "r")
    with pytest.raises(ValueError, match="to_memory"):
        ds.tl.fit_technical(adata, copy=True)
    with pytest.raises(ValueError, match=r"view of a backed file: call \.to_memory"):
        ds.tl.fit_technical(adata[:300])
    ds.tl.fit_technical(adata[:300].to_memory())


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
def test_zarr_round_trip(fitted: ad.AnnData, hyper: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("zarr", reason="zarr is not installed")
    fitted.write_zarr(tmp_path / "a.zarr")
    again = ad.read_zarr(tmp_path / "a.zarr")
    _same(again, fitted)
    genes = list(fitted.var_names[1:4])
    pd.testing.assert_frame_equal(ds.get.dose_response(again, genes), ds.get.dose_response(fitted, genes))
    assert ds.get.posterior(again, genes, nsamples=5).equals(ds.get.posterior(fitted, genes, nsamples=5))
    # the steps go on from what was read
    ds.tl.fit_trans(again, function_type="single_hill", hyper=again.uns["trans"]["hyper"], nsamples=NSAMPLES)
    _same(again, fitted)


STORES = ["zarr csr", "zarr csc", "dask csr", "dask csc", "dask dense", "lazy h5ad", "lazy zarr"]


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data", "ignore:zarr v3 autosharding")
@pytest.mark.parametrize("store", STORES)
def test_counts_are_read_where_they_are(
    base: ad.AnnData, fitted: ad.AnnData, hyper: dict[str, Any], store: str, tmp_path: Path
) -> None:
    da = pytest.importorskip("dask.array", reason="dask is not installed")
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    kind, form = store.split()
    counts = FORMS[form](base.X) if form in FORMS else base.X
    if kind == "zarr":
        group = zarr.open_group(str(tmp_path / "a"), mode="w")
        ad.io.write_elem(group, "x", counts)
        counts = ad.io.sparse_dataset(group["x"])
    elif kind == "dask":
        chunks = {"csr": (70, -1), "csc": (-1, 7), "dense": (70, 7)}[form]
        counts = da.from_array(base.X.toarray(), chunks=chunks)
        counts = counts if form == "dense" else counts.map_blocks(FORMS[form])
    if kind == "lazy":
        write, path = (base.write_h5ad, "a.h5ad") if form == "h5ad" else (base.write_zarr, "a.zarr")
        write(tmp_path / path)
        with pytest.raises(TypeError, match=r"read lazily: load them, data\.obs = data\.obs\.to_memory\(\)"):
            _fit(ad.experimental.read_lazy(tmp_path / path))
        adata = ad.experimental.read_lazy(tmp_path / path)
        adata.obs, adata.var = adata.obs.to_memory(), adata.var.to_memory()
    else:
        adata = ad.AnnData(counts, obs=base.obs, var=base.var)
    kept = type(adata.X)
    _fit(adata, hyper)
    _same(adata, fitted)
    _same_size_factors(adata, fitted)
    assert type(adata.X) is kept
    if adata.file:
        adata.file.close()


def test_steps_within_a_memory_limit(
    backed: Any, fitted: ad.AnnData, hyper: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    adata, limit = backed("csr", "r"), "1.2MB"
    sizes = []

    def note(*given: Any) -> Any:
        sizes.append(open_counts(*given).size)
        return open_counts(*given)

    open_counts = _reading.open_counts
    monkeypatch.setattr(_reading, "open_counts", note)
    ds.pp.size_factors(adata, memory_limit="8kB", key_added="s")
    ds.tl.fit_technical(adata, batch_key="batch", memory_limit="2MB")
    ds.tl.fit_cis(adata, "GFI1B", memory_limit="8kB", guide_offsets=False, key_added="plain")
    ds.tl.fit_cis(adata, "GFI1B", memory_limit="300kB")  # sums of all features, for the offsets
    ds.tl.fit_trans(adata, function_type="single_hill", hyper=hyper, nsamples=NSAMPLES, memory_limit=limit)
    _same(adata, fitted)
    assert max(sizes[0], sizes[2]) <= 2000
    assert max(sizes) <= 500_000
    with pytest.raises(ValueError, match=r"'200kB'.*sums of 20 features in \d+ rows, one per guide"):
        ds.tl.fit_trans(adata, memory_limit="200kB", key_added="new")
    with pytest.raises(ValueError, match=r"'200kB'.*over \d+ bins of control cells.*histograms"):
        ds.tl.fit_technical(adata, memory_limit="200kB", key_added="new")
    with pytest.raises(ValueError, match=r"memory_limit='little' is no amount of memory"):
        ds.tl.fit_cis(adata, "GFI1B", memory_limit="little", key_added="new")
    assert "new" not in adata.uns


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_read_leaves_nothing_behind(
    backed: Any, hyper: dict[str, Any], error: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    import h5py

    adata, read, n = backed("csr", "r"), h5py.Dataset.__getitem__, 0
    _fit(adata, hyper)
    before = {slot: set(getattr(adata, slot)) for slot in ("obs", "uns", "obsm", "varm")}

    def fail(self: Any, part: Any, **keywords: Any) -> Any:
        nonlocal n
        n += 1
        if n > 4:
            raise error("while reading")
        return read(self, part, **keywords)

    monkeypatch.setattr(_reading, "LARGEST_BLOCK", 5000)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", fail)
    for call in (
        lambda: ds.pp.size_factors(adata, key_added="new"),
        lambda: ds.tl.fit_technical(adata, key_added="new"),
        lambda: ds.tl.fit_cis(adata, "GFI1B", key_added="new"),
        lambda: ds.tl.fit_trans(adata, key_added="new"),
    ):
        n = 0
        with pytest.raises(error, match="while reading"):
            call()
        assert n == 5
        assert {slot: set(getattr(adata, slot)) for slot in before} == before


def test_a_layer_in_a_closed_file(base: ad.AnnData, tmp_path: Path) -> None:
    import h5py

    adata = base.copy()
    with h5py.File(tmp_path / "a.h5", "w") as f:
        ad.io.write_elem(f, "x", base.X)
        adata.layers["counts"] = ad.io.sparse_dataset(f["x"])
    with pytest.raises(ValueError, match="in a file that was closed"):
        ds.tl.fit_technical(adata, layer="counts")


# MuData


@pytest.fixture
def pair(base: ad.AnnData) -> md.MuData:
    """The modality "other" has its own genes, and in another order 500 of the cells and 30 that "rna" lacks."""
    other = base[np.random.default_rng(0).permutation(600)[:530], 5:].copy()
    other.var_names = [f"o_{n}" for n in other.var_names]
    other.obs_names = [*other.obs_names[:500], *(f"new_{i}" for i in range(30))]
    return md.MuData({"rna": base.copy(), "other": other})


def test_a_modality_gives_what_an_anndata_gives(pair: md.MuData, fitted: ad.AnnData, hyper: dict[str, Any]) -> None:
    outer = set(pair.obs), set(pair.uns), set(pair.obsm), set(pair.varm)
    _fit(pair, hyper, mod="rna")
    _same(pair, fitted, mod="rna")
    assert (set(pair.obs), set(pair.uns), set(pair.obsm), set(pair.varm)) == outer
    assert not {"technical", "cis", "trans"} & set(pair.mod["other"].uns)
    one, two = (ds.get.dose_response(d, "gene_0001", mod=m) for d, m in ((pair, "rna"), (fitted, None)))
    pd.testing.assert_frame_equal(one, two)


def test_cells_are_matched_by_name(pair: md.MuData, hyper: dict[str, Any]) -> None:
    for mod in ("rna", "other"):
        ds.tl.fit_technical(pair, mod=mod, batch_key="batch")
    ds.tl.fit_cis(pair, "GFI1B", mod="rna")
    ds.tl.fit_trans(pair, mod="other", cis_mod="rna", function_type="single_hill", hyper=hyper)
    table = ds.get.trans(pair, mod="other")
    assert (table["n_cells"] == 500).all()
    # the same cells of the other modality in the order of "rna" and without the strangers
    plain = pair.mod["rna"].copy()
    shared = [n for n in plain.obs_names if n in set(pair.mod["other"].obs_names)]
    ordered = pair.mod["other"][shared].copy()
    ordered.obsm["cis"], ordered.uns["cis"] = plain.obsm["cis"].loc[shared], plain.uns["cis"]
    ds.tl.fit_trans(ordered, function_type="single_hill", hyper=hyper)
    text = dict.fromkeys(["model", "class", "status", "note", "confidence"], str)
    pd.testing.assert_frame_equal(table.astype(text), ds.get.trans(ordered).astype(text), rtol=1e-6)


def test_copy_of_a_mudata(pair: md.MuData) -> None:
    out = ds.tl.fit_technical(pair, mod="rna", copy=True)
    assert isinstance(out, md.MuData)
    assert "technical" in out.mod["rna"].uns
    assert "technical" not in pair.mod["rna"].uns
    assert ds.pp.size_factors(pair, mod="other", key_added="depth") is None
    assert "depth" in pair.mod["other"].obs
    assert "depth" not in pair.mod["rna"].obs


def test_a_modality_has_to_be_named_and_known(pair: md.MuData) -> None:
    ds.tl.fit_technical(pair, mod="rna")
    for call in (
        lambda **k: ds.pp.size_factors(pair, **k),
        lambda **k: ds.tl.fit_technical(pair, **k),
        lambda **k: ds.tl.fit_cis(pair, "GFI1B", **k),
        lambda **k: ds.tl.fit_trans(pair, **k),
        lambda **k: ds.get.technical(pair, **k),
    ):
        with pytest.raises((ValueError, KeyError), match=r"\['rna', 'other'\]"):
            call()
        with pytest.raises(KeyError, match=r"'RNA'.*\['rna', 'other'\]"):
            call(mod="RNA")
    with pytest.raises(KeyError, match="'adt'"):
        ds.tl.fit_trans(pair, mod="rna", cis_mod="adt")
    with pytest.raises(KeyError, match=r"fit_technical"):
        ds.tl.fit_cis(pair, "GFI1B", mod="other")


def test_a_view_of_a_mudata_asks_for_a_copy(pair: md.MuData) -> None:
    with pytest.raises(ValueError, match=r"\.copy\(\)"):
        ds.tl.fit_technical(pair[:300], mod="rna")


def test_h5mu_is_read_back_and_fitted_on(
    pair: md.MuData, fitted: ad.AnnData, hyper: dict[str, Any], tmp_path: Path
) -> None:
    ds.tl.fit_technical(pair, mod="rna", batch_key="batch")
    ds.tl.fit_cis(pair, "GFI1B", mod="rna")
    pair.write(tmp_path / "a.h5mu")
    again = md.read_h5mu(tmp_path / "a.h5mu")
    ds.tl.fit_trans(again, mod="rna", function_type="single_hill", hyper=hyper, nsamples=NSAMPLES)
    _same(again, fitted, mod="rna")
