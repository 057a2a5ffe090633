"""Every result of every step through every file and container: what is read afterwards is what was read before."""

from __future__ import annotations

import pickle
import shutil
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import mudata as md
import numpy as np
import pandas as pd
import pytest

import dream_sc as ds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("few_null_features")

GENES = ["gene_0002", "gene_0001", "gene_0007"]


@pytest.fixture(scope="module")
def whole() -> ad.AnnData:
    """All steps on one object: covariates, contexts, groups, checks, dosages known and none."""
    adata = ds.datasets.titration(600, 20, rng=7, single_fraction=0.5, mean_range=(0.0, 4.0))
    adata.obs["line"] = pd.Categorical(np.where(np.arange(600) % 2, "A", "B"))
    adata.obs["depth"] = np.log(np.asarray(adata.X.sum(1)).ravel())
    ds.pp.size_factors(adata, method="stable")
    ds.tl.fit_technical(adata, batch_key="batch", covariates="depth")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    ds.tl.calibrate(adata, n=2)
    ds.tl.compare(adata, "line", n_null=0)
    ds.tl.group_responses(adata)
    ds.tl.check_confounding(adata)
    guides = ds.get.guides(adata)
    dosages = dict(zip(guides.index, 2 ** guides["log2_dosage"], strict=True))
    ds.tl.set_dosage(adata, dosages, key_added="known", cis_gene="GFI1B")
    ds.tl.fit_trans(adata, cis_key="known", key_added="known_trans", function_type="single_hill", nsamples=50)
    return adata


def _frame(x: Any) -> pd.DataFrame:
    """A table whose texts are plain text: files keep what is said, not how pandas stores it."""
    frame = x.copy()
    for name in frame:
        if not pd.api.types.is_numeric_dtype(frame[name].dtype):
            frame[name] = frame[name].astype(object).where(frame[name].notna(), "").astype(str)
    return frame


def _draws(data: Any, **where: Any) -> pd.DataFrame:
    draws = ds.get.posterior(data, GENES, nsamples=20, **where)
    return pd.DataFrame(
        {name: draws[name].to_numpy().ravel() for name in draws.data_vars if draws[name].dtype.kind == "f"}
    )


RESULTS: dict[str, Callable[..., pd.DataFrame]] = {
    "technical": ds.get.technical,
    "cis": ds.get.cis,
    "guides": ds.get.guides,
    "trans": ds.get.trans,
    "responders": ds.get.responders,
    "doses": lambda data, **where: ds.get.doses(data, GENES, **where),
    "guide effects": lambda data, **where: ds.get.guide_effects(data, GENES[0], **where),
    "curves": lambda data, **where: ds.get.dose_response(data, GENES, **where),
    "draws": _draws,
    "known dosages": lambda data, **where: ds.get.guides(data, key="known", **where),
    "responses to known dosages": lambda data, **where: ds.get.trans(data, key="known_trans", **where),
    "calibration": ds.get.calibration,
    "compare": ds.get.compare,
    "groups": ds.get.groups,
    "confounding": ds.get.confounding,
    "summary": lambda data, **where: pd.DataFrame({"text": ds.get.summary(data, **where).splitlines()}),
}


def _zarr(adata: ad.AnnData, folder: Path, version: int) -> ad.AnnData:
    with ad.settings.override(zarr_write_format=version):
        adata.write_zarr(folder / f"{version}.zarr")
    return ad.read_zarr(folder / f"{version}.zarr")


def _h5ad(adata: ad.AnnData, folder: Path, **how: Any) -> ad.AnnData:
    adata.write_h5ad(folder / "a.h5ad", **how)
    return ad.read_h5ad(folder / "a.h5ad")


def _backed(adata: ad.AnnData, folder: Path, mode: str) -> ad.AnnData:
    if not (folder / "whole.h5ad").exists():
        adata.write_h5ad(folder / "whole.h5ad")
    shutil.copy(folder / "whole.h5ad", folder / f"{mode}.h5ad")
    return ad.read_h5ad(folder / f"{mode}.h5ad", backed=mode)


def _of_two(adata: ad.AnnData) -> md.MuData:
    other = ad.AnnData(None, adata.obs[["guide"]], pd.DataFrame(index=["a", "b"]))
    return md.MuData({"rna": adata.copy(), "other": other})


def _h5mu(adata: ad.AnnData, folder: Path) -> md.MuData:
    _of_two(adata).write(folder / "a.h5mu")
    return md.read_h5mu(folder / "a.h5mu")


def _zarr_of_two(adata: ad.AnnData, folder: Path) -> Path:
    """A folder of the newer format, where a modality is written and read as an object of its own, too."""
    if not folder.exists():  # it takes a hundredth of a second for each of some 700 arrays
        with ad.settings.override(zarr_write_format=3):
            _of_two(adata).write_zarr(folder)
    return folder


def _halves(adata: ad.AnnData) -> ad.AnnData:
    """Cells cut in two and put together again, as anndata merges what is the same in both."""
    return ad.concat([adata[:250].copy(), adata[250:].copy()], merge="same", uns_merge="same")


def _shuffled(adata: ad.AnnData) -> ad.AnnData:
    rng = np.random.default_rng(0)
    return adata[rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)].copy()


STORES: dict[str, Callable[[ad.AnnData, Path], Any]] = {
    "h5ad": _h5ad,
    "h5ad, compressed": lambda a, folder: _h5ad(a, folder, compression="gzip", as_dense=["X"]),
    "h5ad, backed to read": lambda a, folder: _backed(a, folder, "r"),
    "h5ad, backed to write": lambda a, folder: _backed(a, folder, "r+"),
    "zarr 2": lambda a, folder: _zarr(a, folder, 2),
    "zarr 3": lambda a, folder: ad.read_zarr(_zarr_of_two(a, folder / "two.zarr") / "mod" / "rna"),
    "h5mu": _h5mu,
    "zarr of a MuData": lambda a, folder: md.read_zarr(_zarr_of_two(a, folder / "two.zarr")),
    "copy": lambda a, folder: a.copy(),
    "pickle": lambda a, folder: pickle.loads(pickle.dumps(a)),
    "view": lambda a, folder: a[:, :],
    "shuffled, h5ad": lambda a, folder: _h5ad(_shuffled(a), folder),
    "genes, h5ad": lambda a, folder: _h5ad(a[:, GENES].copy(), folder),
    "halves, h5ad": lambda a, folder: _h5ad(_halves(a), folder),
    "without counts": lambda a, folder: ad.AnnData(None, a.obs, a.var, uns=a.uns, obsm=a.obsm, varm=a.varm),
}


@pytest.fixture(scope="module")
def expected(whole: ad.AnnData) -> dict[str, pd.DataFrame]:
    return {name: _frame(read(whole)) for name, read in RESULTS.items()}


@pytest.fixture(scope="module")
def kept(whole: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """The object out of each store, stored once."""
    made: dict[str, Any] = {}
    folder = tmp_path_factory.mktemp("stores")

    def get(store: str) -> Any:
        if store not in made:
            with warnings.catch_warnings():  # of zarr and anndata about their own formats
                warnings.simplefilter("ignore")
                made[store] = STORES[store](whole, folder)
        return made[store]

    return get


# a summary counts the features that are there, and effects of guides are read off the counts
WITHOUT = {("genes, h5ad", "summary"), ("without counts", "guide effects")}
TRIPS = [(s, r) for s in STORES for r in RESULTS if (s, r) not in WITHOUT]


@pytest.mark.parametrize(("store", "result"), TRIPS)
def test_a_result_is_read_as_it_was(
    kept: Callable[[str], Any], expected: dict[str, pd.DataFrame], store: str, result: str
) -> None:
    data = kept(store)
    found = _frame(RESULTS[result](data, **({"mod": "rna"} if isinstance(data, md.MuData) else {})))
    want = expected[result]
    if "genes" in store or "shuffled" in store:  # rows of the features that are there, cells in their order
        assert set(found.index) <= set(want.index)
        want = want.loc[found.index]
    exact = (store, result) != ("shuffled, h5ad", "guide effects")  # sums over the cells in another order
    how: dict[str, Any] = {"check_exact": True} if exact else {"rtol": 1e-12}
    pd.testing.assert_frame_equal(found, want, check_index_type=False, check_column_type=False, **how)


def test_there_are_many_round_trips() -> None:
    assert len(TRIPS) > 200


ODD = [
    "a/b",
    "../../x",
    "",
    "ünïcødé 猫 🧬",
    "x" * 3000,
    " lead",
    "a\nb",
    "$x_1$",
    "<b>&amp;",
    "None",
    "nan",
    "0.5",
    "%s{0}",
]


@pytest.fixture(scope="module")
def oddly_named() -> ad.AnnData:
    """Names of genes, guides and batches that file formats, figures and pages could stumble over."""
    adata = ds.datasets.titration(300, len(ODD) + 1, rng=1, n_guides=6, mean_range=(0.0, 3.0))
    names = [*ODD]
    names.insert(adata.var_names.get_loc("GFI1B"), "GFI1B")
    adata.var_names = names
    guides = list(dict.fromkeys(adata.obs["guide"].astype(str)))
    new = dict(zip(guides, [name or "empty" for name in ODD], strict=False))
    adata.obs["guide"] = adata.obs["guide"].astype(str).map(new).astype("category")
    batches = {"batch_1": "a/b", "batch_2": "../猫"}
    adata.obs["batch"] = pd.Categorical(adata.obs["batch"].astype(str).map(batches))
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B", guide_offsets=False)
    ds.tl.fit_trans(adata, function_type="single_hill", nsamples=20)
    return adata


@pytest.mark.filterwarnings("ignore")  # of zarr and anndata about their own formats
@pytest.mark.parametrize("form", ["h5ad", "zarr 2", "zarr 3"])
def test_odd_names_survive_a_file(oddly_named: ad.AnnData, form: str, tmp_path: Path) -> None:
    again = _h5ad(oddly_named, tmp_path) if form == "h5ad" else _zarr(oddly_named, tmp_path, int(form[-1]))
    for read in (ds.get.technical, ds.get.guides, ds.get.trans):
        pd.testing.assert_frame_equal(_frame(read(again)), _frame(read(oddly_named)), check_exact=True)
    assert sorted(again.var_names) == sorted([*ODD, "GFI1B"])
    curves = ds.get.dose_response(again, ODD)
    assert set(curves["feature"]) == set(ODD)


KINDS = ["string[pyarrow]", "string[python]", "object", "category"]


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_any_kind_give_the_same_dosages(kind: str) -> None:
    adata = ds.datasets.titration(300, 8, rng=1, n_guides=6, mean_range=(0.0, 3.0))
    adata.obs["size_factor"] = np.linspace(0.5, 1.5, 300)
    other = adata.copy()
    for name in ("guide", "target", "batch"):
        other.obs[name] = other.obs[name].astype(str).astype(kind)
    other.obs["size_factor"] = pd.array(other.obs["size_factor"].to_numpy(), dtype="Float64")
    for each in (adata, other):
        ds.tl.fit_technical(each, batch_key="batch")
        ds.tl.fit_cis(each, "GFI1B", guide_offsets=False)
    for read in (ds.get.technical, ds.get.guides, ds.get.cis):
        pd.testing.assert_frame_equal(_frame(read(other)), _frame(read(adata)), check_exact=True)


def test_an_object_without_cells_or_genes_is_read(whole: ad.AnnData) -> None:
    assert len(ds.get.trans(whole[:0])) == whole.n_vars
    assert ds.get.cis(whole[:0]).empty
    assert ds.get.trans(whole[:, :0]).empty
    with pytest.raises(ValueError, match="no cell has the control label"):
        ds.tl.fit_technical(whole[:0].copy(), key_added="new")
    with pytest.raises(ValueError, match="no feature has"):
        ds.tl.fit_technical(whole[:, :0].copy(), key_added="new")
