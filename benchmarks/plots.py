"""Seconds that each plot takes of a screen with 20,000 features: a small fit, whose features are repeated.

`--features 1` and `--features 12` take so many of the responders of that fit, `--dark` a dark style. Bars are held
against seconds of the clock; those of the processor stand beside them, which other programs change less.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from scipy import sparse

import dream_sc as ds

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

mpl.use("Agg")
BAR, HEATMAP_BAR = 2.0, 10.0  # seconds


def fitted(n_cells: int, *, compared: bool = False) -> AnnData:
    """A fitted screen of 200 features; on request with two lines that were compared, checked and calibrated."""
    small = ds.datasets.titration(n_cells, 200, rng=0)
    ds.tl.fit_technical(small, batch_key="batch")
    ds.tl.fit_cis(small, "GFI1B")
    ds.tl.fit_trans(small)
    if compared:
        small.obs["line"] = np.where(np.arange(small.n_obs) % 2 == 0, "one", "two")
        ds.tl.compare(small, "line", n_null=0)
        ds.tl.check_confounding(small, batch_key="batch")
        ds.tl.calibrate(small, n=2)
    small.uns.pop("titration")
    return small


def repeated(n_features: int, n_cells: int, *, compared: bool = False) -> AnnData:
    """A fitted screen whose features are copies of 200 fitted ones, each with a name of its own; or a few of them."""
    import anndata as ad

    small = fitted(n_cells, compared=compared)
    if n_features < small.n_vars:
        return small[:, ["GFI1B", *ds.get.responders(small).index[:n_features]]].copy()
    which = np.append(np.arange(small.n_vars), np.resize(np.arange(1, small.n_vars), n_features - small.n_vars))
    names = [f"{small.var_names[j]}_{i}" if i >= small.n_vars else small.var_names[j] for i, j in enumerate(which)]
    big = ad.AnnData(sparse.csr_matrix(small.X)[:, which].tocsr(), small.obs.copy(), pd.DataFrame(index=names))
    for key, value in small.varm.items():
        rows = (
            value.iloc[which].set_axis(big.var_names) if isinstance(value, pd.DataFrame) else np.asarray(value)[which]
        )
        big.varm[key] = rows
    for key, value in small.obsm.items():
        big.obsm[key] = value
    big.uns = dict(small.uns)
    for key in ("technical", "cis", "trans"):
        big.uns[key].pop("made_from", None)
    return big


def plots(adata: AnnData) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    table = ds.get.trans(adata, sort=True)
    other = pd.DataFrame({"log2FoldChange": table["log2fc_full"], "padj": table["qvalue"]})
    pl, names, differ = (
        ds.pl,
        list(table.index[table["qvalue"].notna()][:12]),
        list(ds.get.compare(adata, sort=True).index[:12]),
    )
    plan = {"n_cells_per_guide": [25, 50, 100, 200], "log2_dosages": [-3, -2, -1]}
    forecast, sizes = ds.design.power(None, plan, log2fc=[0.5, 1]), ds.memory.estimate(adata.n_vars, adata.n_obs)
    return {
        "volcano": lambda: pl.volcano(adata),
        'volcano(x="log2_ec50")': lambda: pl.volcano(adata, x="log2_ec50"),
        "classes": lambda: pl.classes(adata),
        "forest": lambda: pl.forest(adata),
        "guides": lambda: pl.guides(adata),
        "priors": lambda: pl.priors(adata),
        "compare of one": lambda: pl.compare(adata, differ[0]),
        "compare of twelve": lambda: pl.compare(adata, differ),
        "power": lambda: pl.power(forecast),
        "confounding": lambda: pl.confounding(adata),
        "calibration": lambda: pl.calibration(adata),
        "memory": lambda: pl.memory(sizes),
        "convergence": lambda: pl.convergence(adata),
        "de_comparison": lambda: pl.de_comparison(adata, other),
        "cis": lambda: pl.cis(adata),
        "technical": lambda: pl.technical(adata),
        'technical(features="all")': lambda: pl.technical(adata, features="all"),
        "dose_response of one": lambda: pl.dose_response(adata, names[0]),
        "dose_response of twelve": lambda: pl.dose_response(adata, names),
        "heatmap of those called": lambda: pl.heatmap(adata),
        "heatmap of all": lambda: pl.heatmap(adata, list(adata.var_names[1:])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=20_000)
    parser.add_argument("--cells", type=int, default=3000)
    parser.add_argument("--dark", action="store_true", help="in matplotlib's dark_background")
    parser.add_argument("--output", type=Path, help="folder for the pictures")
    args = parser.parse_args()
    import matplotlib.pyplot as plt

    if args.dark:
        plt.style.use("dark_background")
    adata = repeated(args.features, args.cells, compared=True)
    called = int((ds.get.trans(adata)["qvalue"] < 0.05).sum())
    print(f"{adata.n_vars} features of which {called} are called, {adata.n_obs} cells\n")
    print("| plot | seconds | ... of the processor | with its PNG | bar |", "|---|---|---|---|---|", sep="\n")
    for name, draw in plots(adata).items():
        start, begun = time.perf_counter(), time.process_time()
        ax = np.ravel(draw())[0]
        drawn, used = time.perf_counter() - start, time.process_time() - begun
        ax.figure.canvas.draw()
        whole = time.perf_counter() - start
        bar = HEATMAP_BAR if name.startswith("heatmap") else BAR
        missed = "" if drawn < bar else ", missed"
        print(f"| {name} | {drawn:.2f} | {used:.2f} | {whole:.2f} | {bar:g}{missed} |", flush=True)
        if args.output:
            args.output.mkdir(parents=True, exist_ok=True)
            kept = name.translate(str.maketrans({" ": "_", "(": "_", "=": "_", '"': "", ")": ""}))
            ax.figure.savefig(args.output / f"{kept}.png", dpi=100)
        plt.close("all")
    print(f"\n{os.getloadavg()[0]:.1f} programs ran at a time, on {len(os.sched_getaffinity(0))} core(s) for this one")


if __name__ == "__main__":
    main()
