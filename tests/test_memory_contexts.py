"""Memory of contexts that are compared: the estimate's parts against bytes traced, and the shell's options."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import dream_sc as ds
from dream_sc._cli.main import main
from dream_sc._core.priors import TransPriors
from dream_sc._core.response.contexts.decision import TAUS, gather
from dream_sc._core.response.contexts.dosage_errors import with_learned_dosages
from dream_sc._core.response.contexts.evidence import DIFFERENCE
from dream_sc._core.response.contexts.guide_levels import Sums
from dream_sc._core.response.contexts.measured import Measured
from dream_sc._core.response.contexts.shapes import Dosages
from dream_sc._core.response.ordered.evidence import trend
from dream_sc._core.response.ordered.hypotheses import places_of
from dream_sc._core.types import Axis, GuideStats
from dream_sc._memory import contexts, steps

N_FEATURES, N_NTC = 16, 3


def test_contexts_that_are_compared_are_a_step_more():
    e = ds.memory.estimate(2000, 5000, n_contexts=2)
    assert list(e.totals().index) == ["fit_technical", "fit_cis", "fit_trans", "compare"]
    three = ds.memory.estimate(2000, 5000, n_contexts=4)
    parts = [x[(x["step"] == "compare")].set_index("component")["RAM"] for x in (e, three)]
    # the cells of one context are there at a time; what is told of each context but the reference is kept
    assert parts[1]["draws"] == pytest.approx(3 * parts[0]["draws"], rel=1e-6)
    assert e.added("compare") > 0
    large = ds.memory.estimate(20_000, 400_000, n_contexts=2)
    half = large[(large["step"] == "compare") & (large["component"] == "counts")]["RAM"].iloc[0]
    assert half == pytest.approx(1.5 * large.sizes.matrix, rel=0.05)
    assert "compare" in str(e)
    with pytest.raises(ValueError, match="n_contexts=1"):
        ds.memory.estimate(2000, 5000, n_contexts=1)


def test_ordered_contexts_hold_lines_and_the_curves_of_all():
    def parts(n, **options):
        guides = {"n_guides": 18, "n_cis_guides": 12} | options
        e = ds.memory.estimate(2000, 5000, n_threads=1, n_contexts=n, **guides)
        return e[e["step"] == "compare"].set_index("component")["RAM"]

    three, six = (parts(n, ordered_contexts=True) for n in (3, 6))
    # what was traced of a block of 64 features, 19 of which were looked at closely: 68 MB of 3 contexts, 75 MB of 6,
    # on a lattice of 4800 curves
    size = contexts.curves_of_lattice() / 4800
    assert three["workspace"] == pytest.approx(68e6 * size, rel=0.1)
    assert six["workspace"] == pytest.approx(75e6 * size, rel=0.1)
    # a feature has one set of draws with the curves of all contexts, and not one for each pair
    assert six["draws"] / three["draws"] == pytest.approx((3 * 6 + 5) / (3 * 3 + 5), rel=1e-3)
    assert six["draws"] < parts(6)["draws"]
    many = parts(6, ordered_contexts=True, n_guides=3000, n_cis_guides=2000)
    assert many["workspace"] > 10 * six["workspace"]
    with pytest.raises(ValueError, match=r"ordered_contexts=True with n_contexts=2.*three contexts"):
        ds.memory.estimate(2000, 5000, n_contexts=2, ordered_contexts=True)


def responding(n_contexts: int, n_guides: int) -> Measured:
    """Features that all respond alike in all contexts, as steep curves over a range of dosages."""
    rng, x = np.random.default_rng(0), np.linspace(-3.0, 1.0, n_guides)
    rows, middle = np.arange(n_guides + N_NTC), rng.uniform(-2.0, 0.0, (N_FEATURES, 1))
    change = rng.choice([-1.0, 1.0], (N_FEATURES, 1)) / (1.0 + np.exp(-2.0 * (x - middle)))
    curve = np.concatenate([change - change[:, -1:], np.zeros((N_FEATURES, N_NTC))], 1)
    exposure = np.full(len(rows), 100.0)
    sums, dosages = [], []
    for _ in range(n_contexts):
        counts = rng.poisson(400.0 * np.exp(curve + rng.normal(0, 0.05, curve.shape))).astype(float)
        groups = np.zeros(len(rows), dtype=np.int64)
        stats = GuideStats(counts, exposure, exposure**2 / 1e6, rows, groups, len(rows), 1)
        sums.append(Sums(stats, np.full(N_FEATURES, 0.3), 0.3))
        spread = np.full(n_guides, 0.2)
        dosages.append(Dosages.of(x, spread, np.zeros(n_guides), np.full(n_guides, 0.1), 0.05))
    return Measured(tuple(sums), tuple(dosages), rows < n_guides, Axis.of(x), TransPriors())


def traced(measured: Measured, question) -> int:
    """The most bytes at once while dosages are learned and evidence is gathered."""
    few = measured.take(slice(0, 2))
    gather(with_learned_dosages(few, question, np.ones(2, dtype=bool), TAUS, 0.5), question, TAUS, 0.5)  # imports
    tracemalloc.start()
    try:
        learned = with_learned_dosages(measured, question, np.ones(N_FEATURES, dtype=bool), TAUS, 0.5)
        gather(learned, question, TAUS, 0.5)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("n_contexts", "n_guides"), [(2, 8), (2, 80), (3, 8)])
def test_what_comparing_takes_is_what_was_estimated(monkeypatch, n_contexts, n_guides):
    monkeypatch.setattr(steps, "RESPOND", 1.0)  # all of these features do
    places = places_of(np.arange(float(n_contexts)))
    most = traced(responding(n_contexts, n_guides), DIFFERENCE if n_contexts == 2 else trend(places))
    guides = {"n_guides": n_guides + N_NTC, "n_cis_guides": n_guides, "n_groups": 1}
    along = {"n_contexts": n_contexts, "ordered_contexts": n_contexts > 2}
    comparing = contexts.compare(ds.memory.estimate(N_FEATURES, 100, n_threads=1, **guides, **along).sizes)[-1]
    parts = ("parameters", "posterior", "draws", "workspace")
    assert sum(comparing[name] for name in parts) == pytest.approx(most, rel=0.25)


def test_the_shell_estimates_contexts(capsys):
    given = ["memory", "--features", "2000", "--cells", "5000", "--ram", "64GB", "--threads", "1"]
    assert main([*given, "--contexts", "3", "--ordered-contexts"]) == 0
    said = capsys.readouterr().out
    e = ds.memory.estimate(2000, 5000, n_threads=1, n_contexts=3, ordered_contexts=True)
    assert repr(e).rpartition("\n\n")[0] in said
    assert "compare" in said
    assert main([*given, "--contexts", "2", "--ordered-contexts"]) == 2
    assert "--ordered-contexts" in capsys.readouterr().err
    assert main([*given, "--contexts", "1"]) == 2
    assert "--contexts 1 is not allowed" in capsys.readouterr().err
