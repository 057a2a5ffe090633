"""What is refused by name before anything is fitted, drawn or written: the message tells it, and nothing is changed."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import mudata as md
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds
from dream_sc._cli.main import main
from dream_sc._data.formula import allowed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLAN = {"n_cells_per_guide": 50, "log2_dosages": [-3, -2, -1]}
GOAL = {"power": 0.8, "log2fc": 1.0, "mean": 1.0}


@pytest.fixture(scope="module")
def started() -> ad.AnnData:
    """A screen whose technical step has run."""
    adata = ds.datasets.titration(300, 10, rng=0, n_guides=4)
    rng = np.random.default_rng(0)
    adata.obs["x"], adata.obs["g"] = rng.normal(size=300), pd.Categorical(rng.choice(["a", "b", "c"], 300))
    adata.obs["many"] = [f"level {i}" for i in range(300)]
    adata.obs["gaps"] = np.where(rng.random(300) < 0.1, None, "a")
    adata.obs["alone"] = "a"
    adata.layers["other"] = adata.X.copy()
    ds.tl.fit_technical(adata, batch_key="batch")
    return adata


def _state(adata: ad.AnnData) -> dict[str, Any]:
    slots = {"obs": list(adata.obs), "var": list(adata.var), "layers": list(adata.layers)}
    return slots | {"uns": copy.deepcopy(sorted(adata.uns)), "obsm": sorted(adata.obsm), "varm": sorted(adata.varm)}


FORMULAS = {
    "g + 'abc": "' at character 5 is not closed",
    "g + ``": "backticks at character 5 are empty",
    "bs(x, df=5, knots=[0.5])": "df= and knots= are both given",
    "bs(x, knots=[99.0])": "are not all between",
    "bs(x, df=4": "is not allowed there",
    "bs(x, df=4, 3)": "after an option with its name",
    "bs(x, nope=4)": "not an option, bs() has the options",
    "bs(x, df=4, df=5)": "twice, bs() has the options",
    "bs(x, df='a')": "df= of bs() is",
    "(" * (allowed.DEEPEST + 1) + "x" + ")" * (allowed.DEEPEST + 1): "brackets in brackets",
    "x + " * allowed.MOST_CHARACTERS + "x": "characters, more than",
    ":".join(f"a{i}" for i in range(allowed.MOST_FACTORS + 1)): "an interaction of more than",
}


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda text: text[:20])
def test_formulas(started: ad.AnnData, formula: str) -> None:
    adata = started.copy()
    before = _state(adata)
    with pytest.raises((ValueError, KeyError)) as error:
        ds.tl.fit_technical(adata, batch_key="batch", covariates=f"{formula} + x", key_added="again")
    assert FORMULAS[formula] in str(error.value)
    assert _state(adata) == before


def _dosages(adata: ad.AnnData, change: Callable[[dict[str, float]], Any], **how: Any) -> None:
    labels = adata.obs["guide"].astype(str).unique()
    ds.tl.set_dosage(adata, change({name: 1.0 if "NTC" in name else 0.5 for name in labels}), key_added="known", **how)


def _twice(given: dict[str, float]) -> pd.Series:
    one = pd.Series(given)
    return pd.concat([one, one.iloc[:1]])


STEPS: dict[str, tuple[Callable[[ad.AnnData], Any], str]] = {
    "shares without what they are out of": (
        lambda a: ds.tl.fit_technical(a, distribution="binomial", key_added="s"),
        "needs denominator_layer=",
    ),
    "shares out of themselves": (
        lambda a: ds.tl.fit_technical(a, distribution="binomial", layer="other", denominator_layer="other"),
        "are both 'other'",
    ),
    "a batch without a share of ambient counts": (
        lambda a: ds.tl.fit_technical(a, batch_key="batch", ambient={"batch_1": 0.1}, key_added="s"),
        "ambient= has no share of ['batch_2']",
    ),
    "batches with gaps": (lambda a: ds.tl.fit_technical(a, batch_key="gaps", key_added="s"), "holds missing labels"),
    "size factors of groups with gaps": (
        lambda a: ds.pp.adjust_size_factors(a, by="gaps", key_added="s"),
        "holds missing labels",
    ),
    "stable features of cells without a target": (
        lambda a: ds.pp.size_factors(a, method="stable", guide_key="alone", target_key=None, key_added="s"),
        "holds only one beside missing labels",
    ),
    "guides of a few cells": (
        lambda a: ds.tl.fit_cis(a, "GFI1B", min_cells_per_guide=299),
        "lower min_cells_per_guide, or check guide_key",
    ),
    "a prior without its sd": (
        lambda a: ds.tl.fit_cis(a, "GFI1B", guide_prior=pd.DataFrame({"log2_dosage": [0.0]}, ["g"])),
        "guide_prior has no column ['sd']",
    ),
    "a dosage twice": (lambda a: _dosages(a, _twice), "twice"),
    "a dosage that is none": (
        lambda a: _dosages(a, lambda d: {k: v - (v < 1) for k, v in d.items()}),
        "with scale='relative': they are fractions",
    ),
    "a table without dosages": (
        lambda a: _dosages(a, lambda d: pd.DataFrame({"dose": d})),
        "dosage is a table without a column 'dosage'",
    ),
    "dosages that are no table": (lambda a: _dosages(a, lambda d: 3), "dosage=3, an int, is not allowed"),
    "controls away from 1": (
        lambda a: _dosages(a, lambda d: {k: 4 * v for k, v in d.items()}),
        "control cells have a mean dosage of 4",
    ),
    "a key that is no text": (lambda a: ds.get.trans(a, key=3), "key=3, an int, is not allowed: use a text"),
    "a result of something else": (lambda a: ds.get.trans(a, key="technical"), "name its key"),
}


@pytest.mark.parametrize("what", STEPS)
def test_steps(started: ad.AnnData, what: str) -> None:
    adata, (call, message) = started.copy(), STEPS[what]
    before = _state(adata)
    with pytest.raises((ValueError, KeyError, TypeError)) as error:
        call(adata)
    assert message in str(error.value)
    assert _state(adata) == before


def test_names_of_a_mudata_and_names_twice(started: ad.AnnData) -> None:
    data = md.MuData({"rna": started.copy()})
    with pytest.raises(TypeError, match="mod=3, an int, is not allowed"):
        ds.tl.fit_technical(data, mod=3)
    twice = started.copy()
    twice.obs_names = ["a", *twice.obs_names[:-1]]
    twice.obs_names = ["a", "a", *twice.obs_names[2:]]
    with pytest.raises(ValueError, match=r"obs_names holds duplicates, 'a' for one: call \.obs_names_make_unique"):
        ds.tl.fit_technical(twice)


def test_infinite_scores_and_shares_above_one(started: ad.AnnData) -> None:
    obs = started.obs[["guide", "target", "batch"]]
    values = np.random.default_rng(0).normal(size=(300, 3))
    values[5, 1] = np.inf
    scores = ad.AnnData(values, obs.copy())
    with pytest.raises(ValueError, match=r"holds infinite scores.*a missing score is NaN"):
        ds.tl.fit_technical(scores, distribution="normal", batch_key="batch")
    shares = ad.AnnData(sparse.csr_matrix(np.full((300, 3), 2.0)), obs.copy())
    shares.layers["of"] = sparse.csr_matrix(np.ones((300, 3)))
    with pytest.raises(ValueError, match=r"is above .* 900 times.*a count cannot exceed what it is out of"):
        ds.tl.fit_technical(shares, distribution="binomial", denominator_layer="of", batch_key="batch")


PLANS: dict[str, tuple[Callable[[], Any], str]] = {
    "no plan": (lambda: ds.design.power(None, pd.DataFrame(columns=list(PLAN))), "a table without rows"),
    "more guides than cells": (
        lambda: ds.design.power(None, {**PLAN, "n_ntc_guides": 9, "n_ntc_cells": 3}),
        "n_ntc_guides=9 for n_ntc_cells=3",
    ),
    "no cells": (lambda: ds.design.power(None, {**PLAN, "n_cells_per_guide": 0}), "use a number above 0"),
    "no noise": (lambda: ds.design.power({"overdispersion": "x"}, PLAN), "pilot= has overdispersion='x'"),
    "noise below 0": (lambda: ds.design.power({"overdispersion": -1}, PLAN), "pilot= has overdispersion=-1"),
    "noise of other levels": (
        lambda: ds.design.power({"overdispersion": [0.1, 0.2], "level": [1, 2, 3]}, PLAN),
        "has 2 overdispersions for 3 levels",
    ),
    "what is to be found": (
        lambda: ds.design.cheapest(None, GOAL, cost_per_cell=1, plan={**PLAN, "depth": 1}),
        "['depth', 'n_cells_per_guide'], which are to be found",
    ),
    "cells the wrong way round": (
        lambda: ds.design.cheapest(None, GOAL, cost_per_cell=1, cells_range=(50, 10)),
        "cells_range=(50, 10) is reversed",
    ),
    "dosages the wrong way round": (
        lambda: ds.datasets.titration(dosage_range=(1, -3)),
        "dosage_range=(1, -3) is reversed",
    ),
    "a table of something else": (
        lambda: ds.pl.power(pd.DataFrame({"mean": [1.0]})),
        "the table lacks ['log2fc', 'power']",
    ),
}


@pytest.mark.parametrize("what", PLANS)
def test_plans(what: str) -> None:
    call, message = PLANS[what]
    with pytest.raises((ValueError, KeyError, TypeError)) as error:
        call()
    assert message in str(error.value)


FITTED: dict[str, tuple[Callable[[ad.AnnData, Path], Any], str]] = {
    "a fold change of 0": (lambda a, _: ds.get.doses(a, fold_change=0), "a log2 fold change other than 0"),
    "a feature that is not there": (lambda a, _: ds.get.posterior(a, "gene_2"), "feature 'gene_2' is not in var_names"),
    "nothing to draw": (lambda a, _: ds.pl.dose_response(a, []), "features=[] names nothing to draw"),
    "colours that end at 0": (lambda a, _: ds.pl.heatmap(a, limit=0), "colours end at a change above 0"),
    "no folder": (lambda a, _: ds.io.to_igvf(a, ""), "folder='' names no folder"),
    "a folder that is a file": (lambda a, p: ds.io.to_igvf(a, p / "file"), "is a file"),
    "an order that is a list": (
        lambda a, _: ds.tl.compare(a, "batch", order=[1, 2], key_added="c"),
        "order=[1, 2], a list, is not allowed: use a mapping",
    ),
    "a checkpoint that is a number": (
        lambda a, _: ds.tl.fit_trans(a, checkpoint=3, key_added="c"),
        "checkpoint=3, an int, is not allowed: use a text or a path",
    ),
}


@pytest.mark.parametrize("what", FITTED)
def test_fits(titration_fit: ad.AnnData, tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_text("")
    call, message = FITTED[what]
    before = _state(titration_fit)
    with pytest.raises((ValueError, KeyError, TypeError, OSError)) as error:
        call(titration_fit, tmp_path)
    assert message in str(error.value)
    assert _state(titration_fit) == before
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _reference(folder: Path, text: str) -> Path:
    (folder / "table").write_text(text)
    return folder / "table"


FILES: dict[str, tuple[Callable[[ad.AnnData, Path], Any], str]] = {
    "calls of another tool": (
        lambda a, p: ds.io.protospacer_calls(a, _reference(p, "a,b\n1,2\n")),
        "is it CellRanger's calls?",
    ),
    "strengths of another tool": (
        lambda a, p: ds.io.guide_strengths(_reference(p, "a\tb\n1\t2\n")),
        "is it sgrna_summary.txt of mageck test?",
    ),
    "a run without a matrix": (lambda a, p: ds.io.read_cellranger(p), "matrix"),
    "a modality that is not there": (
        lambda a, p: ds.io.from_pertpy(md.MuData({"rna": a}), "guides", mod="rna"),
        "guides='guides' is no modality",
    ),
    "targets of other columns": (
        lambda a, p: ds.io.from_sceptre(
            np.ones((2, 3)),
            np.ones((1, 3)),
            grna_target_data_frame=pd.DataFrame({"guide": ["g"]}),
            response_names=["a", "b"],
            grna_names=["g"],
            cell_names=["x", "y", "z"],
        ),
        "grna_target_data_frame has no columns",
    ),
    "a matrix without genes": (
        lambda a, p: ds.io.read_cellranger(_folder(p, "g1\tg1\tOther\n")),
        "no features of type",
    ),
    "a matrix with short lines": (
        lambda a, p: ds.io.read_cellranger(_folder(p, "g1\tg1\tGene Expression\ng2\n")),
        "line 2 of",
    ),
    "a matrix without barcodes": (
        lambda a, p: (_folder(p, "g1\tg1\n") / "barcodes.tsv").unlink() or ds.io.read_cellranger(p),
        "has no barcodes.tsv, plain or gzipped",
    ),
    "a reference without guides": (
        lambda a, p: ds.io.read_cellranger(
            _folder(p, "g1\tg1\tGene Expression\ns1\ts1\tCRISPR Guide Capture\n"),
            _reference(p, "id,feature_type,target_gene_id\nCD3,Antibody Capture,\n"),
        ),
        "has no rows with feature_type 'CRISPR Guide Capture'",
    ),
    "guides that are no object": (lambda a, p: ds.io.from_pertpy(a, 3), "guides="),
    "a cell twice among calls": (
        lambda a, p: ds.io.protospacer_calls(a, _reference(p, CALLS + "c1,1,g,2\nc1,1,g,2\n")),
        "cell 'c1' was in line 2 already",
    ),
    "a call of too many fields": (
        lambda a, p: ds.io.protospacer_calls(a, _reference(p, CALLS + "c1,1,g,2,3\n")),
        "it has 5 fields, the header 4",
    ),
    "no guides but a perturbation": (
        lambda a, p: ds.io.from_scperturb(
            ad.AnnData(np.ones((2, 2)), pd.DataFrame({"perturbation": ["control", "A"], "nperts": [0, 0]}, ["x", "y"]))
        ),
        "1 cells have nperts of 0 but a perturbation other than 'control'",
    ),
    "covariates of fewer cells": (
        lambda a, p: ds.io.from_sceptre(
            np.ones((2, 3)),
            np.ones((2, 3)),
            grna_target_data_frame=pd.DataFrame({"grna_id": ["g", "n"], "grna_target": ["a", "non-targeting"]}),
            response_names=["a", "b"],
            grna_names=["g", "n"],
            cell_names=["x", "y", "z"],
            extra_covariates=pd.DataFrame({"batch": [1, 2]}),
        ),
        "extra_covariates has 2 rows, but there are 3 cells",
    ),
    "a path that is a number": (lambda a, p: ds.io.to_tsv(a, 3), "path=3, an int, is not allowed"),
    "a screen that is a number": (lambda a, p: ds.get.screen(3), "data"),
    "a file with modalities": (lambda a, p: ds.memory.estimate_for(_mudata(a, p)), "holds a MuData: open it"),
    "a file of something else": (lambda a, p: ds.memory.estimate_for(_hdf5(p)), "has no tables obs and var"),
}


CALLS = "cell_barcode,num_features,feature_call,num_umis\n"


def _folder(folder: Path, features: str) -> Path:
    """A matrix of Cell Ranger of three cells, with these lines of features."""
    n = features.count("\n")
    (folder / "matrix.mtx").write_text(
        f"%%MatrixMarket matrix coordinate integer general\n{n} 3 {n}\n" + "".join(f"{i + 1} 1 2\n" for i in range(n))
    )
    (folder / "features.tsv").write_text(features)
    (folder / "barcodes.tsv").write_text("c1\nc2\nc3\n")
    return folder


def _mudata(adata: ad.AnnData, folder: Path) -> Path:
    md.MuData({"rna": adata[:20, :2].copy()}).write(folder / "both.h5mu")
    return folder / "both.h5mu"


def _hdf5(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = np.ones(3)
    return folder / "a.h5"


@pytest.mark.parametrize("what", FILES)
def test_files(started: ad.AnnData, tmp_path: Path, what: str) -> None:
    call, message = FILES[what]
    with pytest.raises((ValueError, KeyError, TypeError, OSError)) as error:
        call(started.copy(), tmp_path)
    assert message in str(error.value)


COMMANDS = {
    "give the file of the data and --cis": ["fit", "-o", "out"],
    "give an h5ad file, or both --features and --cells": ["memory", "--features", "3"],
    "are of an h5ad file: give one": ["memory", "--features", "3", "--cells", "9", "--batch-key", "batch"],
    "is no folder: give that of": ["collect", "nowhere"],
    "holds results (fitted.h5ad) already": ["fit", "full/fitted.h5ad", "--cis", "GFI1B", "-o", "full"],
}


@pytest.mark.parametrize("message", COMMANDS)
def test_the_shell(
    message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "fitted.h5ad").write_text("of an earlier fit")
    assert main(COMMANDS[message]) != 0
    assert message in capsys.readouterr().err
    assert (tmp_path / "full" / "fitted.h5ad").read_text() == "of an earlier fit"
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_module_without_the_name() -> None:
    with pytest.raises(AttributeError, match=r"module 'dream_sc\.tl' has no attribute 'fit_everything'"):
        ds.tl.fit_everything  # noqa: B018
