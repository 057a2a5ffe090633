"""The kernel on tensors against the compiled one: every (feature, shape, tau), and the trans step as a whole."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

import dream_sc as ds
from dream_sc._core import blocks, device
from dream_sc._core.curves import curve
from dream_sc._core.device import Target
from dream_sc._core.laplace.batched import curves as batched_curves
from dream_sc._core.laplace.batched import effects, kernel, layout, linalg, marginal, turns
from dream_sc._core.priors import TransPriors
from dream_sc._core.response import evidence, fit
from dream_sc._core.response.problem import Problem, problem
from dream_sc._core.response.problem import evidence as evidence_of
from dream_sc._core.response.wide_effects import learn_tail, with_tail
from dream_sc._core.types import Axis, GuideStats, RowDosage

GRID = np.array(TransPriors().tau_grid)
CURVES = ("null", "single_hill", "additive_hill", "polynomial")
DESIGNS = ("plain", "pooled", "ragged", "shares")
GPU = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
)


@pytest.fixture(params=["cpu", GPU])
def target(request: pytest.FixtureRequest) -> Target:
    return Target(torch.device(request.param), torch.float64)


def _problem(design: str, n: int = 12) -> Problem:
    """Sums of features, half of which respond.

    plain: two groups, one dosage a guide. pooled: NTC guides enough to be summed up. ragged: some guides have a group
    less, some have cells at two dosages. shares: counts are out of a number of trials.
    """
    rng = np.random.default_rng(DESIGNS.index(design))
    n_cis, n_ntc, n_groups = 6, 60 if design == "pooled" else 4, 2
    doses = np.r_[np.linspace(-2.5, 1.0, n_cis), np.zeros(n_ntc)]
    n_g = len(doses)
    guide, group = np.repeat(np.arange(n_g), n_groups), np.tile(np.arange(n_groups), n_g)
    mean = doses[guide]
    if design == "ragged":
        guide, group, mean = np.r_[guide, 1, 1, 2], np.r_[group, 0, 1, 1], np.r_[mean, -1.2, -1.2, -0.2]
        keep = np.arange(len(guide)) != 1
        guide, group, mean = guide[keep], group[keep], mean[keep]
    slope = np.r_[np.zeros(n // 2), rng.normal(0, 0.6, n - n // 2)]
    u = rng.normal(0, 0.15, (n, n_g))
    log_mean = np.linspace(-3, 4, n)[rng.permutation(n), None] + slope[:, None] * mean + u[:, guide] + 0.2 * group
    w = rng.uniform(20, 40, len(guide))
    counts = rng.poisson(np.exp(log_mean) * w).astype(float)
    stats = GuideStats(counts, w, 1.1 * w, guide, group, n_g, n_groups)
    if design == "shares":
        trials, one = rng.poisson(w * np.ones_like(counts)).astype(float), np.ones_like(w)
        y = rng.binomial(trials.astype(int), expit(0.4 * log_mean)).astype(float)
        stats = replace(stats, counts=y, weights=trials, exposure=one, exposure2=one, distribution="binomial")
    dosage = RowDosage(mean, np.where(mean != 0, 0.2, 0), np.where(doses != 0, 0.1, 0), doses == 0)
    p = problem(stats, dosage, np.full(n, 0.4), alpha_sd=0.3, axis=Axis.of(doses[:n_cis]), priors=TransPriors())
    p = with_tail(p, 0.03, 0.35)
    return p.with_background(GRID) if design == "pooled" else p


@pytest.fixture(scope="module")
def problems() -> dict[str, Problem]:
    return {name: _problem(name) for name in DESIGNS}


def _arguments(p: Problem, name: str) -> tuple[Any, ...]:
    """A curve, some of its shapes and taus, of which some features skip some."""
    c = curve(name)
    shapes, _, consts = c.lattice(p.axis, p.priors)
    some = np.linspace(0, len(shapes) - 1, min(len(shapes), 40)).astype(int)
    taus = np.repeat(GRID[None], len(p.counts), 0)
    taus[::3, 2], taus[1, 3:], taus[5] = -1.0, -1.0, -1.0
    return c, shapes[None, some], consts[None, some], taus


def _agree(got: np.ndarray, want: np.ndarray, **kwargs: float) -> None:
    assert (np.isfinite(got) == np.isfinite(want)).all()
    ok = np.isfinite(want)
    np.testing.assert_allclose(got[ok], want[ok], **kwargs)


def _same_evidence(got: np.ndarray, want: np.ndarray) -> None:
    """Equal to 1e-6 nats but for points whose path to the mode is ill-conditioned.

    There a change of the counts by 1e-11 moves the compiled kernel itself by 1e-3 to 1e-2.
    """
    assert (np.isfinite(got) == np.isfinite(want)).all()
    ok = np.isfinite(want)
    error = np.abs(got[ok] - want[ok])
    assert (error < 1e-6).mean() > 0.98
    assert error.max() < 2e-3


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", CURVES)
def test_evidence_modes_and_covariances(problems: dict[str, Problem], design: str, name: str, target: Target) -> None:
    p = problems[design]
    arguments = _arguments(p, name)
    want = evidence_of(p, *arguments, modes=True)
    got = evidence_of(replace(p, target=target), *arguments, modes=True)
    assert np.isfinite(want[0]).sum() > 50
    _same_evidence(got[0], want[0])
    ok = np.isfinite(want[0])
    for mine, theirs in zip(got[1:], want[1:], strict=True):
        np.testing.assert_allclose(mine[ok], theirs[ok], rtol=1e-3, atol=1e-3)


def test_without_a_wide_component_and_errors_of_dosages(problems: dict[str, Problem], target: Target) -> None:
    p = with_tail(problems["plain"], 0.0, 0.0)
    for q in (p, p.with_design(error=np.zeros_like(p.design.error))):
        arguments = _arguments(q, "single_hill")
        want = evidence_of(q, *arguments)[0]
        _same_evidence(evidence_of(replace(q, target=target), *arguments)[0], want)


def test_search_in_single_precision(problems: dict[str, Problem]) -> None:
    """Where a step of the search is on the edge of being the last one, single precision may decide otherwise."""
    p, target = problems["plain"], Target(torch.device("cpu"), torch.float32)
    for name in CURVES:
        arguments = _arguments(p, name)
        want, got = (evidence_of(q, *arguments)[0] for q in (p, replace(p, target=target)))
        ok = want > want.max(axis=(1, 2), keepdims=True) - 10
        error = np.abs(got[ok] - want[ok])
        assert (error < 1e-3).mean() > 0.995
        assert np.median(error) < 1e-5


@pytest.mark.parametrize("name", CURVES)
def test_every_tensor_is_on_the_device(
    problems: dict[str, Problem], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's meta device, which computes shapes only, a tensor that was left on the CPU is an error."""
    p, c = problems["ragged"], curve(name)
    lay = layout.layout(p.design, Target(torch.device("cpu"), torch.float64))
    tensors = {f.name: getattr(lay, f.name) for f in fields(lay)}
    lay = replace(lay, **{k: v.to("meta") for k, v in tensors.items() if isinstance(v, torch.Tensor)})
    n_b, n_lanes, n_c, n_amp = 5, 4, lay.n_groups, c.n_amplitudes

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.float64, device="meta")

    shapes = empty(c.lattice(p.axis, p.priors)[0].shape[1], 1, n_lanes)
    tabs = batched_curves.tables(c.code, shapes, empty(2, 1, 1), lay)
    at = replace(
        layout.points(empty(p.counts.shape[1], n_b), None, empty(n_b), lay),
        tau2=empty(n_b, n_lanes),
        tables=tabs,
        value=empty(n_b, n_lanes),
        mode=empty(n_c, n_b, n_lanes),
        precision=empty(n_c, n_c, n_b, n_lanes),
    )
    theta, u = empty(n_amp + n_c, n_b, n_lanes), empty(len(lay.rows), len(lay.wide2), n_b, n_lanes)
    monkeypatch.setattr(effects, "MOST_STEPS", 0)  # the search looks at values
    found, _ = marginal.evaluate(c.code, theta, u, n_amp, at, lay)
    chol, _ = linalg.cholesky(found.hess)
    assert linalg.inverse(chol).device.type == found.value.device.type == "meta"
    if c.name in ("single_hill", "additive_hill"):
        old = theta[1 : 1 + n_amp, :, :1], tabs.low[..., :1], tabs.high[..., :1]
        assert batched_curves.match(c.code, *old, tabs).shape == (n_amp, n_b, n_lanes)
    if c.name == "additive_hill":
        assert turns.log_mean(theta, linalg.inverse(chol), tabs, empty(25), 0.2).shape == (n_b, n_lanes)


@pytest.mark.parametrize("name", CURVES)
def test_batches_do_not_change_a_feature(
    problems: dict[str, Problem], name: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = replace(problems["ragged"], target=target, turn=True)
    c, shapes, consts, taus = _arguments(p, name)
    own = np.repeat(shapes, len(p.counts), 0), np.repeat(consts, len(p.counts), 0)  # of each feature its own
    together = evidence_of(p, c, shapes, consts, taus)[0]
    monkeypatch.setattr(Target, "free", 1)
    for each in (shapes, consts), own:
        _agree(evidence_of(p, c, *each, taus)[0], together, rtol=1e-9)


def test_a_batch_too_large_is_halved(problems: dict[str, Problem], monkeypatch: pytest.MonkeyPatch) -> None:
    p = replace(problems["plain"], target=Target(torch.device("cpu"), torch.float64))
    arguments = _arguments(p, "single_hill")
    want, call, sizes = evidence_of(p, *arguments)[0], kernel._on_device, []

    def small(*args: Any, **kwargs: Any) -> Any:
        sizes.append(len(args[7]))
        if sizes[-1] > 3:
            raise torch.cuda.OutOfMemoryError
        return call(*args, **kwargs)

    monkeypatch.setattr(kernel, "_on_device", small)
    _agree(evidence_of(p, *arguments)[0], want, rtol=0, atol=1e-8)
    assert sizes[:3] == [11, 6, 3]  # one of the twelve has no tau
    assert max(sizes[2:]) == 3


def test_turns_are_part_of_the_evidence(problems: dict[str, Problem], target: Target) -> None:
    p = replace(problems["plain"], turn=True)
    arguments = _arguments(p, "additive_hill")
    want = evidence_of(p, *arguments)[0]
    _same_evidence(evidence_of(replace(p, target=target), *arguments)[0], want)
    assert np.isinf(want).any()  # points that do not matter


@pytest.mark.parametrize(("design", "function_type"), [("plain", "auto"), ("pooled", "auto"), ("plain", "polynomial")])
def test_comparison_of_curves(design: str, function_type: str, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """First look, kernel, large blocks; the tail of the guide effects and the summary of NTC guides before."""
    p = replace(_problem(design, 40), background=None)
    tails = []
    monkeypatch.setattr(evidence, "BLOCK", 8)
    monkeypatch.setattr(blocks, "LARGE", 25)
    found = []
    for q in (p, replace(p, target=target)):
        tails.append((0.03, 0.35) if design == "pooled" else learn_tail(q, GRID))
        found.append(fit.evaluate(*fit.set_up(q, fit.Options(function_type=function_type), tails[-1])))
    want, got = found
    assert tails[0] == tails[1]
    _same_evidence(got.values, want.values)
    for mine, theirs in zip(got.masses, want.masses, strict=True):
        _agree(mine, theirs, rtol=1e-4, atol=1e-4)


def test_fit_trans_calls_the_same(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    adata = ds.datasets.titration(1500, 150)
    ds.pp.size_factors(adata)
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, device="cpu")
    want = ds.get.trans(adata)
    monkeypatch.setattr(fit, "accelerator", lambda _: target)
    ds.tl.fit_trans(adata, key_added="again")
    got = ds.get.trans(adata, key="again")
    assert (want["qvalue"] < 0.05).sum() > 10
    for name in ("model", "class", "status"):
        assert (got[name].astype(str) == want[name].astype(str)).all()
    for name in ("log_bf", "lfdr", "qvalue", "pvalue", "log2_ec50", "log2_ec50_q025", "hill_n", "log2fc_full"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6, atol=1e-9, equal_nan=True)
    assert adata.uns["trans"]["hyper"]["wide_sd"] == adata.uns["again"]["hyper"]["wide_sd"]


def test_cholesky_and_inverse(rng: np.random.Generator) -> None:
    a = rng.normal(size=(5, 3, 4, 4))
    a = a @ a.transpose(0, 1, 3, 2) + 0.1 * np.eye(4)
    a[2, 1] -= 50 * np.eye(4)
    chol, ok = linalg.cholesky(torch.from_numpy(a.transpose(2, 3, 0, 1).copy()))
    assert ok.sum() == 14
    assert not ok[2, 1]
    inverse = linalg.inverse(chol).permute(2, 3, 0, 1).numpy()
    np.testing.assert_allclose(inverse[ok], np.linalg.inv(a[ok]), rtol=1e-8)


@pytest.mark.parametrize("name", ["tpu", "gpu", "cuda:", "mps", 0, None])
def test_unknown_device(name: Any) -> None:
    with pytest.raises(ValueError, match="is not known: use 'cpu', 'cuda'"):
        device.accelerator(name)
    with pytest.raises(ValueError, match="is not known"):
        ds.tl.fit_trans(ds.datasets.titration(100, 5), device=name)


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.accelerator("cpu") is None
    assert device.accelerator("auto") is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="torch finds no GPU"):
        device.accelerator("cuda")
    with pytest.raises(ValueError, match="torch finds no GPU"):
        ds.tl.fit_trans(ds.datasets.titration(100, 5), device="cuda")


def test_number_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.resolve_device("auto") == torch.device("cuda")
    assert device.resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"cuda:2.*finds 2"):
        device.resolve_device("cuda:2")
