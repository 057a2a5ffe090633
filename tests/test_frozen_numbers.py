"""The tables of all designs stay as they are: a change of the code that is none of the method changes no number.

A change of the method does; then `python tests/test_frozen_numbers.py [DESIGN ...]` writes the tables anew, and the
changelog says why. All tables are of one kind of processor, which `frozen/processor.txt` names. Another kind rounds
differently: a search that ends a step earlier moves evidence by up to a thousandth, and may lead to other draws, which
move what is said of a feature that hardly responds by as much as a few hundred draws are uncertain. There calls and
evidence are held to less, and what is described to the noise of draws.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import llvmlite.binding
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import expit

import dream_sc as ds

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent / "frozen"
CIS = "GFI1B"
PROCESSOR = FOLDER / "processor.txt"
RTOL, ATOL = 1e-6, 1e-9
# on another kind of processor: of numbers that calls rest on, and of all others
OF_CALLS, ELSEWHERE, ELSEWHERE_DESCRIBED = ("qvalue", "lfdr", "pvalue", "log_bf"), 2e-3, 0.25

Tables = dict[str, pd.DataFrame]


def _three_steps(adata: ad.AnnData, *, technical: dict[str, Any] | None = None, **trans: Any) -> Tables:
    ds.tl.fit_technical(adata, **(technical or {"batch_key": "batch"}))
    ds.tl.fit_cis(adata, CIS)
    ds.tl.fit_trans(adata, **trans)
    return _tables(adata)


def _tables(adata: ad.AnnData) -> Tables:
    return {"technical": adata.varm["technical"], "cis": adata.uns["cis"]["guides"], "trans": adata.varm["trans"]}


def _titration(**given: Any) -> ad.AnnData:
    return ds.datasets.titration(**({"n_cells": 2000, "n_genes": 24, "rng": 3} | given))


def counts() -> Tables:
    """All curves, two batches."""
    return _three_steps(_titration())


def single_hill() -> Tables:
    """One curve that is told."""
    return _three_steps(_titration(), function_type="single_hill")


def additive_hill() -> Tables:
    """Two Hills without a turn."""
    return _three_steps(_titration(), function_type="additive_hill")


def polynomial() -> Tables:
    """Polynomials."""
    return _three_steps(_titration(), function_type="polynomial", degree=3)


def cells() -> Tables:
    """Dosages of the cells."""
    return _three_steps(_titration(cis_mean=20.0), dosage="cell")


def many_ntc_guides() -> Tables:
    """NTC guides that are summed up."""
    return _three_steps(_titration(n_cells=4000, n_guides=8, n_ntc_guides=60))


def covariates() -> Tables:
    """A covariate on the exposure."""
    adata = _titration()
    adata.obs["stress"] = np.random.default_rng(0).normal(size=adata.n_obs)
    return _three_steps(adata, technical={"batch_key": "batch", "covariates": ["stress"]})


def guide_matrix() -> Tables:
    """Several guides in a cell."""
    adata = ds.datasets.high_moi(3000, 24, moi=3.0, n_other_guides=40, rng=1)
    ds.tl.fit_technical(adata, batch_key="batch", guides="guides", use_all_cells=True)
    ds.tl.fit_cis(adata, CIS, control_group="complement")
    ds.tl.fit_trans(adata)
    return _tables(adata)


def _beside(values: Callable[[np.random.Generator, Any, Any], Any]) -> tuple[ad.AnnData, ad.AnnData]:
    """A titration, and what else is measured of the same cells."""
    rna = _titration()
    rng, n_features = np.random.default_rng(1), 15
    h = expit(2.0 * np.log(2) * (rna.obs["true_log2_dosage"].to_numpy(float)[:, None] + 0.8))
    low = rng.uniform(0.3, 0.7, n_features)
    p = low + np.where(np.arange(n_features) % 3 == 0, np.where(low > 0.5, -0.28, 0.28), 0.0) * h
    x, layers = values(rng, p, rng.poisson(1.5, p.shape))
    part = ad.AnnData(x, obs=rna.obs.copy())
    part.var_names = [f"e{i}" for i in range(part.n_vars)]
    for name, layer in layers.items():
        part.layers[name] = layer
    return rna, part


def _other(kind: dict[str, Any], values: Callable[[np.random.Generator, Any, Any], Any]) -> Tables:
    rna, part = _beside(values)
    ds.tl.fit_technical(rna, batch_key="batch")
    ds.tl.fit_cis(rna, CIS)
    part.uns, part.obsm = rna.uns.copy(), dict(rna.obsm)
    ds.tl.fit_technical(part, batch_key="batch", **kind)
    ds.tl.fit_trans(part)
    return {"technical": part.varm["technical"], "trans": part.varm["trans"]}


SHARES = {"distribution": "binomial", "denominator_layer": "total"}


def _shares(rng: np.random.Generator, p: Any, n: Any) -> Any:
    return sparse.csr_matrix(rng.binomial(n, p).astype(float)), {"total": sparse.csr_matrix(n.astype(float))}


def binomial() -> Tables:
    """Shares."""
    return _other(SHARES, _shares)


def multinomial() -> Tables:
    """Usage of three categories."""

    def values(rng: np.random.Generator, p: Any, n: Any) -> Any:
        y = rng.binomial(n, p)
        z = rng.binomial(n - y, 0.4)
        parts = [sparse.csr_matrix(a.astype(float)) for a in (y, z, n - y - z)]
        return parts[0] * 0.0, dict(zip("abc", parts, strict=True))

    return _other({"distribution": "multinomial", "category_layers": ["a", "b", "c"]}, values)


def normal() -> Tables:
    """Scores."""
    return _other({"distribution": "normal"}, lambda rng, p, n: (10.0 + 3.0 * p + rng.normal(0, 0.8, p.shape), {}))


def studentt() -> Tables:
    """Scores with outliers."""
    return _other({"distribution": "studentt"}, lambda rng, p, n: (3.0 * p + rng.standard_t(3, p.shape), {}))


def _shuffled(adata: ad.AnnData, column: int, share: dict[str, float], by: str) -> None:
    """In each context a share of the cells exchange what they have of a feature: the others keep their response."""
    rng, x = np.random.default_rng(2), sparse.lil_matrix(adata.X)
    values = x[:, column].toarray().ravel()
    for label, part in share.items():
        cells = np.flatnonzero((adata.obs[by] == label) & (rng.random(adata.n_obs) < part))
        values[cells] = values[rng.permutation(cells)]
    x[:, column] = values[:, None]
    adata.X = x.tocsr()


def _in_contexts(share: dict[str, float], **given: Any) -> Tables:
    """Contexts in which the first gene that responds does so more or less."""
    adata = _titration()
    adata.obs["context"] = np.array(list(share))[np.random.default_rng(0).integers(0, len(share), adata.n_obs)]
    clear = adata.var["true_log2fc_range"].where(adata.var["true_baseline"] > 0.5, 0.0)
    _shuffled(adata, int(np.argmax(clear)), share, "context")
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, CIS)
    ds.tl.fit_trans(adata, function_type="single_hill")
    ds.tl.compare(adata, "context", n_null=20, **given)
    return _of_contexts(adata)


def _of_contexts(adata: ad.AnnData) -> Tables:
    """All features, and what is drawn of the one that differs most."""
    table = ds.get.compare(adata)
    clearest = str(table["lfdr_differs"].astype(float).idxmin())
    return {"compare": table, "drawn": ds.pl.compare_data(adata, clearest).fillna({"guide": ""})}


def two_contexts() -> Tables:
    """One gene responds in one of two lines."""
    return _in_contexts({"A": 0.0, "B": 1.0}, reference="A")


def several_contexts() -> Tables:
    """Three lines, each against the first."""
    return _in_contexts({"A": 0.0, "B": 0.2, "C": 1.0}, reference="A")


def ordered_contexts() -> Tables:
    """A gene whose response fades over three times."""
    return _in_contexts({"early": 0.0, "middle": 0.5, "late": 1.0}, order={"early": 0.0, "middle": 1.0, "late": 3.0})


def _columns_stay() -> Any:
    """What mudata does from 0.4 on; before, it warns until one has chosen."""
    return md.set_options(pull_on_update=False) if hasattr(md, "set_options") else contextlib.nullcontext()


def shares_in_contexts() -> Tables:
    """Shares in two lines, in two batches."""
    rna, part = _beside(_shares)
    for each in (rna, part):
        each.obs["context"] = np.array(["A", "B"])[np.random.default_rng(0).integers(0, 2, each.n_obs)]
    with _columns_stay():
        data = md.MuData({"rna": rna, "psi": part})
    ds.tl.fit_technical(rna, batch_key="batch")
    ds.tl.fit_cis(data, CIS, mod="rna")
    ds.tl.fit_technical(data, batch_key="batch", mod="psi", **SHARES)
    ds.tl.fit_trans(data, mod="psi", cis_mod="rna")
    ds.tl.compare(data, "context", reference="A", mod="psi", n_null=20)
    return _of_contexts(part)


def screen() -> Tables:
    """Three targets: one that acts, one that does not, one without a gene of its name."""
    adata = ds.datasets.titration(1200, 24, rng=0, n_ntc_guides=11)
    guide, target = (adata.obs[c].astype(str).to_numpy(object) for c in ("guide", "target"))
    target[np.isin(guide, [f"GFI1B_g{i:02d}" for i in (2, 5, 8, 11)])] = "promoter"
    target[np.isin(guide, [f"NTC_{i:02d}" for i in (7, 8, 9, 10)])] = "gene_0002"
    adata.obs["guide"], adata.obs["target"] = pd.Categorical(guide), pd.Categorical(target)
    ds.tl.fit_technical(adata, batch_key="batch")
    table = ds.tl.screen(adata, nsamples=100, progress=False)
    of_targets = ds.get.screen(table, "targets").drop(columns="seconds", errors="ignore")
    of_targets["cis_gene"] = ["" if pd.isna(name) else str(name) for name in of_targets["cis_gene"]]
    return {"features": ds.get.screen(table), "targets": of_targets}


DESIGNS = [
    counts,
    single_hill,
    additive_hill,
    polynomial,
    cells,
    many_ntc_guides,
    covariates,
    guide_matrix,
    binomial,
    multinomial,
    normal,
    studentt,
    two_contexts,
    several_contexts,
    ordered_contexts,
    shares_in_contexts,
    screen,
]


def _processor() -> str:
    """The kind of this processor, which decides how compiled code rounds."""
    return str(llvmlite.binding.get_host_cpu_name())


def _tolerance(name: str) -> dict[str, float]:
    if _processor() == PROCESSOR.read_text().strip():
        return {"rtol": RTOL, "atol": ATOL}
    most = ELSEWHERE if name in OF_CALLS else ELSEWHERE_DESCRIBED
    return {"rtol": most, "atol": most}


def _differences(found: pd.DataFrame, kept: pd.DataFrame) -> list[str]:
    """Names of the columns that are not as they were."""
    out = []
    for name in kept.columns:
        if name not in found:
            out.append(f"{name} is missing")
            continue
        have, want = found[name].reset_index(drop=True), kept[name].reset_index(drop=True)
        if pd.api.types.is_numeric_dtype(want) and pd.api.types.is_numeric_dtype(have):
            a, b = have.to_numpy(float, na_value=np.nan), want.to_numpy(float, na_value=np.nan)
            if not np.allclose(a, b, **_tolerance(str(name)), equal_nan=True):
                out.append(f"{name} by up to {np.nanmax(np.abs(a - b)):.3g}")
        elif not (_text(have) == _text(want)).all():
            out.append(name)
    return out


def _text(column: pd.Series) -> pd.Series:
    """Missing values as empty texts: pandas 3 keeps them where pandas 2 writes "nan"."""
    return column.astype(object).where(column.notna(), "").astype(str)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("design", DESIGNS, ids=lambda f: f.__name__)
def test_tables_are_as_they_were(design: Callable[[], Tables]) -> None:
    found = design()
    assert {path.name.split(".")[1] for path in FOLDER.glob(f"{design.__name__}.*.csv")} == set(found)
    for step, table in found.items():
        kept = pd.read_csv(FOLDER / f"{design.__name__}.{step}.csv", keep_default_na=False, na_values=[""])
        assert not (what := _differences(table, kept)), f"{step}: {what}"


@pytest.mark.parametrize(("name", "off", "same"), [("log_bf", 1e-3, True), ("log_bf", 0.1, False), ("x", 0.1, True)])
def test_another_processor_is_held_to_what_it_can_keep(
    name: str, off: float, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = pd.DataFrame({name: [0.5, np.nan]})
    monkeypatch.setattr(f"{__name__}._processor", lambda: PROCESSOR.read_text().strip())
    assert _differences(kept + off, kept)
    monkeypatch.setattr(f"{__name__}._processor", lambda: "another")
    assert bool(_differences(kept + off, kept)) != same
    assert _differences(kept.fillna(1.0), kept)


if __name__ == "__main__":
    if sys.argv[1:] and _processor() != PROCESSOR.read_text().strip():
        raise SystemExit(
            f"the tables are of {PROCESSOR.read_text().strip()}, this is {_processor()}: write all of them"
        )
    PROCESSOR.write_text(f"{_processor()}\n")
    for design in [each for each in DESIGNS if each.__name__ in sys.argv[1:] or not sys.argv[1:]]:
        for step, table in design().items():
            table.to_csv(FOLDER / f"{design.__name__}.{step}.csv", index=False, float_format="%.12g")
