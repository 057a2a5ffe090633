"""Covariates that go with the guides: error rate and power with them in the technical fit, and without.

    python benchmarks/covariates.py [--seeds 10] [--genes 400] [--cells 5000] [--scenarios class graded irrelevant]

Simulated knock-downs with 12 graded and 6 NTC guides, 2 lanes and guide shifts of sd 0.05 log2. Each cell has a score
(as of the cell cycle, sd 1 within a guide) and one of three donors; both act on a third of the genes each, with
effects of sd 0.5 log2. "class": cells of targeting guides have a score higher by 1, and other shares of the donors.
"graded": the score falls with the dosage, by 0.4 for a log2. "irrelevant": score and donor act on nothing and are
those of "class". "crossed": they act, but are the same in all guides. Reported over seeds: realised false discovery
proportion at q < 0.05, nulls with small p, responders that are called, and in the technical step the coverage of the
95 % intervals of the coefficients and their error over that of cell by cell fits.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

SCENARIOS = ("class", "graded", "irrelevant", "crossed")
SHARE, SD = 1 / 3, 0.5  # of genes that a covariate acts on, and of its effects, log2
SHIFT, SLOPE = 1.0, -0.4
DOSAGES = (-3.0, -0.3)  # knock-downs, log2
DONORS = np.array([[0.25, 0.3, 0.45], [0.45, 0.3, 0.25]])  # of NTC and of targeting cells


def simulated(seed: int, scenario: str, n_genes: int, n_cells: int):
    """A titration whose counts also depend on a score and on donors, with the true coefficients (log2)."""
    adata = ds.datasets.titration(n_cells, n_genes, rng=seed, guide_shift_sd=0.05, dosage_range=DOSAGES)
    gen, obs = np.random.default_rng([seed, 9]), adata.obs
    targeting = (obs["target"] != "NTC").to_numpy()
    moved = {"graded": SLOPE * obs["true_log2_dosage"].to_numpy(), "crossed": 0.0}.get(scenario, SHIFT * targeting)
    score = gen.normal(size=n_cells) + moved
    shares = DONORS[targeting.astype(int) if scenario in ("class", "irrelevant") else np.zeros(n_cells, int)]
    donor = (gen.random(n_cells)[:, None] > shares.cumsum(1)).sum(1)
    truth = np.zeros((n_genes, 3))
    if scenario != "irrelevant":
        acts = gen.random((n_genes, 2)) < SHARE
        truth[:, 0] = gen.normal(0, SD, n_genes) * acts[:, 0]
        truth[:, 1:] = gen.normal(0, SD, (n_genes, 2)) * acts[:, 1:]
    obs["score"], obs["donor"] = score, pd.Categorical(np.array(["d1", "d2", "d3"])[donor])
    adata.X = _counts(gen, adata, np.column_stack([score, donor == 1, donor == 2]) @ truth.T)
    return adata, truth


def _counts(gen, adata, log2_factor: np.ndarray) -> sparse.csr_matrix:
    obs, var = adata.obs, adata.var
    x = obs["true_log2_dosage"].to_numpy()
    grid = np.linspace(x.min() - 0.01, x.max() + 0.01, 400)
    curves = np.log2(ds.datasets.true_curve(adata, list(adata.var_names), grid))
    mean = np.stack([np.interp(x, grid, curve) for curve in curves], 1) + log2_factor
    guides = adata.uns["titration"]["guides"]
    shift = gen.normal(0, 0.05, (len(guides), adata.n_vars))
    shift[:, 0] = 0.0
    mean += shift[pd.Index(guides["guide"]).get_indexer(obs["guide"])]
    batch = obs["batch"].cat.codes.to_numpy()
    mean += adata.varm["true_technical_effects"][:, batch].T
    mean = 2.0**mean * obs["true_size_factor"].to_numpy()[:, None]
    shape = 1.0 / var["true_overdispersion"].to_numpy() ** 2
    return sparse.csr_matrix(gen.poisson(gen.gamma(shape, mean / shape)).astype(np.float32))


def fitted(adata, covariates: str | None) -> dict[str, float]:
    """Calls of the three steps."""
    start = time.perf_counter()
    ds.tl.fit_technical(adata, batch_key="batch", covariates=covariates)
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata, progress=False)
    seconds = time.perf_counter() - start
    table = ds.get.trans(adata)
    called = (table["qvalue"] < 0.05).to_numpy()
    other = adata.var_names != "GFI1B"
    null = (adata.var["true_model"] == "null").to_numpy() & other
    move = adata.var["true_log2fc_range"].to_numpy() >= 1.0
    movers = ~null & other & move & (np.asarray(adata.X.mean(0)).ravel() >= 0.5)
    truth = adata.uns["titration"]["guides"].set_index("guide")["log2_dosage"]
    guides = ds.get.guides(adata)
    error = (guides["log2_dosage"] - truth.loc[guides.index])[~guides["is_control"].to_numpy(bool)]
    return {
        "false": (called & null).sum(),
        "called": called.sum(),
        "null": null.sum(),
        "p05": (table["pvalue"][null] < 0.05).mean(),
        "p005": (table["pvalue"][null] < 0.005).mean(),
        "found": (called & ~null).sum(),
        "responders": (~null & other).sum(),
        "movers_found": (called & movers).sum(),
        "movers": movers.sum(),
        "dosage_error": np.sqrt((error**2).mean()),
        "seconds": seconds,
    }


def coefficients(adata, truth: np.ndarray, n_glm: int) -> dict[str, float]:
    """Coverage of the coefficients' intervals, and errors of them and of negative binomial GLMs of the same cells."""
    b, sd = (np.asarray(adata.varm[f"technical_covariates{s}"]) for s in ("", "_sd"))
    known = np.isfinite(b).all(1)
    known[0] = False
    inside = (np.abs(b - truth) < 1.959964 * sd)[known]
    out = {
        "covered": inside.sum(),
        "of": inside.size,
        "acting": inside[truth[known] != 0].sum(),
        "of_acting": (truth[known] != 0).sum(),
    }
    enough = np.flatnonzero(known & (np.asarray(adata.X.mean(0)).ravel() > 0.3))[:n_glm]
    glm = np.stack([_glm(adata, t) for t in enough]) if n_glm else np.zeros((0, 3))
    return out | {
        "square": ((b - truth)[enough] ** 2).sum(),
        "square_glm": ((glm - truth[enough]) ** 2).sum(),
        "glms": glm.size,
    }


def _glm(adata, t: int) -> np.ndarray:
    """Coefficients (log2) of one gene by maximum likelihood on the control cells, with the true overdispersion."""
    import statsmodels.api as sm

    obs = adata.obs[adata.obs["target"] == "NTC"]
    design = pd.DataFrame(
        {
            "one": 1.0,
            "score": obs["score"],
            "d2": obs["donor"] == "d2",
            "d3": obs["donor"] == "d3",
            "lane": obs["batch"] == "batch_2",
        }
    ).astype(float)
    y = adata[obs.index].X[:, [t]].toarray().ravel()
    family = sm.families.NegativeBinomial(alpha=adata.var["true_overdispersion"].iloc[t] ** 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = sm.GLM(y, design.to_numpy(), family=family, offset=np.log(obs["size_factor"])).fit()
    return fit.params[1:4] / np.log(2)


def report(scenario: str, name: str, runs: pd.DataFrame) -> None:
    fdp = runs["false"] / runs["called"].clip(lower=1)
    total, error = runs.sum(), fdp.std(ddof=1) / np.sqrt(len(fdp)) if len(fdp) > 1 else np.nan
    print(
        f"| {scenario} | {name} | {fdp.mean():.3f} +- {error:.3f} | {fdp.max():.3f} | {runs['p05'].mean():.3f}, "
        f"{runs['p005'].mean():.4f} | {total['movers_found'] / total['movers']:.3f} | "
        f"{total['found'] / total['responders']:.3f} | {runs['dosage_error'].mean():.3f} | "
        f"{runs['seconds'].mean():.0f} |"
    )
    if "covered" in runs:
        print(
            f"  coefficients: 95 % intervals cover {total['covered'] / total['of']:.3f} of {total['of']:.0f}, "
            f"{total['acting'] / max(total['of_acting'], 1):.3f} of {total['of_acting']:.0f} that act; RMSE "
            f"{np.sqrt(total['square'] / max(total['glms'], 1)):.3f} log2, of cell by cell GLMs "
            f"{np.sqrt(total['square_glm'] / max(total['glms'], 1)):.3f} ({total['glms']:.0f} coefficients)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--genes", type=int, default=400)
    parser.add_argument("--cells", type=int, default=5000)
    parser.add_argument("--glms", type=int, default=40, help="genes a seed that are also fitted cell by cell")
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS), choices=SCENARIOS)
    options = parser.parse_args()
    print("| scenario | covariates | FDP | worst seed | nulls with p < 0.05, < 0.005 | power, movers |", end="")
    print(" responders called | RMSE of the dosages | s |")
    for scenario in options.scenarios:
        without, with_ = [], []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            adata, truth = simulated(seed, scenario, options.genes, options.cells)
            without.append(fitted(adata, None))
            with_.append(fitted(adata, "score + donor") | coefficients(adata, truth, options.glms))
            said = [f"{run['false']} false of {run['called']}" for run in (without[-1], with_[-1])]
            print(f"# {scenario}, seed {seed}: {said[0]}, with covariates {said[1]}", flush=True)
        report(scenario, "none", pd.DataFrame(without))
        report(scenario, "score, donor", pd.DataFrame(with_))


if __name__ == "__main__":
    main()
