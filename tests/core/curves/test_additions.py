"""A curve or a distribution is one file and one line in its list: put into a copy of the package, they are fitted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dream_sc

ROOMS = Path(__file__).parents[1]
PACKAGE = Path(dream_sc.__file__).parent
LINES = {  # what is changed in the list, by file
    "curves": {
        "switch.CURVE)": "switch.CURVE, gompertz.CURVE)",
        "import additive_hill,": "import gompertz, additive_hill,",
    },
    "likelihoods": {
        "normal, studentt))": "normal, studentt, poisson))",
        "import binomial,": "import poisson, binomial,",
    },
}
FILES = {"curves": "gompertz.py", "likelihoods": "poisson.py"}

CODE = """
import json
import warnings

import numpy as np
import torch
from scipy import sparse

import dream_sc as ds
from dream_sc._core.curves import LN2, curve, place
from dream_sc._core.curves import chosen
from dream_sc._core.compiled import from_python
from dream_sc._core.priors import TransPriors
from dream_sc._core.response import decision
from dream_sc._core.types import Axis

warnings.simplefilter("ignore")
decision.N_NULL = 100  # features behind the p-values, which are not looked at
c, priors, rng = curve("gompertz"), TransPriors(), np.random.default_rng(0)
axis = Axis(-3.0, 1.0, np.linspace(-3, 1, 8))
params = rng.normal(size=(40, 4)) * [1, 1.5, 1, 0.5]
x = np.linspace(-4, 3, 15)
out = {}
h = 2.0 ** -np.exp(-np.exp(params[:, 3:]) * (x - params[:, 2:3]) / 2)
h0 = 2.0 ** -np.exp(-np.exp(params[:, 3:]) * (0 - params[:, 2:3]) / 2)
f = np.exp(params[:, 1:2])
want = params[:, :1] + np.log((1 + (f - 1) * h) / (1 + (f - 1) * h0))
out["formula"] = np.abs(c.log_curve(x, params, None) - want).max()
numeric = (c.log_curve(x + 1e-5, params, None) - c.log_curve(x - 1e-5, params, None)) / (2e-5 * LN2)
out["slope"] = np.abs(c.slope(x, params, None) - numeric).max()
tensors = {k: torch.as_tensor(v[:, None]) for k, v in zip(c.params, params.T)}
rows = c.torch_rows(tensors, torch.as_tensor(x)[:, None], torch.ones(15, 1, dtype=torch.float64), None).numpy()
table = c.tables(params[:, 2:], None, x[:, None], np.ones((15, 1)))
mean = c.log_mean(params[:, 1:2], table)
out["torch"] = np.abs(rows - mean).max()

def tables(shapes, consts, nodes, weights, out):
    chosen.tables(5, shapes, consts, nodes, weights, out)

assert place(c) == 5
chosen.ready(5)
compiled = np.zeros((15, 6, 40))
by_lane = np.ascontiguousarray(params[:, 2:].T)
from_python(tables)(by_lane, np.zeros((2, 40)), x[:, None].copy(), np.ones((15, 1)), compiled)
out["compiled"] = np.abs(compiled[:, :2].transpose(2, 1, 0) - table).max()
shapes = params[:, 2:]
b = c.amplitudes(axis, shapes, np.zeros((40, 2)), np.full((40, 1), 0.2))
ok = np.isfinite(b[:, 0])
at = c.log_curve(np.array([axis.low, axis.high]), np.concatenate([np.zeros((40, 1)), b, shapes], 1)[ok], None)
out["movement"], out["can_move"] = np.abs(at[:, 1] - at[:, 0] - 0.2).max(), int(ok.sum())
one = c.steps(params[:, None], np.zeros((40, 2)))[0]
half = c.log_curve(one.at(np.zeros((40, 1))), params, None)
out["half"] = np.abs(np.exp(half) - (np.exp(one.bottom) + np.exp(one.top)) / 2).max()

adata = ds.datasets.titration(3000, 60, rng=5, single_fraction=0.4, additive_fraction=0.0)
ds.tl.fit_technical(adata, batch_key="batch")
ds.tl.fit_cis(adata, "GFI1B")
for name in ("single_hill", "gompertz"):
    ds.tl.fit_trans(adata, function_type=name, key_added=name)
true = (adata.var["true_model"] != "null").to_numpy()
for name in ("single_hill", "gompertz"):
    table = adata.varm[name]
    called = (table["qvalue"] < 0.05).to_numpy()
    out[name] = [int((called & true).sum()), int((called & ~true).sum())]
    out[name + "_models"] = sorted(set(table["model"][called]))

adata = ds.datasets.titration(3000, 60, rng=5, additive_fraction=0.0)
rng = np.random.default_rng(1)
mean = ds.datasets.true_curve(adata, list(adata.var_names), adata.obs["true_log2_dosage"].to_numpy(float))
mean = mean.T * adata.obs["true_size_factor"].to_numpy(float)[:, None]
adata.X = sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
true = (adata.var["true_model"] != "null").to_numpy()
for name in ("negbinom", "poisson"):
    ds.tl.fit_technical(adata, distribution=name, key_added=f"technical_{name}")
    if name == "negbinom":
        ds.tl.fit_cis(adata, "GFI1B", technical_key="technical_negbinom")
    ds.tl.fit_trans(adata, technical_key=f"technical_{name}", key_added=name)
    table = adata.varm[name]
    called = (table["qvalue"] < 0.05).to_numpy()
    out[name] = [int((called & true).sum()), int((called & ~true).sum())]
both = [adata.varm[name]["log2fc_full"].to_numpy() for name in ("negbinom", "poisson")]
strong = true & np.isfinite(both[0]) & (adata.varm["negbinom"]["qvalue"] < 0.01).to_numpy()
out["change"] = float(np.abs(both[0] - both[1])[strong].max())
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("with_more")
    shutil.copytree(PACKAGE, folder / "dream_sc", ignore=shutil.ignore_patterns("__pycache__"))
    for room, file in FILES.items():
        place = folder / "dream_sc" / "_core" / room
        shutil.copy(ROOMS / room / file, place / file)
        text = (place / "__init__.py").read_text()
        for before, after in LINES[room].items():
            assert text.count(before) == 1
            text = text.replace(before, after)
        (place / "__init__.py").write_text(text)
    env = os.environ | {"PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    out: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return out


@pytest.mark.slow
def test_forms_of_the_curve_agree(found: dict[str, float]) -> None:
    assert found["formula"] < 1e-10
    assert found["slope"] < 1e-6
    assert found["torch"] < 1e-10
    assert found["compiled"] < 1e-10
    assert found["movement"] < 1e-8
    assert found["half"] < 1e-8
    assert found["can_move"] > 10


@pytest.mark.slow
def test_the_curve_is_fitted(found: dict[str, list[int]]) -> None:
    """It finds the responders that a Hill finds, which the data were made from."""
    hill, gompertz = found["single_hill"], found["gompertz"]
    assert hill[0] >= 15
    assert gompertz[0] >= 0.9 * hill[0]
    assert gompertz[1] <= hill[1] + 1
    assert set(found["gompertz_models"]) <= {"gompertz", "null"}
    assert "gompertz" in found["gompertz_models"]


@pytest.mark.slow
def test_the_distribution_is_fitted(found: dict[str, list[int]]) -> None:
    """Of Poisson counts it says what a negative binomial does, whose overdispersion is small there."""
    negbinom, poisson = found["negbinom"], found["poisson"]
    assert negbinom[0] >= 10
    assert abs(poisson[0] - negbinom[0]) <= 1
    assert poisson[1] <= negbinom[1] + 1
    assert found["change"] < 0.1
