"""Formulas of covariates are data: what is refused, what the columns are, and what a file may say."""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import anndata as ad
import formulaic.materializers.base
import formulaic.parser
import numpy as np
import pandas as pd
import pytest
from formulaic import ModelSpec
from formulaic.utils import stateful_transforms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dream_sc as ds
from dream_sc._data import covariates as _covariates
from dream_sc._data import formula as _formula
from dream_sc._data.formula import allowed, encode, factor_columns, parser, tree
from dream_sc._data.formula.state import state_of

N = 120

# Each would run something, reach an attribute, or is of the wider language of formulas.
PAYLOADS = {
    "backtick in a text": "C('`' + str(__import__('os').system('touch x')) + '`')",
    "backticks around code": "C(`x` + str(__import__('os').system('touch x')) + `x`)",
    "backticks in a text, other quotes": 'log("`" + str(__import__("os").system("touch x")) + "`")',
    "backticks that nest": "log(`a` if __import__('os').system('touch x') else `b`)",
    "backtick not closed": "log(`x) + __import__('os').system('touch x')",
    "empty backticks": "log(``)+__import__('os').system('touch x')",
    "call": "__import__('os').system('touch x')",
    "call in a call": "log(__import__('os').system('touch x'))",
    "call in an option": "bs(x, df=__import__('os').system('touch x'))",
    "call in a list": "bs(x, knots=[__import__('os').system('touch x')])",
    "call in a contrast": "C(g, contr.treatment(base=__import__('os').system('touch x')))",
    "call as a contrast": "C(g, __import__('os').system('touch x'))",
    "call after a keyword": "bs(x, df=4, _state=__import__('os').system('touch x'))",
    "keywords that unpack": "bs(x, **{'df': __import__('os').system('touch x')})",
    "arguments that unpack": "bs(*[__import__('os').system('touch x')])",
    "call of a call": "log(x)(__import__('os').system('touch x'))",
    "exec": "exec(\"__import__('os').system('touch x')\")",
    "eval": "eval('1')",
    "open": "open('x', 'w')",
    "attribute": "x.__class__",
    "attribute of a call": "log(x).__class__",
    "attribute of a text": "C('x'.__class__)",
    "attribute of a column": "log(x.__class__.__mro__)",
    "subclasses": "().__class__.__base__.__subclasses__()",
    "dunder of a function": "log.__globals__",
    "method of a column": "x.map(print)",
    "to_pickle": "C(x.to_pickle('x'))",
    "lambda": "(lambda: __import__('os').system('touch x'))()",
    "lambda in a call": "log(lambda: 1)",
    "comprehension": "C([c for c in 'ab'])",
    "generator": "log(c for c in x)",
    "f-string": 'C(f\'{__import__("os").system("touch x")}\')',
    "f-string as an option": "bs(x, extrapolation=f'{x}')",
    "bytes": "bs(x, extrapolation=b'clip')",
    "walrus": "log(y := x)",
    "conditional": "log(x if x else x)",
    "comparison": "log(x > 1)",
    "await": "log(await x)",
    "yield": "log((yield x))",
    "starred": "log(*x)",
    "subscript": "log(x[0])",
    "subscript of a formula": "x[0]",
    "slice": "C(x[::-1])",
    "dict": "C({'a': 1})",
    "set": "C({1, 2})",
    "python quotation": "{__import__('os').system('touch x')}",
    "python quotation of a column": "{x}",
    "python quotation in brackets": "(x + {x.__class__})",
    "identity": "I(x)",
    "Q": "Q('x')",
    "hashed": "hashed(g, levels=10)",
    "lag": "lag(x)",
    "numpy function": "np.load('x')",
    "numpy module": "np.os.system('touch x')",
    "numpy attribute": "np.log.__call__(x)",
    "numpy of another": "np.bs(x, df=4)",
    "nested numpy": "np.np.log(x)",
    "numpy from a text": "np.fromfile('x')",
    "contrast as a term": "contr.treatment(base='a')",
    "contrast of another kind": "C(g, contr.poly())",
    "contrast of weights": "C(g, {'a': [1, 0, 0]})",
    "left-hand side": "x ~ y",
    "parts": "x | y",
    "wildcard": ".",
    "wildcard in a sum": "x + .",
    "dot": "x + .y",
    "every other": "x - .",
    "power": "(x + y)**2",
    "power sign": "(x + y)^2",
    "nested": "x / y",
    "in": "x %in% y",
    "percent": "x % y",
    "matrix product": "x @ y",
    "bits": "x & y",
    "stages": "[x ~ y]",
    "sum in a function": "log(x + 1)",
    "comment": "x # + __import__('os').system('touch x')",
    "newline": "x\nimport os",
    "semicolon": "x; import os",
    "escape in a text": r"bs(x, extrapolation='\x63lip')",
    "escape of a quote": r"C(g, contr.treatment(base='\'+1'))",
    "two texts": "bs(x, extrapolation='cl' 'ip')",
    "text as a term": "'x'",
    "number as a term": "x + 2",
    "number times a column": "2:x",
    "one times a column": "(1 + x):y",
    "number with a letter": "bs(x, df=4j)",
    "number with a line": "bs(x, df=1_0)",
    "hexadecimal": "bs(x, df=0x4)",
    "digits of another script": "bs(x, df=٤)",
    "look-alike function": "ｌｏｇ(x)",
    "look-alike letter": "lоg(x)",
    "look-alike bracket": "log（x）",
    "italic name": "𝑙𝑜𝑔(x)",
    "italic import": "__𝑖mport__('os').system('touch x')",
    "space that is none": "log\u00a0(x)",
    "zero width": "lo\u200bg(x)",
    "null": "x\0+y",
    "half a character": "x + \ud800",
    "option of no name": "bs(x, 4, 5, 6, 7, 8, 9, 10, 11)",
    "option twice": "bs(x, df=4, df=5)",
    "option unknown": "bs(x, data=4)",
    "option of another type": "bs(x, df='4')",
    "option that is a column": "bs(x, df=y)",
    "None": "bs(x, df=None)",
    "negative": "bs(x, df=-1)",
    "infinite": "bs(x, lower_bound=1e999)",
    "options in the wrong order": "bs(x, df=4, 3)",
    "no argument": "log()",
    "argument by name": "log(x=x)",
    "bracket not closed": "log(x",
    "bracket that closes": "x)",
    "adjacent": "x y",
    "two signs": "x + * y",
    "spline of a spline": "bs(bs(x, df=4), df=4)",
    "factor of a function": "C(log(x))",
    "huge spline": "bs(x, df=1000000000)",
    "huge degree": "poly(x, 1000000000)",
    "huge list": f"bs(x, knots=[{', '.join('1' * 1000)}])",
    "long": "x + " * 6000 + "x",
    "deep": "(" * 5000 + "x" + ")" * 5000,
    "deep calls": "log(" * 5000 + "x" + ")" * 5000,
    "deep lists": "bs(x, knots=" + "[" * 5000,
    "many terms": "*".join(f"(x + y + `p m` + k + g + h + log(x) + bs(x, df={i + 4}))" for i in range(6)),
    "wide interaction": ":".join(["x", "y", "k", "g", "h", "t"]),
}


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """What a payload would reach is caught, no text of one is ever compiled, and no file appears."""
    monkeypatch.chdir(tmp_path)
    ran: list[str] = []

    def caught(name: str) -> Any:
        return lambda *_, **__: ran.append(name)

    def watched(name: str) -> Any:
        own = getattr(builtins, name)

        def call(source: Any, *arguments: Any, **keywords: Any) -> Any:
            if isinstance(source, str) and re.search("touch|__class__|lambda", source):
                ran.append(name)
            return own(source, *arguments, **keywords)

        return call

    monkeypatch.setattr(os, "system", caught("system"))
    monkeypatch.setattr(subprocess, "Popen", caught("Popen"))
    for name in ("eval", "exec", "compile"):
        monkeypatch.setattr(builtins, name, watched(name))
    for owner in (stateful_transforms, formulaic.materializers.base):
        monkeypatch.setattr(owner, "stateful_eval", caught("formulaic"))
    yield
    monkeypatch.undo()
    assert not ran
    assert not (tmp_path / "x").exists()


def _frame() -> pd.DataFrame:
    r = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "x": r.normal(size=N) + 5,
            "y": np.round(r.normal(size=N)),
            "p m": r.uniform(0, 9, N),
            "a.b": r.normal(size=N),
            "g": pd.Categorical(r.choice(list("abc"), N)),
            "h": pd.Categorical(r.choice(list("uv"), N)),
            "k": r.integers(0, 3, N),
            "t": r.random(N) < 0.5,
            "one": pd.Categorical(["z"] * N),
            "é": r.normal(size=N),
        },
        index=[f"cell{i}" for i in range(N)],
    )


@pytest.fixture(scope="module")
def small() -> ad.AnnData:
    return ad.AnnData(np.zeros((N, 1)), obs=_frame())


@pytest.fixture(scope="module")
def fitted() -> ad.AnnData:
    """Two steps of a small screen with a factor, a spline and a scale."""
    adata = ds.datasets.titration(900, 8, rng=4)
    r = np.random.default_rng(4)
    adata.obs["x"], adata.obs["y"] = r.normal(size=900), r.normal(size=900)
    adata.obs["g"] = pd.Categorical(r.choice(list("abc"), 900))
    ds.tl.fit_technical(adata, covariates="g + bs(x, df=4, extrapolation='clip') + scale(y)")
    ds.tl.fit_cis(adata, "GFI1B")
    return adata


def _first(adata: ad.AnnData, covariates: Any) -> Any:
    """What `tl.fit_technical` makes of its argument."""
    formula = _formula.formula_of(adata, covariates)
    used = np.ones(adata.n_obs, dtype=bool)
    return _covariates.first_design(adata, formula, used, np.zeros(adata.n_obs, dtype=int), ["all"])


def _through_file(adata: ad.AnnData, path: Path) -> ad.AnnData:
    adata.write_h5ad(path)
    return ad.read_h5ad(path)


# ---- nothing runs ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_an_argument_is_refused(small: ad.AnnData, payload: str) -> None:
    with pytest.raises(ValueError, match="is no formula") as error:
        _first(small, payload)
    assert "bs', 'center', 'cr'" in str(error.value)
    assert len(str(error.value)) < 2000


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_a_stored_formula_is_refused(fitted: ad.AnnData, payload: str) -> None:
    technical = dict(fitted.uns["technical"]) | {"params": dict(fitted.uns["technical"]["params"])}
    technical["params"]["covariates"] = payload
    used = np.ones(fitted.n_obs, dtype=bool)
    for call in (
        lambda: _covariates.design_again(fitted, technical, used),
        lambda: _covariates.factors(fitted, technical),
        lambda: _covariates.log_factors(fitted, technical, "technical", 1, used),
        lambda: _covariates.cell_bins(fitted, technical, "technical", used),
    ):
        with pytest.raises(ValueError, match=r"bs', 'center', 'cr'.*Call dream_sc\.tl\.fit_technical again"):
            call()


@pytest.fixture(scope="module")
def whole(fitted: ad.AnnData) -> ad.AnnData:
    adata = fitted.copy()
    ds.tl.fit_trans(adata, function_type="single_hill", rng=1)
    return adata


STEPS = {
    "cis": lambda a: ds.tl.fit_cis(a, "GFI1B", key_added="other"),
    "trans": lambda a: ds.tl.fit_trans(a, function_type="single_hill", key_added="other"),
    "confounding": lambda a: ds.tl.check_confounding(a),
    "calibrate": lambda a: ds.tl.calibrate(a, n=1, progress=False),
    "plot": lambda a: ds.pl.dose_response(a, a.var_names[2]),
}
SHORT = [PAYLOADS[n] for n in ("backtick in a text", "backticks around code", "python quotation", "walrus", "exec")]


@pytest.fixture(scope="module")
def edited(whole: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> list[ad.AnnData]:
    """What is read from files that say each of these."""
    adata, path = whole.copy(), tmp_path_factory.mktemp("edited") / "edited.h5ad"
    read = []
    for payload in SHORT:
        adata.uns["technical"]["params"]["covariates"] = payload
        read.append(_through_file(adata, path))
    return read


@pytest.mark.parametrize("step", STEPS)
def test_a_step_refuses_what_a_file_says(
    whole: ad.AnnData, edited: list[ad.AnnData], step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    STEPS[step](whole.copy())
    for again in edited:
        with pytest.raises(ValueError, match=r"is no formula.*allowed are"):
            STEPS[step](again.copy())
        assert not (tmp_path / "x").exists()


@pytest.mark.usefixtures("nothing_runs")
def test_fit_technical_refuses(fitted: ad.AnnData) -> None:
    for payload in SHORT:
        with pytest.raises(ValueError, match=r"is no formula.*allowed are"):
            ds.tl.fit_technical(fitted.copy(), covariates=payload)


# ---- what a file says of the state -----------------------------------------------------------------------------------

BASIS = "bs(x, df=4, extrapolation='clip')"
EDITS: dict[str, Any] = {
    "no json": "{",
    "python": "__import__('os').system('touch x')",
    "nested": "[" * 100_000,
    "list": "[]",
    "number": 5,
    "none": "null",
    "long": " " * 2_000_000,
    "not a number": '{"levels": NaN, "transforms": {}}',
    "no levels": lambda s: s.pop("levels"),
    "no transforms": lambda s: s.pop("transforms"),
    "more": lambda s: s.update(more=1),
    "levels of nothing": lambda s: s["levels"].update(none=["a"]),
    "levels as text": lambda s: s["levels"].update(g="a"),
    "no level": lambda s: s["levels"].update(g=[]),
    "level twice": lambda s: s["levels"].update(g=["a", "a"]),
    "level as list": lambda s: s["levels"].update(g=[["a"], "b"]),
    "many levels": lambda s: s["levels"].update(g=list(range(10**4))),
    "levels gone": lambda s: s["levels"].clear(),
    "number as factor": lambda s: s["levels"].update(x=["a"]),
    "state gone": lambda s: s["transforms"].pop(BASIS),
    "state of another": lambda s: s["transforms"].update(b={}),
    "state as list": lambda s: s["transforms"].update({BASIS: []}),
    "knots as text": lambda s: s["transforms"][BASIS].update(knots="__import__('os')"),
    "knots with text": lambda s: s["transforms"][BASIS]["knots"].__setitem__(2, "1"),
    "knots that fall": lambda s: s["transforms"][BASIS]["knots"].reverse(),
    "few knots": lambda s: s["transforms"][BASIS]["knots"].pop(),
    "many knots": lambda s: s["transforms"][BASIS].update(knots=[0.0] * 10**5),
    "infinite bound": lambda s: s["transforms"][BASIS].update(upper_bound=float("inf")),
    "huge bound": lambda s: s["transforms"][BASIS].update(upper_bound=10**400),
    "bound as truth": lambda s: s["transforms"][BASIS].update(upper_bound=True),
    "another key": lambda s: s["transforms"][BASIS].update(__class__="x"),
    "centre as text": lambda s: s["transforms"]["scale(y)"].update(center="x"),
    "centre gone": lambda s: s["transforms"]["scale(y)"].update(center=None),
    "scale as dict": lambda s: s["transforms"]["scale(y)"].update(scale={}),
    "scale of 0": lambda s: s["transforms"]["scale(y)"].update(scale=0.0),
    "scale below 0": lambda s: s["transforms"]["scale(y)"].update(scale=-1.0),
    "infinite scale": lambda s: s["transforms"]["scale(y)"].update(scale=float("inf")),
    "another ddof": lambda s: s["transforms"]["scale(y)"].update(ddof=0),
    "knot at a bound": lambda s: s["transforms"][BASIS]["knots"].__setitem__(4, s["transforms"][BASIS]["lower_bound"]),
}


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_state_is_refused(fitted: ad.AnnData, edit: Any) -> None:
    technical = dict(fitted.uns["technical"])
    state: Any = edit
    if callable(edit):
        found = json.loads(technical["covariates"]["state"])
        edit(found)
        state = json.dumps(found)
    technical["covariates"] = dict(technical["covariates"]) | {"state": state}
    used = np.ones(fitted.n_obs, dtype=bool)
    for call in (_covariates.factors, lambda a, t: _covariates.design_again(a, t, used)):
        with pytest.raises(ValueError, match=r"fit_technical again") as error:
            call(fitted, technical)
        assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("names", ["x"]),
        ("names", 5),
        ("names", [1, 2]),
        ("columns", ["x"]),
        ("columns", "x"),
        ("centre", "1"),
        ("centre", [1.0]),
        ("scale", [0.0] * 7),
        ("scale", {}),
        ("scale", [float("nan")] * 7),
        ("state", None),
    ],
)
def test_an_edited_entry_is_refused(fitted: ad.AnnData, key: str, value: Any) -> None:
    technical = dict(fitted.uns["technical"])
    technical["covariates"] = dict(technical["covariates"]) | {key: value}
    with pytest.raises(ValueError, match="fit_technical again"):
        _covariates.design_again(fitted, technical, np.ones(fitted.n_obs, dtype=bool))


def test_entries_of_other_types_are_refused(fitted: ad.AnnData) -> None:
    used = np.ones(fitted.n_obs, dtype=bool)
    for entry in ("x", [], {"names": []}):
        with pytest.raises(ValueError, match="fit_technical again"):
            _covariates.design_again(fitted, {"params": {}, "covariates": entry}, used)
    for params in (None, [], {}, {"covariates": 5}, {"covariates": b"x"}):
        technical = dict(fitted.uns["technical"]) | {"params": params}
        with pytest.raises(ValueError, match="fit_technical again"):
            _covariates.design_again(fitted, technical, used)
    adata = fitted.copy()
    adata.varm["technical_covariates"] = np.zeros((adata.n_vars, 2))
    with pytest.raises(ValueError, match=r"\.varm\['technical_covariates'\] is not there, or has not one column"):
        ds.tl.fit_cis(adata, "GFI1B")


def test_labels_that_were_numbers_are_said(fitted: ad.AnnData) -> None:
    adata = fitted.copy()
    adata.obs["y"] = pd.Categorical(["a"] * adata.n_obs)
    with pytest.raises(ValueError, match="'y' holds labels"):
        _covariates.design_again(adata, adata.uns["technical"], np.ones(adata.n_obs, dtype=bool))


# ---- what a file says of a trans fit ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("technical_key", 5),
        ("cis_key", ["cis"]),
        ("layer", 3.0),
        ("function_type", 1),
        ("degree", "2"),
        ("nsamples", 10**12),
        ("guide_effects", "yes"),
        ("distribution", 2),
        ("category_layers", "spliced"),
        ("min_denominator", "3"),
        ("dosage", np.zeros(3)),
    ],
)
def test_parameters_of_other_types_are_refused(whole: ad.AnnData, name: str, value: Any) -> None:
    adata = whole.copy()
    adata.uns["trans"]["params"][name] = value
    for call in (
        lambda: ds.get.posterior(adata),
        lambda: ds.tl.calibrate(adata, n=1, progress=False),
        lambda: ds.pl.dose_response(adata, adata.var_names[2]),
    ):
        with pytest.raises(ValueError, match=re.escape(f".uns['trans']['params'][{name!r}] is ")):
            call()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_weights", "half"),
        ("model_weights", [[1.0], [1.0, 2.0]]),
        ("model_weights", [1.0]),
        ("tau_log_mean", "0"),
        ("tau_log_sd", 0.0),
        ("wide_weight", 2.0),
        ("wide_sd", None),
        ("null_strength", "x"),
        ("null_strength", [2.0, 1.0]),
        ("null_threshold", float("nan")),
        ("null_rate", -1.0),
        ("curves", 5),
        ("guides", "GFI1B_g01"),
        ("guide_offsets", ["a"]),
        ("guide_wide_weight", [2.0]),
        ("guide_wide_sd", [-1.0]),
        ("guide_partner", [0.5]),
        ("guide_together", [0.1]),
        ("distribution", 5),
    ],
)
def test_learned_numbers_of_other_types_are_refused(whole: ad.AnnData, name: str, value: Any) -> None:
    adata = whole.copy()
    adata.uns["trans"]["hyper"][name] = value
    with pytest.raises(ValueError, match=r"hyper=.* (is|has) "):
        ds.tl.fit_trans(adata, function_type="single_hill", hyper=adata.uns["trans"]["hyper"])
    with pytest.raises(ValueError, match=r"\.uns\['trans'\]\['hyper'\].* (is|has) "):
        ds.tl.calibrate(adata, n=1, progress=False)


def test_learned_numbers_that_are_not_there_are_named(whole: ad.AnnData) -> None:
    for hyper in (5, "x", [], {}, {"curves": ["null"]}):
        with pytest.raises(ValueError, match=r"hyper= is not what dream_sc\.tl\.fit_trans stores"):
            ds.tl.fit_trans(whole.copy(), hyper=hyper)


# ---- numbers ---------------------------------------------------------------------------------------------------------

FORMULAS = [
    "x + a.b",
    "`p m` + `a.b`",
    "é",
    "log(x) + np.log1p(x)",
    "np.sqrt(`p m`) + log2(x) + log10(x) + np.log1p(x)",
    "g",
    "g*h",
    "g:h",
    "g*h - g",
    "x:g",
    "x*g - x",
    "h:g + g",
    "h:x:g",
    "y:x:y",
    "g*h*k",
    "C(k)*h*x",
    "one + x",
    "one*x",
    "t",
    "C(t)",
    "-x + y",
    "0 + g",
    "g - 1",
    "1 + x",
    "(x + y)*(g + h) - x:h",
    "x:x",
    "C(g, contr.treatment(base='b')) + x",
    "C(g, contr.treatment('c'))*h",
    "C(g, contr.sum())*h",
    "C(g, contr.sum()):C(h, contr.sum()):x + y*g",
    "C(h, contr.sum())*C(k, contr.sum()) - C(h, contr.sum())",
    "scale(x)",
    "scale( x , scale = False )",
    "scale(x, False)",
    "scale(x, ddof=0)",
    "scale(scale(x))",
    "center(np.log(x))",
    "center(`p m`)",
    "poly(x, 3)",
    "poly(x, 5):g",
    "poly(x, degree=2, raw=True)",
    "bs(x, df=4, extrapolation='clip') + scale(np.log1p(`p m`))",
    "bs(x, 4)",
    "bs(x, df=4)*g",
    "bs(y, df=7)",
    "bs(x, knots=[4, 5.50], degree=2, include_intercept=True)",
    "bs(x, df=5, include_intercept=True)*h",
    "bs(x, df=5, include_intercept=True):h",
    "bs(x, lower_bound=-1, upper_bound=12.0, df=4)",
    "bs(x, degree=1, df=2)",
    "bs(x, degree=0, df=2)",
    "bs(x)",
    *(f"bs(x, df=4, lower_bound=4.5, upper_bound=5.5, extrapolation='{w}')" for w in ("clip", "zero", "extend")),
    "cr(x, 2, constraints='center')",
    "cr(x, 3, constraints='center')",
    "cr(x, df=4, lower_bound=4.5, upper_bound=5.5, constraints='center', extrapolation='clip')",
]
ADD_UP = [  # formulaic does not see that these span the intercept, and keeps the first column
    "cr(x, df=3)",
    "cr(x, df=4)",
    "cr(x, knots=[5, 4.6])",
    *(f"cr(x, df=4, lower_bound=4.5, upper_bound=5.5, extrapolation='{w}')" for w in ("clip", "zero", "extend")),
]


def _columns(adata: ad.AnnData, text: str, states: Any = None, used: Any = None) -> Any:
    formula = _formula.read(text)
    obs = adata.obs
    levels = {
        c: list(obs[c].cat.categories) if hasattr(obs[c], "cat") else sorted(obs[c].unique().tolist())
        for c in factor_columns(adata, formula)
    }
    used = np.ones(adata.n_obs, dtype=bool) if used is None else used
    return (*encode(adata, formula, levels, states, used), levels, formula)


def _by_formulaic(text: str) -> tuple[list[str], np.ndarray, dict[str, Any]]:
    frame = _frame().reset_index(drop=True)
    matrix = ModelSpec.from_spec(f"{text} + 1", na_action="ignore").get_model_matrix(frame, context={})
    keep = [i for i, name in enumerate(matrix.columns) if name != "Intercept"]
    names = [str(matrix.columns[i]) for i in keep]
    return names, matrix.to_numpy(float)[:, keep], dict(matrix.model_spec.transform_state)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value.tolist()


@pytest.mark.parametrize("text", [*FORMULAS, *ADD_UP])
def test_columns_are_those_of_formulaic(small: ad.AnnData, text: str) -> None:
    names, values, states, levels, formula = _columns(small, text)
    wanted_names, wanted, their_states = _by_formulaic(text)
    if text in ADD_UP:
        wanted_names, wanted = wanted_names[1:], wanted[:, 1:]
    assert names == wanted_names
    np.testing.assert_allclose(values, wanted, rtol=1e-9, atol=1e-10)
    some = np.arange(N) < 30
    # what was learned is stored, as now and as versions before did it, and other cells get the same columns
    for stored in (
        _formula.written(levels, states),
        json.dumps({"levels": levels, "transforms": their_states}, default=_plain),
    ):
        again_levels, again = state_of(stored, formula)
        assert again_levels == levels
        part = _columns(small, text, again, some)[1]
        np.testing.assert_allclose(part[some], wanted[some], rtol=1e-9, atol=1e-10)
        assert np.isnan(part[~some]).all()


def test_no_text_is_evaluated_for_columns(small: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by Python nor by formulaic, whose functions get numbers and plain options only."""
    before = [_columns(small, text) for text in FORMULAS]  # and all modules are loaded

    def caught(*_: Any, **__: Any) -> None:
        raise AssertionError("text was evaluated")

    with monkeypatch.context() as patch:
        for name in ("eval", "exec", "compile"):
            patch.setattr(builtins, name, caught)
        for owner in (stateful_transforms, formulaic.materializers.base):
            patch.setattr(owner, "stateful_eval", caught)
        patch.setattr(formulaic.parser.DefaultFormulaParser, "get_terms", caught)
        after = [_columns(small, text, found[2]) for text, found in zip(FORMULAS, before, strict=True)]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one[1], other[1], rtol=1e-12, atol=1e-14)


ATOMS = [
    "x",
    "y",
    "`p m`",
    "g",
    "h",
    "C(k)",
    "C(k, contr.sum())",
    "C(g, contr.treatment(base='b'))",
    "bs(x, df=4)",
    "bs(x, df=5, include_intercept=True)",
    "poly(y, 2)",
    "scale(x)",
    "one",
    "t",
]
formulas = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", " - "]), inner).map("".join),
        st.tuples(inner, st.sampled_from(["*", ":"]), inner).map(lambda t: f"({t[0]}){t[1]}({t[2]})"),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=formulas)
def test_columns_of_any_formula_are_those_of_formulaic(small: ad.AnnData, text: str) -> None:
    try:
        names, values, *_ = _columns(small, text)
    except ValueError as error:
        if "more than" not in str(error):
            raise
        return
    wanted_names, wanted, _ = _by_formulaic(text)
    assert names == wanted_names
    np.testing.assert_allclose(values, wanted, rtol=1e-9, atol=1e-9)


def test_names_that_are_not_plain() -> None:
    """Columns called like functions, in other scripts or with any sign but a backtick are columns."""
    names = [
        "C",
        "log",
        "np",
        "np.log",
        "__import__",
        "True",
        "in",
        "a b",
        "a\nb",
        "it's",
        'say "so"',
        "a~b",
        "x|y",
        "1a",
        "(",
        "#",
        "{x}",
        "naïve",
        "名",
        "\u200b",
        "percent.mt",
        "a:b",
        "ﬁ",
        "fi",
        "\\",
        "%",
    ]
    adata = ad.AnnData(
        np.zeros((N, 1)),
        obs=pd.DataFrame(
            {name: np.random.default_rng(i).normal(size=N) for i, name in enumerate(names)},
            index=list(map(str, range(N))),
        ),
    )
    for given_ in (names, " + ".join(tree.quoted(name) for name in names)):
        text = _formula.formula_of(adata, given_)
        formula = _formula.read(text)
        assert formula.columns == names
        _formula.refuse_unknown(adata, formula)
        found = encode(adata, formula, {}, None, np.ones(N, dtype=bool))
        assert found[0] == names
        np.testing.assert_array_equal(found[1], adata.obs.to_numpy())
    for name in names:
        assert _formula.read(_formula.formula_of(adata, name)).columns == [name]
        state = encode(adata, _formula.read(f"scale(`{name}`)"), {}, None, np.ones(N, dtype=bool))[2]
        text = _formula.written({}, state)
        assert state_of(text, _formula.read(f"scale(`{name}`)"))[1] == state
    with pytest.raises(ValueError, match="rename the column"):
        tree.quoted("a`b")


def test_a_number_in_a_factor_may_also_be_a_number(small: ad.AnnData) -> None:
    names, values, *_ = _columns(small, "C(k) + scale(k)")
    assert names == ["C(k)[T.1]", "C(k)[T.2]", "scale(k)"]
    k = small.obs["k"].to_numpy(float)
    np.testing.assert_allclose(values[:, 2], (k - k.mean()) / k.std(ddof=1))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("bs(x, df=1)", "df=1 is less than 3"),
        ("bs(x, df=4, knots=[5])", "both given"),
        ("bs(x, knots=[50])", "between"),
        ("cr(x)", "needs df= or knots="),
        ("cr(x, df=2)", "df=2 is less than 3"),
        ("cr(x, 1, constraints='center')", "df=1 is less than 2"),
        ("cr(x, df=9, lower_bound=90, upper_bound=99)", "knots"),
        ("cr(x, knots=[4], lower_bound=4)", "different knots"),
        ("bs(x, lower_bound=5, upper_bound=5)", "is none"),
        ("log(g)", "'g' holds labels"),
        ("bs(g, df=4)", "'g' holds"),
        ("C(g, contr.treatment(base='q'))", "base='q' is not a level"),
        ("scale(log(y))", "NaN or infinite in"),
        ("bs(x, df=4, upper_bound=5)", "extrapolation='clip'"),
        ("bs(t, df=5)", "not between its bounds"),
        ("bs(x, knots=[4], lower_bound=4, extrapolation='clip')", "not between its bounds"),
        ("bs(x, df=90):poly(y, 10):C(g):C(h)", "columns, more than 1000"),
    ],
)
def test_what_cannot_be_computed_is_explained(small: ad.AnnData, text: str, match: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be computed.*{re.escape(match)}"):
        _columns(small, text)


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("cr(x, df=4)", 3),
        ("cr(x, df=4) + g", 5),
        ("cr(x, df=4):g", 11),
        ("cr(x, df=4)*g", 11),
        ("cr(x, df=4):y", 4),
        ("g + cr(x, df=3):g:h", 17),
    ],
)
def test_a_natural_spline_goes_with_the_intercept(small: ad.AnnData, text: str, n: int) -> None:
    design = _first(small, text)
    assert np.linalg.matrix_rank(np.column_stack([np.ones(N), design.values])) == n + 1 == len(design.names) + 1
    entry = {"params": {"covariates": design.formula}, "covariates": design.entry}
    again = _covariates.design_again(small, entry, np.ones(N, dtype=bool))
    assert again is not None
    np.testing.assert_allclose(again.values, design.values)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("bs(x, 4)", "bs(x, df=4)"),
        ("log(x)", "np.log(x)"),
        ("scale(np.sqrt(x), True)", "scale(sqrt(x), center=True)"),
        ("C(g, contr.treatment('b'))", "C(g, contrasts=contr.treatment(base='b'))"),
    ],
)
def test_two_ways_to_write_a_function_are_one_term(small: ad.AnnData, one: str, other: str) -> None:
    both, alone = _first(small, f"{one} + {other}:h + h"), _first(small, f"{one} + {one}:h + h")
    assert both.names == alone.names
    np.testing.assert_array_equal(both.values, alone.values)
    assert _formula.read(f"y + {one} - {other}").columns == ["y"]


def test_functions_in_functions_may_be_written_in_two_ways(small: ad.AnnData) -> None:
    *_, states, levels, formula = _columns(small, "scale(np.log(x)) + poly(scale(log(x)), 3)")
    assert set(states) == {"scale(np.log(x))", "scale(log(x))", "poly(scale(log(x)), 3)"}
    assert state_of(_formula.written(levels, states), formula)[1] == states


def test_a_tilde_in_quotes_is_no_left_hand_side() -> None:
    obs = _frame().assign(g=lambda f: f["g"].cat.rename_categories({"b": "a~b"}))
    adata = ad.AnnData(np.zeros((N, 1)), obs=obs)
    for quote in "'\"":
        text = f"C(g, contr.treatment(base={quote}a~b{quote}))"
        assert [name[-5:] for name in _first(adata, text).names] == ["[T.a]", "[T.c]"]
        with pytest.raises(ValueError, match="left-hand side"):
            _first(adata, f"x ~ {text}")


def test_one_state_of_two_columns_is_refused() -> None:
    r = np.random.default_rng(0)
    obs = pd.DataFrame({"a b": r.normal(size=N), "a_b": r.normal(size=N)}, index=list(map(str, range(N))))
    *_, states, levels, formula = _columns(ad.AnnData(np.zeros((N, 1)), obs=obs), "bs(`a b`, df=4) + bs(a_b, df=4)")
    assert state_of(_formula.written(levels, states), formula)[1] == states
    for name in states:
        with pytest.raises(ValueError, match=r"'transforms' is .*fit_technical again"):
            state_of(_formula.written(levels, {name: states[name]}), formula)
    with pytest.raises(ValueError, match=r"'transforms' is .*fit_technical again"):
        state_of(_formula.written(levels, {"bs(a_b, df=4)": states["bs(a_b, df=4)"], "x": {}}), formula)


@pytest.mark.parametrize(
    "text",
    [
        "bs(x, knots=[4, 5.5], degree=2)",
        "cr(x, knots=[5, 4.6])",
        "bs(x, df=6, lower_bound=-1, upper_bound=12)",
    ],
)
def test_edited_knots_are_refused(small: ad.AnnData, text: str) -> None:
    *_, states, levels, formula = _columns(small, text)
    ends = 3 if "degree" in text else 1 if "cr" in text else 4
    state_of(_formula.written(levels, states), formula)
    for knot in (states[text]["lower_bound"], 4.3):
        edited = json.loads(json.dumps(states))
        edited[text]["knots"][ends] = knot
        if "df" in text and knot == 4.3:
            edited[text]["lower_bound"], edited[text]["knots"][:4] = -2.0, [-2.0] * 4
        with pytest.raises(ValueError, match="does not fit to it"):
            state_of(_formula.written(levels, edited), formula)


# ---- the parser ------------------------------------------------------------------------------------------------------

numbers = st.integers(1, 99) | st.floats(-1e6, 1e6, allow_nan=False)
columns = st.text(st.characters(exclude_characters="`", exclude_categories=["Cs"]), min_size=1, max_size=6)
plain = columns.map(tree.Column)
one_column = st.recursive(
    plain,
    lambda of: st.builds(tree.Call, st.sampled_from(["log", "np.log1p", "center"]), of, st.just(())),
    max_leaves=3,
)


def _splines(of: Any, df: int, knots: Any, way: str) -> tree.Call:
    option = tree.Argument
    size = option("df", df, False) if knots is None else option("knots", tuple(knots), True)
    return tree.Call("bs", of, (size, option("extrapolation", way, True)))


splines = st.builds(
    _splines,
    one_column,
    st.integers(1, 100),
    st.none() | st.lists(numbers, min_size=1, max_size=4),
    st.sampled_from(["raise", "clip"]),
)
levels_ = st.text(st.characters(exclude_characters="'\"\\", exclude_categories=["Cs"]), max_size=4)
coded = st.builds(
    lambda of, base: tree.Call(
        "C",
        of,
        (tree.Argument("contrasts", tree.Contrast("contr.treatment", (tree.Argument("base", base, True),)), False),),
    ),
    plain,
    levels_ | numbers | st.booleans(),
)


def _several(inner: Any) -> Any:
    parts = st.lists(inner, min_size=2, max_size=3).map(tuple)
    signed = st.lists(st.tuples(st.sampled_from("+-"), inner), min_size=2, max_size=3).map(tuple)
    return st.one_of(parts.map(tree.Product), parts.map(tree.Interaction), signed.map(tree.Sum))


trees = st.recursive(one_column | splines | coded, _several, max_leaves=5)


@settings(max_examples=300, deadline=None)
@given(trees)
def test_a_tree_is_read_from_its_text(node: Any) -> None:
    text = tree.text_of(node)
    again = parser._Parser(text).whole()
    assert again == node
    assert tree.text_of(again) == text


@settings(max_examples=500, deadline=None)
@given(
    st.text()
    | st.text(alphabet="xyg`'\"()[]{}.,:+-*=~|#\\ \n01e_Cbslognp%@")
    | st.lists(
        st.sampled_from(
            [
                "x",
                "g",
                "log",
                "bs",
                "C",
                "np.log",
                "(",
                ")",
                "[",
                "]",
                ",",
                "=",
                "'",
                "`",
                "+",
                "-",
                "*",
                ":",
                "1",
                "df",
                "contr.sum",
                " ",
                "True",
                ".",
            ]
        )
    ).map("".join)
)
def test_any_text_is_read_or_refused(small: ad.AnnData, text: str) -> None:
    try:
        _first(small, text)
    except (ValueError, KeyError) as error:
        if not re.search(r"covariates|is not a column of \.obs", str(error)):
            raise


def test_unknown_columns_are_said_with_those_that_come_close(small: ad.AnnData) -> None:
    for text, close in (("X + g", "x"), ("bs(`p  m`, df=4)", "p m")):
        with pytest.raises(KeyError, match=f"is not a column of .obs.*did you mean.*{close}"):
            _first(small, text)
    with pytest.raises(ValueError, match=r"'a\.c' is not a column of \.obs; did you mean \['a\.b'"):
        _first(small, "a.c")


def test_the_documentation_lists_what_is_allowed() -> None:
    text = (Path(__file__).parents[1] / "docs" / "designs.md").read_text(encoding="utf-8")
    text = text.partition("## Formulas of covariates")[2]
    table = text.partition("| function | options |")[2]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    word = re.compile(r"`(\w+)`")
    listed = {name: word.findall(options) for names, options in rows for name in word.findall(names)}
    assert listed == {name: list(options) for name, options in allowed.FUNCTIONS.items()}
    limits = text.partition("Limits:")[2].replace(",", "")
    most = allowed
    for n in (
        most.MOST_CHARACTERS,
        most.DEEPEST,
        most.MOST_TERMS,
        most.MOST_FACTORS,
        most.MOST_COLUMNS,
        most.MOST_VALUES,
        *most.LARGEST.values(),
    ):
        assert re.search(rf"\b{n}\b", limits), n
    for name in allowed.CONTRASTS:
        assert name in text
    assert all(f"'{name}'" in allowed.allowed() for name in allowed.FUNCTIONS)
