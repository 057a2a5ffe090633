"""Bad input to every public function: an error that says what was seen and what is allowed, and nothing is changed.

The cases are made from the signatures, so that a new function or argument is tested as soon as it is public.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import dream_sc as ds

pytestmark = pytest.mark.usefixtures("few_null_features")

PACKAGE = Path(ds.__file__).parent
NAMESPACES = ("pp", "tl", "get", "pl", "io", "datasets", "memory")
DATA = ("data", "adata")
ERRORS = (ValueError, KeyError, TypeError, FileNotFoundError)
# a message says what to do by one of these
ADVICE = re.compile(
    r"\b(use|call|name|give|pass|leave|choose|drop|check|there (is|are)|did you mean|must be|needs?|is not there|"
    r"known|only|rename|it (has|holds|takes)|between|above|not in|set|no column|"
    r"or more|from 0 to|names of|targets are|stores as|see|neither)\b"
)
FUNCTIONS = {
    f"{namespace}.{name}": getattr(module, name)
    for namespace in NAMESPACES
    for module in [import_module(f"dream_sc.{namespace}")]
    for name in module.__all__
    if inspect.isfunction(getattr(module, name))
}
UNKNOWN = "no such thing"
LABELS = ("control", "cis_targets", "reference")
ANYTHING = ("options",)
# negative numbers that mean something
NEGATIVE = {
    "near",
    "fold_change",
    "min_log2fc",
    "label",
    "limit",
    "n_jobs",
}
# names that are looked up: an unknown one is refused
LOOKED_UP = re.compile(r"key|mod|cis_mod|layer|gene_symbols|\w+_key|features?|batch_key|gene_ids|what|group|cis_gene")
# unless it is the name of what is written, or has no effect with the other arguments of the case
NOT_LOOKED_UP = {
    ("pp.size_factors", "guide_key"),
    ("pp.size_factors", "target_key"),
    ("tl.set_dosage", "technical_key"),
    ("tl.screen", "technical_key"),
    ("pp.assign_guides", "guide_key"),
    ("pp.assign_guides", "target_key"),
    ("pp.combine_guides", "guide_key"),
    ("pp.combine_guides", "target_key"),
    ("datasets.true_curve", "features"),
    ("pp.read_starsolo_sj", "features"),
    ("io.from_igvf", "layer"),
    ("io.from_scperturb", "guide_key"),
    ("io.from_scperturb", "layer"),
    ("memory.estimate_for", "target_key"),
    ("memory.estimate_for", "guide_key"),
    ("memory.estimate_for", "category_key"),
}


class Case(NamedTuple):
    """A wrong value of one argument."""

    function: str
    argument: str

    @property
    def annotation(self) -> str:
        return str(inspect.signature(FUNCTIONS[self.function]).parameters[self.argument].annotation)


def _arguments() -> Iterator[Case]:
    for name, function in FUNCTIONS.items():
        for p in inspect.signature(function).parameters.values():
            if p.kind is not p.VAR_KEYWORD and p.name not in ANYTHING:
                yield Case(name, p.name)


CASES = list(_arguments())


def _wrong(case: Case) -> list[Any]:
    """Values that an argument may not have, by its type and its name."""
    name, words = case.argument, set(re.findall(r"\w+", case.annotation))
    array, frame = np.array(["a", "b"]), pd.DataFrame({"a": [1]})
    if name in DATA and not words & {"str", "Estimate"}:
        return [None, 3, "x.h5ad", frame, np.arange(3.0), [3], sparse.csr_matrix((2, 2))]
    if name in LABELS:
        return [{"a": 1}, b"x", frame, np.zeros((2, 2)), ad.AnnData(np.zeros((2, 2)))]
    out: list[Any] = [b"x", lambda: None, 2j]
    if words & {"str", "Literal"} or _is_option(case):
        out += [3.5, {"a"}] if "float" not in words else [{"a"}]
        out += [array] if not words & {"Sequence", "Iterable", "list"} else [[3], [None], np.zeros((2, 2))]
        out += [["x"]] if not words & {"Sequence", "Iterable", "list"} else []
    if _is_option(case):
        out += [UNKNOWN, "", 7]
    if words & {"int", "float"} and "str" not in words:
        out += ["x", float("nan"), float("inf"), True, np.arange(3.0) if "Sequence" not in words else "y", [[3]]]
        out += [1.5] if "float" not in words else []
        out += [-7] if not words & {"tuple", "Sequence"} and name not in NEGATIVE else []
    if "bool" in words:
        out += ["no", 3, 1.0, np.array([True])]
    if "tuple" in words:
        out += ["x", 3, (1.0,), (float("nan"), 1.0), ("a", "b"), (1.0, 2.0, 3.0)]
        out += [(-1.0, 2.0)] if name == "figsize" else [(2.0, 1.0)]
    if words & {"Axes", "Mapping", "DataFrame", "ndarray", "AnnData"}:
        out += [3] if "float" not in words else []
    if (case.function, name) not in NOT_LOOKED_UP and "str" in words and LOOKED_UP.fullmatch(name):
        out += [UNKNOWN, ""]
        out += [[UNKNOWN]] if words & {"Sequence", "Iterable", "list"} else []
    if "PathLike" in words or "Path" in words:
        out += ["/no/such/folder/file"] if name in ("path", "folder") and "to_" not in case.function else []
    return out


def _is_option(case: Case) -> bool:
    from dream_sc._validate_types import _kinds

    kinds = _kinds(inspect.unwrap(FUNCTIONS[case.function])).get(case.argument, ())
    return bool(kinds) and all(kind.name in ("Literal", "None") for kind in kinds)


@pytest.fixture(scope="session")
def tiny() -> ad.AnnData:
    """One small object with the results of every step; no test may change it."""
    adata = ds.datasets.titration(300, 10, rng=0, n_guides=4)
    adata.layers["counts"] = adata.X.copy()
    adata.obsm["guide_umis"] = 9 * pd.get_dummies(adata.obs["guide"].astype(str)).astype(int)
    target = adata.obs.drop_duplicates("guide").set_index("guide")["target"].astype(str)
    adata.uns["guide_umis_target"] = [target[name] for name in adata.obsm["guide_umis"]]
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, function_type="single_hill")
    ds.tl.calibrate(adata, n=2)
    ds.tl.check_confounding(adata)
    adata.obs["line"] = np.where(np.arange(adata.n_obs) % 2, "one", "other")
    ds.tl.compare(adata, "line", n_null=0, progress=False)
    ds.tl.group_responses(adata)
    return adata


@pytest.fixture(scope="session")
def junctions(tiny: ad.AnnData) -> ad.AnnData:
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (tiny.n_obs, 3)).astype(float))
    var = pd.DataFrame([(101, 200), (101, 300), (261, 300)], ["left", "skip", "right"], columns=["start", "end"])
    return ad.AnnData(counts, tiny.obs[[]].copy(), var.assign(chrom="chr1", strand="+", gene="g1"))


def _state(adata: ad.AnnData) -> str:
    """A hash of all that an object holds."""
    out = hashlib.sha256()
    for frame in (adata.obs, adata.var):
        out.update(pd.util.hash_pandas_object(frame).to_numpy().tobytes())
        out.update(str(list(frame.columns)).encode())
    out.update(np.asarray(adata.X.data).tobytes())
    for store in (adata.uns, adata.obsm, adata.varm, adata.layers):
        out.update("".join(f"{key}:{type(store[key]).__name__};" for key in sorted(store)).encode())
    out.update(np.asarray(adata.varm["trans"].select_dtypes("number")).tobytes())
    return out.hexdigest()


def _required(case: Case, tiny: ad.AnnData, junctions: ad.AnnData, folder: Path) -> dict[str, Any]:
    """Valid values of the arguments that a function cannot do without, but the one of the case."""
    splice = any(word in case.function for word in ("usage", "skipping", "psi"))
    known = {
        **dict.fromkeys(DATA, junctions if splice else tiny),
        "features": "gene_0002",
        "feature": "gene_0002",
        "cis_gene": "GFI1B",
        "by": "batch",
        "path": str(folder / "file.xlsx"),
        "folder": str(folder / "out"),
        "dosage": dict.fromkeys(map(str, tiny.obs["guide"].unique()), 0.5),
        "guides": "guide_umis",
        "doses": [0.5],
        "n_features": 100,
        "n_cells": 100,
        "table": pd.DataFrame(
            {
                "names": tiny.var_names[1:7],
                "logfoldchanges": np.linspace(-1, 1, 6),
                "pvals": np.linspace(0.1, 0.9, 6),
                "pvals_adj": np.linspace(0.1, 0.9, 6),
            }
        ),
        "targets": {"a": "b"},
        "grna_target_data_frame": pd.DataFrame({"grna_id": ["a"], "grna_target": ["b"]}),
        "response_matrix": pd.DataFrame({"c1": [1]}, ["g"]),
        "grna_matrix": pd.DataFrame({"c1": [1]}, ["a"]),
    }
    parameters = inspect.signature(FUNCTIONS[case.function]).parameters.values()
    missing = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    given = {name: known.get(name) for name in missing if name != case.argument}
    if case.function == "pp.combine_guides" and case.argument != "guides":
        given["guides"] = "guide_umis"
    if case.function in ("get.screen", "pl.screen", "pl.screen_data") and case.argument != "data":
        given["data"] = pd.DataFrame({"target": ["t"], "feature": ["f"], "qvalue_union": [0.1]})
    return given


def _check_error(error: BaseException, case: Case, value: Any) -> None:
    text, where = str(error), f"{case.function}({case.argument}={value!r})"
    assert isinstance(error, ERRORS), f"{where} raised {type(error).__name__}: {text}"
    deepest = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    assert deepest.is_relative_to(PACKAGE), f"{where} failed in {deepest}: {text}"
    seen = [case.argument, case.argument.rstrip("s"), type(value).__name__]
    seen += [repr(value), *(map(str, value) if isinstance(value, list | set | tuple) and value else ())]
    seen += [value] if isinstance(value, str) and value else []
    assert any(each in text for each in seen), f"{where} does not say what was seen: {text}"
    assert ADVICE.search(text), f"{where} does not say what is allowed: {text}"


@pytest.mark.filterwarnings("ignore:only .* NTC guides:UserWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.function}-{case.argument}")
def test_a_wrong_value_is_refused(
    case: Case, tiny: ad.AnnData, junctions: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = _state(tiny)
    for value in _wrong(case):
        given = _required(case, tiny, junctions, tmp_path) | {case.argument: value}
        with pytest.raises(Exception) as caught:  # noqa: PT011 (of any kind: its kind is what is tested)
            FUNCTIONS[case.function](**given)
        _check_error(caught.value, case, value)
    assert _state(tiny) == before
    assert not list(tmp_path.rglob("*.h5ad"))


def test_there_are_many_cases() -> None:
    assert len(FUNCTIONS) > 50
    assert sum(len(_wrong(case)) for case in CASES) > 2000
