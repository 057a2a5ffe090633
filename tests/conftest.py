"""What every test shares: no test may leave global state behind, and figures need no screen."""

from __future__ import annotations

import gc
import locale
import logging
import os
import signal
import sys
import warnings
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

mpl.use("Agg")

TESTS = Path(__file__).parent
# where several processes take the files one after the other; half a minute of processor time or more each
LONGEST = (
    "test_tutorials.py",
    "test_docs.py",
    "core/curves/test_additions.py",
    "test_frozen_numbers.py",
    "test_round_trips.py",
    "core/compiled/test_compiled.py",
    "tl/test_containers.py",
    "core/pyro/test_engines.py",
    "test_examples.py",
    "benchmarks/test_faults.py",
    "core/test_covariates.py",
    "tl/test_screen.py",
    "tl/test_screen_together.py",
    "pl/test_trans_plots.py",
    "core/response/test_ordered_contexts.py",
    "test_bad_input.py",
    "tl/test_compare.py",
    "tl/test_confounding.py",
    "tl/test_high_moi.py",
    "core/dosage/test_guide_sets.py",
    "core/response/test_departures.py",
    "tl/test_calibrate.py",
    "tl/test_screen_client.py",
    "tl/test_trans_modalities.py",
    "test_reading.py",
)
THREADS = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


# what pytest itself changes from phase to phase, and what libraries set when they are first imported
OWN_VARIABLES = {"PYTEST_CURRENT_TEST"}


def _torch_state() -> dict[str, Any]:
    """The global state of torch and Pyro; of a library that is not loaded yet, the state it starts with."""
    state: dict[str, Any] = {"torch: dtype": "torch.float32", "torch: device": "cpu", "Pyro: parameters": ()}
    state |= {"torch: deterministic": False, "torch: gradients": True}
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        state["torch: dtype"] = str(torch.get_default_dtype())
        state["torch: device"] = str(torch.get_default_device())
        state["torch: deterministic"] = torch.are_deterministic_algorithms_enabled()
        state["torch: gradients"] = torch.is_grad_enabled()
        state["torch: random numbers"] = torch.get_rng_state().numpy().tobytes()
        state["torch: threads"] = torch.get_num_threads()
    if "pyro" in sys.modules:
        state["Pyro: parameters"] = tuple(sorted(sys.modules["pyro"].get_param_store().keys()))
    return state


def global_state() -> dict[str, Any]:
    """What the whole process shares, and a fit must leave as it is. Takes about a tenth of a millisecond."""
    legacy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    root, package = logging.getLogger(), logging.getLogger("dream_sc")
    state = _torch_state() | {
        "numpy: random numbers": (legacy["pos"], legacy["key"].tobytes()),
        "numpy: errors": tuple(np.geterr().items()),
        "folder": os.getcwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "path of modules": tuple(sys.path),
        "signals": tuple(signal.getsignal(which) for which in (signal.SIGINT, signal.SIGTERM)),
        "log": (root.level, logging.root.manager.disable, package.level, package.propagate, *map(id, package.handlers)),
        "warnings": tuple(map(str, warnings.filters)),
    }
    state |= {f"os.environ[{k!r}]": v for k, v in os.environ.items() if k not in OWN_VARIABLES}
    return state | {f"rcParams[{k!r}]": str(v) for k, v in mpl.rcParams.copy().items()}


def _libraries() -> set[str]:
    return _libraries_of(len(sys.modules))


@cache
def _libraries_of(n_modules: int) -> set[str]:
    """Looked up anew only where there are another number of modules, as it takes a millisecond."""
    return {name.partition(".")[0] for name in sys.modules} - {"dream_sc"}


def differences(before: dict[str, Any], after: dict[str, Any], *, loaded: bool) -> dict[str, Any]:
    """What changed. Where libraries were `loaded`, what they add to the environment and the filters is theirs."""
    names = [k for k in {**before, **after} if before.get(k) != after.get(k)]
    if loaded:
        names = [k for k in names if k in before and k != "warnings"]
    # only what is there at both times can be compared where torch is loaded in between
    names = [k for k in names if not k.startswith("torch: ") or (k in before and k in after)]
    return {k: tuple(str(x.get(k))[:200] for x in (before, after)) for k in names}


def _compile() -> None:
    """Compile what the steps need, on all cores."""
    from dream_sc._compile import ready

    for step in ("technical", "cis", "trans", "shares"):
        ready(step, progress=False, then=("cis", "trans", "shares"))


def pytest_sessionstart() -> None:
    """What is imported and collected is there to the end: looking for garbage in it takes a fifth of the collection."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on it is looked for among what tests make, and less often among what has lasted."""
    gc.freeze()
    gc.set_threshold(2000, 10, 30)
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Before the processes of pytest-xdist start: compile for all of them, and share the cores out."""
    import joblib

    _compile()
    share = max(1, joblib.cpu_count() // len(specs))
    for name in THREADS:
        os.environ.setdefault(name, str(share))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several processes none shall be left with a long file at the end: these go first."""
    if missing := [name for name in LONGEST if not (TESTS / name).is_file()]:
        raise pytest.UsageError(f"LONGEST in {__file__} names files that are not there: {missing}")
    if hasattr(config, "workerinput"):
        place = {TESTS / name: i for i, name in enumerate(LONGEST)}
        items.sort(key=lambda item: place.get(item.path, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """Everything is compiled before any test: none depends on which came first."""
    _compile()


@pytest.fixture(autouse=True)
def _global_state_untouched() -> Iterator[None]:
    """A test that leaves something behind in the process fails, and names it: so a fit cannot."""
    before, libraries = global_state(), _libraries()
    yield
    changed = differences(before, global_state(), loaded=_libraries() != libraries)
    if changed:
        pytest.fail(f"the test left global state behind (before, after): {changed}")


@pytest.fixture(autouse=True, scope="session")
def _columns_of_modalities_stay_there() -> None:
    """What mudata does from 0.4 on; before, it warns until one has chosen."""
    import mudata as md

    if hasattr(md, "set_options"):
        md.set_options(pull_on_update=False)


@pytest.fixture(autouse=True)
def _figures_closed() -> Iterator[None]:
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@contextmanager
def _null_features(n: int) -> Iterator[None]:
    """The number of features that fits and calibrations simulate without response, for their p-values."""
    from dream_sc._core.response import calibration, decision
    from dream_sc._core.screen import null_draws

    with pytest.MonkeyPatch.context() as patch:
        for module in (calibration, decision, null_draws):
            patch.setattr(module, "N_NULL", n)
        patch.setattr(decision, "N_NULL_OF_SETS", min(n, decision.N_NULL_OF_SETS))
        yield


@pytest.fixture(scope="session", autouse=True)
def n_null_features() -> int:
    """That of a user, read before any test."""
    from dream_sc._core.response import decision

    return decision.N_NULL


@pytest.fixture(scope="module")
def few_null_features() -> Iterator[None]:
    """For files that rest on no p-value: what these are made from takes most of the time of a small fit."""
    with _null_features(100):
        yield


@pytest.fixture
def restore_settings() -> Iterator[None]:
    """Put the session's settings and the package's logger back."""
    from dream_sc import settings

    logger = logging.getLogger("dream_sc")
    before = (list(logger.handlers), logger.level, logger.propagate, settings.progress, settings._handler)
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])
    settings.progress, settings._handler = before[3], before[4]


@pytest.fixture(scope="session")
def titration_fit(n_null_features: int) -> Any:
    """A small titration with the three steps, for tests that read it; those that write take a copy."""
    import dream_sc as ds

    adata = ds.datasets.titration(1200, 40, rng=0)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    with _null_features(n_null_features):
        ds.tl.fit_trans(adata)
    return adata


@pytest.fixture(scope="session")
def modalities(n_null_features: int) -> Any:
    """A MuData with a fit of each distribution over the dosage of its RNA: eight features each, of which half respond.

    Groups shift all of them. Features of three categories are rows of `.var` in "usage", layers in "layers".
    """
    import mudata as md
    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse
    from scipy.special import expit

    import dream_sc as ds

    n, f = 1500, 8
    rng = np.random.default_rng(5)
    rna = ds.datasets.titration(n, 20, rng=5)
    ds.tl.fit_technical(rna)
    ds.tl.fit_cis(rna, "GFI1B")
    x = rna.obsm["cis"]["log2_x_true"].fillna(0.0).to_numpy()[:, None]
    second = (rna.obs["batch"] == "batch_2").to_numpy()[:, None]
    move = np.where(np.arange(f) < f // 2, 2.5, 0.0)
    logit = rng.normal(0, 0.5, f) + move * (expit(2 * np.log(2) * (x + 1)) - 0.8) + 0.6 * second
    total = rng.poisson(1.5, (n, f))
    first = rng.binomial(total, expit(logit))
    middle = rng.binomial(total - first, 0.6)
    parts = np.stack([first, middle, total - first - middle], 2).astype(float)
    obs = rna.obs[["guide", "target", "batch"]].copy()

    def made(values: Any, prefix: str) -> AnnData:
        return AnnData(values, obs.copy(), pd.DataFrame(index=[f"{prefix}{i}" for i in range(f)]))

    psi = made(sparse.csr_matrix(first.astype(float)), "e")
    psi.layers["denominator"] = sparse.csr_matrix(total.astype(float))
    noise = rng.standard_t(3, (n, f))
    scores = np.where(rng.random((n, f)) < 0.2, np.nan, 10 + 2 * logit + noise)
    categories = pd.DataFrame({"donor": [f"d{i}" for i in range(f) for _ in range(3)]})
    categories.index = [f"j{i}_{c}" for i in range(f) for c in "pqr"]
    usage = AnnData(sparse.csr_matrix(parts.reshape(n, -1)), obs.copy(), categories)
    layers = made(None, "l")
    for k, c in enumerate("pqr"):
        layers.layers[c] = sparse.csr_matrix(parts[:, :, k])
    both = md.MuData(
        {
            "rna": rna,
            "psi": psi[rng.permutation(n)[:-100]].copy(),
            "score": made(scores, "s"),
            "robust": made(scores, "t"),
            "usage": usage,
            "layers": layers,
        }
    )
    for mod, how in {
        "psi": {"distribution": "binomial", "denominator_layer": "denominator"},
        "score": {"distribution": "normal"},
        "robust": {"distribution": "studentt"},
        "usage": {"distribution": "multinomial", "category_key": "donor"},
        "layers": {"distribution": "multinomial", "category_layers": ["p", "q", "r"]},
    }.items():
        ds.tl.fit_technical(both, mod=mod, batch_key="batch", **how)
        with _null_features(n_null_features):
            ds.tl.fit_trans(both, mod=mod, cis_mod="rna", function_type="single_hill", nsamples=200)
    return both
