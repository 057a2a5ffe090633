"""Knock-outs without dosages: what guides that do nothing cost, and whether they are found.

Guides on a target whose mRNA is not measured and six NTC guides, 60 cells each, guide shifts of 0.1 log2; a fifth of
150 genes moves by 0.4 to 1 log2 where a guide acts. Power: of genes that move by more than 0.6 log2. `before` is with
all guides taken as acting.

    python benchmarks/inert_guides.py [power] [--seeds 3]
    python benchmarks/inert_guides.py programmes [--seeds 4]
    python benchmarks/inert_guides.py regroupings [--n 30] [--data FOLDER]
    python benchmarks/inert_guides.py renge [--data FOLDER]

power: none to three of six guides do nothing, none or one of three, none to two of four.
programmes: guides with off-target programmes, of sd 1 log2 in a fifth of the genes, where no guide acts (none, one
guide, two guides that share one), where all act and a guide or two have one, and where one more guide does nothing.
Whether guides are taken as inert that act, or that are as good as the others; false calls before and after.
regroupings: 3, 4 and 6 real NTC guides (Schraivogel et al. 2020) pose as those of a knock-out, `--n` times each.
renge: real knock-outs (Renge et al. 2023), one of whose four labels is replaced by cells of a target that does nothing.
"""

from __future__ import annotations

import argparse
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import real_schraivogel
from scipy import sparse

import dream_sc as ds
from dream_sc._core.response import inert_guides

if TYPE_CHECKING:
    from collections.abc import Iterator

N_GENES, N_NTC, N_CELLS, SHIFT = 150, 6, 60, 0.1
LARGE, ENOUGH, FDR = 0.6, 0.5, 0.05
PROGRAMME = 0.2, 1.0  # share of genes, and sd in log2
RENGE, NOTHING = "renge2023_hipsc_crispko.h5ad", "TRIM25"
POSING = (3, 4, 6)
INERT = ((6, 0), (6, 1), (6, 2), (6, 3), (4, 0), (4, 1), (4, 2), (3, 0), (3, 1))


class Case(NamedTuple):
    """A screen of one target."""

    n_guides: int = 6
    inert: int = 0  # the last of them
    acting: bool = True  # whether the others do anything
    programme: int = 0  # guides, the first of them, that share an off-target programme


def simulate(seed: int, inert: int = 0, case: Case | None = None) -> tuple[ad.AnnData, np.ndarray, np.ndarray]:
    """Counts, the log2 fold change of each gene where a guide acts, and the genes' means."""
    case = Case(inert=inert) if case is None else case
    rng = np.random.default_rng(seed)
    n = case.n_guides + N_NTC
    guide = np.repeat(np.arange(n), N_CELLS)
    mean = np.exp(rng.normal(0.3, 1, N_GENES))
    phi = 1 / (0.35 + 0.3 / np.sqrt(mean + 0.3)) ** 2
    effect, moves = np.zeros(N_GENES), rng.permutation(N_GENES)[: N_GENES // 5]
    effect[moves] = rng.choice([-1, 1], len(moves)) * rng.uniform(0.4, 1.0, len(moves))
    effect *= case.acting
    acts = np.arange(n) < case.n_guides - case.inert
    log2 = acts[:, None] * effect + rng.normal(0, SHIFT, (n, N_GENES))
    own = np.random.default_rng([seed, 1])
    share, sd = PROGRAMME
    log2[: case.programme] += np.where(own.random(N_GENES) < share, own.normal(0, sd, N_GENES), 0.0)
    size = rng.lognormal(0, 0.25, len(guide))
    expected = size[:, None] * mean * 2 ** log2[guide]
    counts = rng.poisson(expected * rng.gamma(phi, 1 / phi, expected.shape)).astype(np.float32)
    adata = ad.AnnData(sparse.csr_matrix(counts))
    adata.var_names = [f"gene_{i}" for i in range(N_GENES)]
    targeting = guide < case.n_guides
    adata.obs["guide"] = [f"{'ko' if t else 'ntc'}_{g}" for t, g in zip(targeting, guide, strict=True)]
    adata.obs["target"] = np.where(targeting, "TARGET", "NTC")
    adata.obs["size_factor"] = size / size.mean()
    return adata, effect, mean


@contextmanager
def all_act() -> Iterator[None]:
    """No guide is taken as inert."""
    usual, inert_guides.LEAST_GAIN = inert_guides.LEAST_GAIN, np.inf
    try:
        yield
    finally:
        inert_guides.LEAST_GAIN = usual


def one(seed: int, case: Case) -> dict[str, float]:
    """Calls of one screen with all guides taken as acting, and with inert ones left out, and which these are.

    Where none is left out, both are the same fit.
    """
    adata, effect, mean = simulate(seed, case=case)
    ds.tl.fit_technical(adata)
    ds.tl.fit_trans(adata, dosage="none", cis_targets="TARGET", progress=False)
    table = ds.get.guides(adata, key="trans")
    found = (table.loc[~table["is_control"], "p_acts"] < FDR).to_numpy()
    flags = adata.uns["trans"]["flags"].set_index("flag")["raised"]
    after = _of_calls(adata, effect, mean)
    if found.any():
        with all_act():
            ds.tl.fit_trans(adata, dosage="none", cis_targets="TARGET", progress=False)
    before = _of_calls(adata, effect, mean)
    wrong = found[: case.n_guides - case.inert].sum()
    names = {f"{name} before": value for name, value in before.items()} | {f"{n} after": v for n, v in after.items()}
    of_guides = {"found": found.sum() - wrong, "wrongly": wrong, "guides_disagree": float(flags["guides_disagree"])}
    return case._asdict() | names | of_guides


def _of_calls(adata: ad.AnnData, effect: np.ndarray, mean: np.ndarray) -> dict[str, float]:
    called = ds.get.trans(adata)["qvalue"].to_numpy() < FDR
    large = (np.abs(effect) > LARGE) & (mean > ENOUGH)
    false = (called & (effect == 0)).sum()
    return {
        "power": called[large].mean() if large.any() else np.nan,
        "false": float(false),
        "FDP": false / max(called.sum(), 1),
    }


def cases(what: str) -> list[Case]:
    """What is simulated."""
    if what == "power":
        return [Case(n, inert) for n, inert in INERT]
    out = [Case(n, 0, acting=False, programme=k) for n in (3, 4, 6) for k in (0, 1, 2)]
    out += [Case(n, 0, programme=k) for n in (3, 4, 6) for k in (1, 2)]
    return [*out, Case(4, 1, programme=1), Case(6, 1, programme=1), Case(6, 1, programme=2)]


def called_and_inert(adata: ad.AnnData, target: str, **given: str) -> tuple[set[str], list[str]]:
    """Genes that are called, and guides that are taken as inert."""
    ds.tl.fit_trans(adata, dosage="none", cis_targets=target, progress=False, **given)
    table, guides = ds.get.trans(adata), ds.get.guides(adata, key="trans")
    return set(table.index[table["qvalue"] < FDR]), guides.index[guides["p_acts"] < FDR].tolist()


def print_regroupings(folder: str | None, n: int) -> None:
    adata = real_schraivogel.load(folder)
    if adata is None:
        print("no data: skipped")
        return
    adata = adata[(adata.obs["target"] == real_schraivogel.CONTROL).to_numpy()].copy()
    ds.tl.fit_technical(adata, batch_key="batch", control=real_schraivogel.CONTROL)
    guides = sorted(adata.obs["guide"].astype(str).unique())
    rng = np.random.default_rng(0)
    for n_guides in POSING:
        calls, inert = 0, 0
        for _ in range(n):
            posing = adata.obs["guide"].isin(rng.permutation(guides)[:n_guides])
            adata.obs["posed"] = np.where(posing, "TARGET", real_schraivogel.CONTROL)
            found = called_and_inert(adata, "TARGET", target_key="posed", control=real_schraivogel.CONTROL)
            calls, inert = calls + bool(found[0]), inert + bool(found[1])
        print(f"{n_guides} guides: {calls} of {n} regroupings with a call, {inert} with an inert guide", flush=True)


def print_renge(folder: str | None) -> None:
    path = None if folder is None else Path(folder) / RENGE
    if path is None or not path.exists():
        print("no data: skipped")
        return
    data = ad.read_h5ad(path)
    data.obs["size_factor"] = 1.0
    data.obs[["guide", "target"]] = data.obs[["guide", "target"]].astype(str)
    ds.tl.fit_technical(data, batch_key="day")
    days = sorted(data.obs["day"].unique())
    print("| target | replaced | before | after | of them with all labels | inert |\n|---|---|---|---|---|---|")
    own_calls: dict[str, set[str]] = {}
    for target in ("SOX2", "PRDM14", NOTHING):
        for day in (None, *days):
            adata, here = data.copy(), (data.obs["day"] == day).to_numpy()
            own, other = (here & (data.obs["target"] == name).to_numpy() for name in (target, NOTHING))
            if target != NOTHING:
                adata.obs.loc[own, "target"] = "left out"
                adata.obs.loc[other, "target"] = target
            elif day is not None:
                continue
            with all_act():
                before = called_and_inert(adata, target)[0]
            after, inert = called_and_inert(adata, target)
            both = len(after & own_calls.setdefault(target, after))
            print(f"| {target} | {day} | {len(before)} | {len(after)} | {both} | {', '.join(inert)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="power", choices=["power", "programmes", "regroupings", "renge"])
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--n", type=int, default=30)
    parser.add_argument("--data", default=os.environ.get("DREAM_SC_DATA"))
    args = parser.parse_args()
    if args.what == "regroupings":
        print_regroupings(args.data, args.n)
        return
    if args.what == "renge":
        print_renge(args.data)
        return
    seeds = args.seeds or {"power": 3, "programmes": 4}[args.what]
    rows = []
    for case in cases(args.what):
        rows += [one(seed, case) for seed in range(seeds)]
        print(case, "done", flush=True)
    table = pd.DataFrame(rows).groupby(list(Case._fields), sort=False).mean()
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
