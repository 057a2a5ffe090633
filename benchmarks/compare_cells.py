"""Do two contexts respond differently? Screens of single cells that the model of `tl.compare` did not make.

Each screen has 300 genes, 12 graded and 6 NTC guides, cells of two lines, dosages from the counts of the cis gene in
each line, and totals as size factors. 30 % of the genes respond: half of these alike in both lines, the others with an
EC50 1 log2 apart, another amplitude, or in one line only. Half of the Hills are steep (3 to 8), half shallow (0.7 to
1.5); EC50s lie anywhere in the range of dosages. Guide effects have an sd of 0.1 log2, half of the variance common to
the lines.

| screens | |
|---|---|
| same | nothing else differs; 100 cells of a guide, 4 counts of the cis gene in a cell |
| few | the second line: a third of the cells, dosages of 0.7 times and another 0.15 log2 for each guide, other levels |
| poor | such dosages and levels; 60 cells of a guide, 1 count of the cis gene |

    python benchmarks/compare_cells.py [--seeds 5] [--screens same,few,poor] [--said]

With --said the dosages are those of the cis step, without what all genes together say of their errors.
"""

from __future__ import annotations

import argparse

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit

import dream_sc as ds

LN2 = np.log(2.0)
N_GENES, N_GUIDES, N_NTC = 300, 12, 6
SHARES = {"null": 0.7, "equal": 0.15, "dosage": 0.05, "amplitude": 0.05, "only": 0.05}
DIFFERS = ("dosage", "amplitude", "only")
SCREENS = {"same": (100, 4.0), "few": (100, 4.0), "poor": (60, 1.0)}  # cells of a guide, counts of the cis gene
EFFECT = 0.1 * 0.5**0.5 * LN2  # sd of guide effects, of what is common and of what is each line's own
BINS = (0.0, 0.02, 0.1, 0.35, 0.65, 0.95, 1.0)


def truth_of(rng: np.random.Generator) -> pd.DataFrame:
    """A row per gene: its kind, level, overdispersion, and of both lines EC50, steepness and amplitude (0: none)."""
    kind = np.repeat(list(SHARES), [int(share * N_GENES) for share in SHARES.values()])
    mean = 2.0 ** rng.uniform(-1, 3.5, N_GENES)
    noise = np.clip(0.35 + 0.3 / np.sqrt(mean + 0.3), 0.2, 1) * np.exp(rng.normal(0, 0.2, N_GENES))
    rows = []
    for each in kind:
        steep = rng.uniform(3, 8) if rng.random() < 0.5 else rng.uniform(0.7, 1.5)
        ec50, b = rng.uniform(-3.0, 0.8), rng.choice([-1, 1]) * rng.uniform(1.2, 3.5) * LN2
        pair = [(ec50, b), (ec50, b)]
        if each == "dosage":
            ec50 = rng.uniform(-2.3, -0.7)
            pair = [(ec50, b), (ec50 + 1, b)]
        if each == "amplitude":
            pair = [(ec50, b), (ec50, 2 * b if abs(b) < 2 * LN2 else b / 2)]
        pair = pair[:: rng.choice([-1, 1])]
        responds = [each != "null", each != "null"]
        if each == "only":
            responds[rng.integers(2)] = False
        (k0, b0), (k1, b1) = pair
        rows.append((steep, k0, k1, b0 * responds[0], b1 * responds[1]))
    out = pd.DataFrame(rows, columns=["steep", "ec50_0", "ec50_1", "amplitude_0", "amplitude_1"])
    return out.assign(kind=kind, mean=mean, noise=noise)


def simulate(name: str, seed: int) -> tuple[ad.AnnData, pd.DataFrame]:
    """Cells of both lines, and the truth of the genes."""
    rng, (per_guide, cis_mean) = np.random.default_rng([seed, 77]), SCREENS[name]
    strength = np.sort(rng.uniform(-3.0, 0.8, N_GUIDES))
    strength[[0, -1]] = -3.0, 0.8
    truth = truth_of(rng)
    mean, shape = truth["mean"].to_numpy(), truth["noise"].to_numpy() ** -2.0
    shared = rng.normal(0, EFFECT, (N_GENES, N_GUIDES + N_NTC))
    counts, obs = [], []
    for c in range(2):
        other = name != "same"
        x = strength * (0.7 if other and c else 1.0) + rng.normal(0, 0.15 if other else 0.0, N_GUIDES)
        x = np.append(x, np.zeros(N_NTC))
        cells = rng.poisson(per_guide * np.exp(rng.normal(0, 0.3, len(x)))) + 20
        guide = np.repeat(np.arange(len(x)), cells // 3 + 8 if name == "few" and c else cells)
        dose = x[guide] + rng.normal(0, 0.2, len(guide)) * (guide < N_GUIDES)
        s = np.exp(rng.normal(0, 0.25, len(guide)))
        change = np.zeros((len(guide), N_GENES))
        for t, gene in enumerate(truth.itertuples()):
            k, factor = (gene.ec50_0, gene.ec50_1)[c], np.exp((gene.amplitude_0, gene.amplitude_1)[c])
            at = expit(gene.steep * LN2 * (np.append(dose, 0.0) - k))
            curve = np.log((factor - 1.0) * at + 1.0)
            change[:, t] = curve[:-1] - curve[-1]
        change += (shared + rng.normal(0, EFFECT, shared.shape)).T[guide]
        level = mean * 2.0 ** (rng.normal(0, 0.7, N_GENES) * c) if other else mean
        rate = level * s[:, None] * np.exp(change)
        genes = rng.poisson(rate * rng.gamma(shape, 1 / shape, rate.shape))
        cis = rng.poisson(cis_mean * s * 2.0**dose * rng.gamma(1 / 0.16, 0.16, len(guide)))
        counts.append(np.column_stack([cis, genes]))
        names = [f"c{g}" if g < N_GUIDES else f"NTC{g}" for g in guide]
        obs.append(pd.DataFrame({"guide": names, "target": np.where(guide < N_GUIDES, "CIS", "NTC"), "line": "AB"[c]}))
    cells = pd.concat(obs, ignore_index=True)
    cells.index = [f"cell{i}" for i in range(len(cells))]
    truth.index = [f"g{i}" for i in range(N_GENES)]
    x = sparse.csr_matrix(np.vstack(counts).astype(np.float32))
    return ad.AnnData(x, cells, pd.DataFrame(index=["CIS", *truth.index])), truth


def one(name: str, seed: int) -> pd.DataFrame:
    """A screen fitted by the defaults: what was found of each gene, beside its truth."""
    adata, truth = simulate(name, seed)
    ds.pp.size_factors(adata, method="total")
    ds.tl.fit_technical(adata, batch_key="line")
    ds.tl.fit_cis(adata, "CIS")
    ds.tl.fit_trans(adata, progress=False)
    ds.tl.compare(adata, "line", reference="A", n_null=0, progress=False)
    found = ds.get.compare(adata).join(truth, how="inner")
    found = found[found["status"] == "compared"].assign(seed=seed)
    return found.assign(called=found["qvalue_differs"] < 0.05, differs=found["kind"].isin(DIFFERS))


def covered(found: pd.DataFrame) -> str:
    """Coverage of the 95 % intervals, of genes that respond in both lines with EC50s among the dosages."""
    both = (found["amplitude_0"] != 0) & (found["amplitude_1"] != 0)
    inside = found["ec50_0"].between(-2, 0.5) & found["ec50_1"].between(-2, 0.5)
    some = found[both & inside & found["delta_log2_ec50_q025"].notna()]
    ratio = np.log2(np.abs(some["amplitude_1"] / some["amplitude_0"]))
    parts = []
    for column, value in (("delta_log2_ec50", some["ec50_1"] - some["ec50_0"]), ("log2_amplitude_ratio", ratio)):
        share = value.between(some[f"{column}_q025"], some[f"{column}_q975"]).mean()
        parts.append(f"{column} {share:.3f}")
    return f"{', '.join(parts)} of {len(some)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--screens", default=",".join(SCREENS))
    parser.add_argument("--said", action="store_true", help="dosages as the cis step says")
    args = parser.parse_args()
    ds.settings.verbosity = "error"
    if args.said:
        from dream_sc._core.response.contexts import decision

        decision.with_learned_dosages = lambda measured, *_: measured
    every = []
    for name in args.screens.split(","):
        found = pd.concat([one(name, seed) for seed in range(args.seeds)])
        every.append(found)
        by_seed = found[found["called"]].groupby("seed")["differs"]
        fdp = (1.0 - by_seed.mean()).reindex(range(args.seeds), fill_value=0.0)
        n, wrong = int(found["called"].sum()), int((found["called"] & ~found["differs"]).sum())
        power = found[found["differs"]].groupby("kind")["called"].mean().round(2).to_dict()
        print(f"{name}: FDP {fdp.mean():.3f} +- {fdp.std() / args.seeds**0.5:.3f} ({wrong} of {n}), power {power}")
        print(f"coverage: {covered(found)}", flush=True)
    table = pd.concat(every)
    groups = table.groupby(pd.cut(table["lfdr_differs"], BINS, include_lowest=True), observed=True)
    print(groups.agg(n=("differs", "size"), lfdr=("lfdr_differs", "mean"), differs=("differs", "mean")).round(3))


if __name__ == "__main__":
    main()
