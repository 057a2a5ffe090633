"""Real cells: a low-MOI CRISPRi screen with a targeted panel (Schraivogel et al. 2020), positive and negative controls.

The data are not part of the project: give the folder of schraivogel2020_k562_crispri_tapseq.h5ad as --data or in the
environment variable DREAM_SC_DATA. Without it the program says so and ends.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import dream_sc as ds

FILE = "schraivogel2020_k562_crispri_tapseq.h5ad"
CONTROL, POSED = "ntc", "UBR5"
# name of the run: cis gene, label of its guides
RUNS = {
    "UBR5": ("UBR5", "UBR5"),
    "GATA1": ("GATA1", "GATA1"),
    "HBE1 (HS2)": ("HBE1", "HS2"),
    "STK3": ("STK3", "STK3"),
    "RIPK2": ("RIPK2", "RIPK2"),
    "OXR1": ("OXR1", "OXR1"),
}
NEGATIVE = ("STK3", "RIPK2", "OXR1")
UBR5_DOSAGES, TOLERANCE = (0.1, -1.3, -1.5, -2.8), 0.4
Q_LEVEL = 0.05


def load(folder: str | None) -> ad.AnnData | None:
    """Cells with one guide, or None if the file is not there."""
    path = None if folder is None else Path(folder) / FILE
    if path is None or not path.exists():
        return None
    adata = ad.read_h5ad(path)
    adata = adata[adata.obs["single_guide"].to_numpy(bool)].copy()
    reference = adata.obs["panel_umis_ref"].to_numpy(float)
    adata = adata[reference > 0].copy()
    reference = reference[reference > 0]
    adata.obs["size_factor"] = reference / reference.mean()
    return adata


def called(adata: ad.AnnData, key: str) -> pd.DataFrame:
    frame = ds.get.trans(adata, key=key, sort=True)
    return frame[frame["qvalue"] < Q_LEVEL]


def fit_targets(adata: ad.AnnData) -> dict[str, str]:
    """Fit every run under its own keys; return the keys of the trans fits."""
    ds.tl.fit_technical(adata, batch_key="batch", control=CONTROL)
    keys = {}
    for name, (gene, label) in RUNS.items():
        cis_key, keys[name] = f"cis_{label}", f"trans_{label}"
        ds.tl.fit_cis(adata, gene, cis_targets=label, key_added=cis_key)
        ds.tl.fit_trans(adata, cis_key=cis_key, key_added=keys[name], progress=False)
    return keys


def pose(adata: ad.AnnData, real: pd.DataFrame, rng: np.random.Generator) -> pd.Index:
    """Give random NTC guides the real guides' dosages, fit, and return what is called.

    `real` holds the real targeting guides; `adata` only NTC cells.
    """
    adata = adata.copy()
    guide = adata.obs["guide"].astype(str)
    chosen = rng.choice(np.unique(guide), len(real), replace=False)
    posing = guide.isin(chosen).to_numpy()
    adata.obs["target"] = np.where(posing, POSED, CONTROL)
    ds.tl.fit_technical(adata, batch_key="batch", control=CONTROL)
    ds.tl.fit_cis(adata, POSED)
    table = adata.uns["cis"]["guides"].set_index("guide")
    cells = adata.obsm["cis"].copy()
    columns = [
        "log2_dosage",
        "sd",
        "log2fc",
        "log2fc_q025",
        "log2fc_q975",
        "within_sd",
        "escaper_fraction",
        "log2_dosage_acting",
        "sd_acting",
    ]
    for name, (_, row) in zip(chosen, real.iterrows(), strict=True):
        shift = row["log2_dosage"] - table.loc[name, "log2_dosage"]
        mine = (guide == name).to_numpy()
        cells.loc[mine, ["log2_x_true", "log2_q025", "log2_q975"]] += shift
        cells.loc[mine, "x_true"] *= 2.0**shift
        table.loc[name, columns] = row[columns].to_numpy(float)
    adata.obsm["cis"], adata.uns["cis"]["guides"] = cells, table.reset_index()
    adata.uns["cis"]["made_from"].pop("results")  # what edited tables are told by
    ds.tl.fit_trans(adata, progress=False)
    return called(adata, "trans").index


def print_targets(adata: ad.AnnData, keys: dict[str, str]) -> None:
    rows = []
    for name, (_, label) in RUNS.items():
        guides = ds.get.guides(adata, key=f"cis_{label}")
        dosage = np.sort(guides.loc[guides["target"] == label, "log2_dosage"].to_numpy())[::-1]
        hits = called(adata, keys[name])
        text = ", ".join(
            f"{g} ({r.log2fc_full:+.2f}, q {r.qvalue:.1g}{', 2 Hills' if r.model == 'additive_hill' else ''})"
            for g, r in hits.iterrows()
        )
        rows.append(f"| {name} | {', '.join(f'{d:+.2f}' for d in dosage)} | {len(hits)} | {text or 'none'} |")
    print("| cis gene | guides, log2 dosage | called | which (log2FC at the strongest knock-down, q) |")
    print("|---|---|---|---|", *rows, sep="\n")


def print_bars(adata: ad.AnnData, keys: dict[str, str]) -> None:
    guides = ds.get.guides(adata, key="cis_UBR5")
    seen = np.sort(guides.loc[guides["target"] == "UBR5", "log2_dosage"].to_numpy())[::-1]
    cpne3 = ds.get.trans(adata, "CPNE3", key=keys["UBR5"]).iloc[0]
    hbe1 = ds.get.trans(adata, "HBE1", key=keys["GATA1"]).iloc[0]
    false = {n: len(called(adata, keys[n])) for n in NEGATIVE}
    bars = {
        f"UBR5 guides within {TOLERANCE} of {UBR5_DOSAGES}": bool((abs(seen - UBR5_DOSAGES) <= TOLERANCE).all()),
        f"CPNE3 falls with UBR5 (q {cpne3.qvalue:.1g})": cpne3.qvalue < Q_LEVEL and cpne3.log2fc_full < 0,
        f"HBE1 falls with GATA1 (q {hbe1.qvalue:.1g})": hbe1.qvalue < Q_LEVEL and hbe1.log2fc_full < 0,
        f"negative controls call nothing {false}": not any(false.values()),
    }
    print()
    for text, ok in bars.items():
        print(f"{'held  ' if ok else 'MISSED'}  {text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("DREAM_SC_DATA"), help="folder of the data [DREAM_SC_DATA]")
    parser.add_argument("--regroupings", type=int, default=20, help="of NTC guides that pose as UBR5's; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for the tables and a picture")
    args = parser.parse_args()
    adata = load(args.data)
    if adata is None:
        print(f"skipped: {FILE} is not there; name its folder as --data or in DREAM_SC_DATA")
        return
    print(f"{adata.n_obs} cells with one guide, {adata.n_vars} genes, {len(set(adata.obs['guide']))} guides\n")
    keys = fit_targets(adata)
    print_targets(adata, keys)
    print_bars(adata, keys)
    if args.output:
        write(adata, keys, args.output)
    if not args.regroupings:
        return
    guides = ds.get.guides(adata, key=f"cis_{POSED}")
    controls = adata[(adata.obs["target"] == CONTROL).to_numpy()].copy()
    del controls.obsm, controls.uns, controls.varm
    rng = np.random.default_rng(args.seed)
    false = [pose(controls, guides[guides["target"] == POSED], rng) for _ in range(args.regroupings)]
    share = np.mean([len(f) > 0 for f in false])
    print(f"\n4 NTC guides posing as {POSED}'s against the other 26, {len(false)} regroupings: any call in {share:.3f}")
    counts = pd.Series([g for f in false for g in f], dtype=object).value_counts()
    print("calls by gene:", counts.to_dict() or "none")


def write(adata: ad.AnnData, keys: dict[str, str], folder: Path) -> None:
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    for name, key in keys.items():
        label = RUNS[name][1]
        ds.get.trans(adata, key=key, sort=True).to_csv(folder / f"{label}.csv")
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for ax, (name, gene) in zip(figure.subplots(1, 2), (("UBR5", "CPNE3"), ("GATA1", "HBE1")), strict=True):
        ds.pl.dose_response(adata, gene, key=keys[name], ax=ax)
    figure.savefig(folder / "real_schraivogel.png", dpi=130)


if __name__ == "__main__":
    main()
