"""Lines against curves of one step: the lines are what they should be, and the comparison knows them apart."""

from __future__ import annotations

import numpy as np
import pytest

import dream_sc as ds
from dream_sc._core.response import plateau
from dream_sc._core.types import Axis

AXIS = Axis.of(np.linspace(-3.0, 1.0, 9))


def test_lines_move_by_one_from_end_to_end() -> None:
    above, start, prior = plateau.lines(AXIS)
    assert prior.sum() == pytest.approx(1.0)
    assert prior[0] == pytest.approx(prior[above].sum() - prior[~above].sum())  # the third that has no start
    x = np.linspace(AXIS.low, AXIS.high, 201)
    f = plateau.at_dosages(x, above, start, AXIS)
    assert f.shape == (len(start), 201)
    np.testing.assert_allclose(f[:, -1] - f[:, 0], 1.0)
    np.testing.assert_allclose(np.diff(f[0]), 1 / 200)  # the line from end to end
    slope = np.diff(f, axis=1) / np.diff(x)
    for i in range(1, len(start)):
        flat = x[:-1] < start[i] - 0.02 if above[i] else x[1:] > start[i] + 0.02
        np.testing.assert_allclose(slope[i][flat], 0.0, atol=1e-12)
        length = AXIS.high - start[i] if above[i] else start[i] - AXIS.low
        rest = x[:-1] > start[i] if above[i] else x[1:] < start[i]
        np.testing.assert_allclose(slope[i][rest], 1 / length)


@pytest.fixture(scope="module")
def fitted():
    """Hills, lines, and flat parts with lines, of much the same movement; steps leave no doubt."""
    cells = ds.datasets.titration(6000, 1, rng=5, n_guides=16, n_ntc_guides=6, within_guide_sd=0.1)
    gen, x = np.random.default_rng(1), cells.obs["true_log2_dosage"].to_numpy()
    low, high = x.min(), x.max()
    hill = np.log2(1 + 7 / (1 + 2.0 ** (-6.0 * (x + 1.0))))
    shapes = {"step": hill, "line": 3 * (x - low) / (high - low), "hinge": 3 * np.maximum(x + 1, 0) / (high + 1)}
    kinds = ["cis", *np.repeat(list(shapes), 6), *["none"] * 31]
    log2 = np.array([x if k == "cis" else shapes.get(k, 0 * x) * (-1) ** i for i, k in enumerate(kinds)])
    code = np.unique(cells.obs["guide"], return_inverse=True)[1]
    shift = gen.normal(0, 0.05, (len(kinds), code.max() + 1)) * (np.arange(len(kinds)) > 0)[:, None]
    mu = (2.0 ** (log2 + shift[:, code] + 2.0) * cells.obs["true_size_factor"].to_numpy()).T
    y = gen.poisson(mu * gen.gamma(9.0, 1 / 9.0, mu.shape)).astype(np.float32)
    names = ["GFI1B", *(f"{k}_{i}" for i, k in enumerate(kinds) if i)]
    adata = type(cells)(y, obs=cells.obs)
    adata.var_names = names
    adata.obs["size_factor"] = adata.obs["true_size_factor"]
    ds.tl.fit_technical(adata)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    return adata.varm["trans"].assign(kind=kinds)


def test_an_ec50_is_claimed_where_a_plateau_is_seen(fitted) -> None:
    called = fitted[fitted["qvalue"] < 0.05]
    assert set(called["kind"]) >= {"step", "line", "hinge"}
    p = called.groupby("kind")["p_ec50_inside"]
    assert (p.get_group("step") > 0.95).all()
    assert (p.get_group("line") < 0.5).all()
    assert (p.get_group("hinge") < 0.95).all()
    assert p.get_group("hinge").median() < 0.5
