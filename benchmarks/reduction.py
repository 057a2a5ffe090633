"""What sums over guides lose against the cells themselves: log likelihood ratios, power and EC50 of responders.

Counts of single cells are simulated at known dosages of guides, without guide effects. Curves of one Hill are fitted by
maximum likelihood to the cells (negative binomial) and to the guides' sums (its moments, as the engine has them), with
the same overdispersion, over the same grid of EC50 and Hill coefficients.
"""

from __future__ import annotations

import argparse

import numpy as np

from dream_sc._core.sums import guide_sums

LN2 = np.log(2.0)
DOSES = np.r_[np.linspace(-3.0, 1.2, 12), np.zeros(6)]
K_GRID, N_GRID = np.linspace(-3.5, 1.7, 27), np.array([0.7, 1.2, 2.0, 3.5])
BOUNDARY = 5.0  # of the log likelihood ratio, taken for a call


def hill(k, n, x):
    return 1.0 / (1.0 + np.exp(-n * LN2 * (x - k)))


def log_like(y, phi, log_mean):
    """Negative binomial log likelihood summed over the last axis, without count-only terms."""
    return (y * log_mean - (y + phi) * np.log(phi + np.exp(log_mean))).sum(-1)


def fit(y, phi, log_w, h, h0):
    """Largest log likelihoods ``(S,)`` over level and amplitude, curves ``F h + 1 - h``; `h` is (S, R)."""
    a = np.full(len(h), np.log((y.sum() + 0.5) / np.exp(log_w).sum()))
    b = np.zeros(len(h))
    value = np.full(len(h), -np.inf)
    best_a, best_b = a.copy(), b.copy()
    damp = np.ones(len(h))
    for _ in range(60):
        f, f0 = np.exp(b)[:, None] * h + 1 - h, np.exp(b) * h0 + 1 - h0
        eta = a[:, None] + np.log(f) - np.log(f0)[:, None] + log_w
        now = log_like(y, phi, eta)
        worse = ~(now >= value - 1e-9)
        value, best_a, best_b = (np.where(worse, o, n) for o, n in ((value, now), (best_a, a), (best_b, b)))
        damp = np.where(worse, damp * 0.3, np.minimum(1.0, damp * 2))
        q = np.exp(eta) / (phi + np.exp(eta))
        d1, kappa = y - (y + phi) * q, (y + phi) * q * (1 - q)
        jac = np.exp(b)[:, None] * h / f - (np.exp(b) * h0 / f0)[:, None]
        g0, g1 = d1.sum(1), (d1 * jac).sum(1)
        h00, h01, h11 = kappa.sum(1), (kappa * jac).sum(1), (kappa * jac**2).sum(1) + 1e-3
        det = h00 * h11 - h01**2
        step_a, step_b = (h11 * g0 - h01 * g1) / det, (h00 * g1 - h01 * g0) / det
        limit = damp * np.minimum(1.0, 1.0 / np.maximum(np.abs(step_b), 1e-9))
        a, b = best_a + limit * step_a, np.clip(best_b + limit * step_b, -8, 8)
        if np.all(np.abs(step_b) < 1e-4):
            break
    return value


def study(spread: float, n_genes: int, n_cells: int, seed: int, bins: int | None) -> dict:
    """Ratios of what the sums and the cells say, at one spread of the size factors."""
    rng = np.random.default_rng(seed)
    guide = rng.integers(0, len(DOSES), n_cells)
    s = np.exp(rng.normal(0, spread, n_cells))
    s /= s.mean()
    n_bins = guide_sums.n_depth_bins(s) if bins is None else bins
    row = guide * n_bins + guide_sums.depth_bins(s, guide, n_bins)
    w, w2 = (np.bincount(row, s**k, len(DOSES) * n_bins) for k in (1, 2))
    grid = [(k, n) for k in K_GRID for n in N_GRID]
    h = np.array([hill(k, n, DOSES) for k, n in grid])
    h0 = np.array([hill(k, n, 0.0) for k, n in grid])
    ratios, ec50 = [], []
    for _ in range(n_genes):
        mean, o = np.exp(rng.uniform(np.log(0.3), np.log(8.0))), rng.uniform(0.3, 0.8)
        k, n, move = rng.uniform(-2.5, 0.8), rng.choice(N_GRID), rng.choice([-1, 1]) * rng.uniform(0.4, 1.5)
        curve = np.log(np.exp(move) * hill(k, n, DOSES) + 1 - hill(k, n, DOSES))
        curve -= np.log(np.exp(move) * hill(k, n, 0.0) + 1 - hill(k, n, 0.0))
        rate = mean * np.exp(curve)[guide] * s
        y = rng.poisson(rng.gamma(1 / o**2, rate * o**2)).astype(float)
        total = np.bincount(row, y, len(DOSES) * n_bins)
        found = []
        for data, phi, log_w, at in (
            (y, np.full(n_cells, 1 / o**2), np.log(s), h[:, guide]),
            (total, w**2 / (o**2 * w2), np.log(w), np.repeat(h, n_bins, 1)),
        ):
            value = fit(data, phi, log_w, at, h0)
            null = fit(data, phi, log_w, np.zeros((1, len(data))), np.zeros(1))[0]
            found.append((value.max() - null, grid[int(value.argmax())][0]))
        ratios.append([f[0] for f in found])
        ec50.append([abs(f[1] - k) for f in found])
    ratios, ec50 = np.array(ratios), np.array(ec50)
    clear = ratios[:, 0] > BOUNDARY
    return {
        "ratio": np.median(ratios[clear, 1] / ratios[clear, 0]),
        "power": (ratios > BOUNDARY).mean(0),
        "ec50": np.median(ec50[clear], 0),
        "n": int(clear.sum()),
        "bins": n_bins,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genes", type=int, default=200)
    parser.add_argument("--cells", type=int, default=3000)
    parser.add_argument("--spreads", type=float, nargs="+", default=[0.1, 0.25, 0.4, 0.6, 1.0])
    parser.add_argument("--bins", type=int, help="of size factors; by default as many as the engine takes")
    args = parser.parse_args()
    print("sd of log size factors   bins   log ratio sums / cells   power cells, sums   EC50 error cells, sums   genes")
    for spread in args.spreads:
        r = study(spread, args.genes, args.cells, 0, args.bins)
        print(
            f"{spread:22.2f} {r['bins']:6d} {r['ratio']:24.3f}   {r['power'][0]:11.3f} {r['power'][1]:6.3f}   "
            f"{r['ec50'][0]:20.3f} {r['ec50'][1]:6.3f} {r['n']:14d}",
            flush=True,
        )


if __name__ == "__main__":
    main()
