"""Two real screens, all targets of each in one call of `tl.screen`: are known ones found, and how long does it take?

Schraivogel et al. 2020, 14 targets of a panel of 72 genes, one guide per cell; the guides of the enhancer HS2 act on
HBE1. Gasperini et al. 2019, 10 start sites and 17 candidate enhancers, two guides each, 366 genes and many guides per
cell: each target is perturbed or not (`dosage` is "none"), all cells without its guides are controls, and the gene of a
start site is a feature as any other.

    python benchmarks/real_libraries.py --data FOLDER     # or DREAM_SC_DATA; --only schraivogel

The same pairs are tested by pysceptre afterwards, where it is installed (`--peers FOLDER` or DREAM_SC_PEERS: a folder
with it).
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _pysceptre
import numpy as np
import pandas as pd
import real_gasperini
import real_schraivogel

import dream_sc as ds

if TYPE_CHECKING:
    from anndata import AnnData

Q = 0.05
# what is known: the target, and genes that fall with it
EXPECTED = {"HBE1": ["HBD"], "UBR5": ["CPNE3"], "GATA1": ["HBE1"]}
NEGATIVE = ("STK3", "RIPK2", "OXR1")


def screened(adata: AnnData, targets: Any, **how: Any) -> pd.DataFrame:
    """One screen, with its time."""
    began, used = time.perf_counter(), time.process_time()
    table = ds.tl.screen(adata, targets, progress=False, **how)
    n = int(table["qvalue"].notna().sum())
    wall, used = time.perf_counter() - began, time.process_time() - used
    print(f"{wall:.0f} s by the clock, {used:.0f} s of processor time, {n} pairs, {1000 * used / n:.1f} ms a pair")
    about = ds.get.screen(table, "targets")
    shown = ["target", "cis_gene", "dosage", "status", "n_guides", "n_cells", "log2_dosage_min", "n_calls_union"]
    print(about[shown].round(2).to_string(index=False))
    return table


def schraivogel(folder: str, *, peer: bool) -> None:
    """Targets with dosages; the calls, and what is known of them."""
    adata = real_schraivogel.load(folder)
    if adata is None:
        print(f"skipped: {real_schraivogel.FILE} is not there, name its folder as --data")
        return
    labels = sorted(set(adata.obs["target"].astype(str)) - {real_schraivogel.CONTROL})
    targets = {"HBE1" if label == "HS2" else label: [label] for label in labels}
    table = screened(adata, targets, control=real_schraivogel.CONTROL, batch_key="batch")
    calls = ds.get.screen(table, q=Q)
    shown = ["target", "feature", "class", "log2fc_full", "qvalue", "qvalue_union", "confidence"]
    print(calls[shown].round(3).to_string(index=False))
    for target, features in EXPECTED.items():
        for feature in features:
            row = ds.get.screen(table, targets=target, features=feature).iloc[0]
            found = row["qvalue_union"] < Q and row["log2fc_full"] < 0
            print(f"{'found  ' if found else 'MISSED '} {feature} falls with {target}: q {row['qvalue_union']:.2g}")
    false = calls["target"].astype(str).isin(NEGATIVE).sum()
    print(f"calls of {', '.join(NEGATIVE)}, of which none is known: {false}")
    if peer:
        label, guide = (adata.obs[name].astype(str).to_numpy() for name in ("target", "guide"))
        cells = {target: np.flatnonzero(label == mine[0]) for target, mine in targets.items()}
        control = np.flatnonzero(label == real_schraivogel.CONTROL)
        ntc = {
            name: np.flatnonzero((guide == name) & (label == real_schraivogel.CONTROL)) for name in set(guide[control])
        }
        pairs = _pysceptre.tested(adata, table, cells, control)
        design = _pysceptre.covariates(adata, np.log(adata.obs["size_factor"].to_numpy(float)))
        other = _pysceptre.analysed(adata, pairs, cells, design, {name: ntc[name] for name in sorted(ntc)})
        _pysceptre.beside(table, other, [(t, f) for t, features in EXPECTED.items() for f in features])


def gasperini(folder: str, *, peer: bool) -> None:
    """Targets without dosages; are the genes of start sites found, and which pairs of enhancers?"""
    path = Path(folder) / real_gasperini.FILE
    if not path.exists():
        print(f"skipped: {real_gasperini.FILE} is not there, name its folder as --data")
        return
    adata = real_gasperini.read(path)
    labels = sorted(set(adata.uns["guide_table"]["grna_group"].astype(str)) - {"non-targeting"})
    how = {"guides": "guides", "control": "non-targeting", "batch_key": "batch", "use_all_cells": True}
    table = screened(adata, labels, control_group="complement", **how)
    pairs = table.astype({"target": str, "feature": str}).set_index(["target", "feature"])
    known = adata.uns["positive_control_pairs"].rename(columns={"grna_group": "target", "response_id": "feature"})
    frame = pairs.loc[list(map(tuple, known[["target", "feature"]].astype(str).to_numpy()))]
    symbol = adata.var["symbol"].astype(str)
    shown = ["log2fc_full", "log2fc_full_q025", "log2fc_full_q975", "pvalue", "qvalue_union", "class", "near_cis"]
    print(frame[[name for name in shown if name in frame]].round(4).to_string())
    print(f"{(frame['qvalue_union'] < Q).sum()} of {len(frame)} genes of start sites are called over the union")
    calls = ds.get.screen(table, q=Q).astype({"target": str, "feature": str})
    candidates = set(map(tuple, adata.uns["discovery_pairs"][["grna_group", "response_id"]].astype(str).to_numpy()))
    for is_tss, some in calls.groupby(calls["target"].str.endswith("_TSS")):
        near = sum((t, f) in candidates for t, f in zip(some["target"], some["feature"], strict=True))
        names = [f"{t}: {symbol[f]}" for t, f in zip(some["target"], some["feature"], strict=True)]
        kind = "start sites" if is_tss else f"enhancers, {near} of them with a gene within the distance of the study"
        print(f"{len(some)} calls of {kind}: {', '.join(names)}")
    if peer:
        group = adata.uns["guide_table"].set_index("grna_id")["grna_group"].astype(str)
        target = group.reindex(list(adata.uns["guides_ids"])).to_numpy()
        has = adata.obsm["guides"].tocsc() > 0
        cells = {label: np.unique(has[:, np.flatnonzero(target == label)].indices) for label in labels}
        pairs = _pysceptre.tested(adata, table, cells, None)
        columns = (np.log(adata.obs["total_gene_umis"]), np.log1p(adata.obs["n_guides"]))
        design = _pysceptre.covariates(adata, *(c.to_numpy(float) for c in columns))
        other = _pysceptre.analysed(adata, pairs, cells, design, None)
        _pysceptre.beside(table, other, list(map(tuple, known[["target", "feature"]].astype(str).to_numpy())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("DREAM_SC_DATA", "."))
    parser.add_argument("--only", choices=("schraivogel", "gasperini"))
    parser.add_argument("--peers", help="folder with pysceptre, where it is not installed")
    given = parser.parse_args()
    peer = _pysceptre.installed(given.peers)
    for name, call in (("schraivogel", schraivogel), ("gasperini", gasperini)):
        if given.only in (None, name):
            print(f"## {name}", flush=True)
            call(given.data, peer=peer)


if __name__ == "__main__":
    main()
