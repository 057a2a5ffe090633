"""The two real screens, as AnnData with one guide a cell. The data are not part of the project."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

CONTROL = "NTC"
LEAST_CELLS = 5


@dataclass(frozen=True)
class Screen:
    """A file, how to read it, and its runs: name of the run to (cis gene, label of its guides).

    `expected` are responses that are known: run to gene. `quiet` are runs in which next to nothing is to be called.
    `nulls` are the runs whose dosages NTC guides take on.
    """

    name: str
    file: str
    read: Callable[[Path], ad.AnnData]
    runs: Callable[[ad.AnnData], dict[str, tuple[str, str]]]
    expected: dict[str, str]
    quiet: tuple[str, ...]
    nulls: tuple[str, ...]


def folder(given: str | None) -> Path | None:
    """The folder of the data, from the option or the environment."""
    text = given or os.environ.get("DREAM_SC_DATA")
    return Path(text) if text else None


def load(screen: Screen, data: Path | None) -> ad.AnnData | None:
    """The screen, or None, saying so, if its file is not there."""
    if data is None or not (data / screen.file).exists():
        print(f"{screen.name}: skipped, {screen.file} is not there; name its folder as --data or in DREAM_SC_DATA")
        return None
    return screen.read(data / screen.file)


def _schraivogel(path: Path) -> ad.AnnData:
    """Low MOI, targeted panel; size factors from the part of the panel without targets and globins."""
    adata = ad.read_h5ad(path)
    reference = adata.obs["panel_umis_ref"].to_numpy(float)
    keep = adata.obs["single_guide"].to_numpy(bool) & (reference > 0)
    adata, reference = adata[keep].copy(), reference[keep]
    target = adata.obs["target"].astype(str)
    guide = adata.obs["guide"].astype(str)
    return _plain(adata, guide, target.replace("ntc", CONTROL), reference)


def _gasperini(path: Path) -> ad.AnnData:
    """High MOI, of whose guides a few are listed: the cells with exactly one of these."""
    adata = ad.read_h5ad(path)
    matrix, table = adata.obsm["guide"], adata.uns["guide_table"]
    one = np.asarray(matrix.sum(1)).ravel() == 1
    which = np.asarray(matrix[one].argmax(1)).ravel()
    label = np.where(table["guide_type"] == "non-targeting", CONTROL, table["grna_group"].astype(str))
    adata = adata[one].copy()
    reads = adata.obs["total_gene_umis"].to_numpy(float)
    return _plain(adata, pd.Series(table["grna_id"].to_numpy(str)[which]), pd.Series(label[which]), reads)


def _plain(adata: ad.AnnData, guide: pd.Series, target: pd.Series, depth: np.ndarray) -> ad.AnnData:
    """Counts, guide, target, batch and size factor, and nothing else."""
    obs = pd.DataFrame(
        {
            "guide": guide.to_numpy(),
            "target": target.to_numpy(),
            "batch": adata.obs["batch"].astype(str).to_numpy(),
            "size_factor": depth / depth.mean(),
        },
        index=adata.obs_names,
    )
    out = ad.AnnData(adata.X.astype(np.float32), obs=obs, var=adata.var.copy())
    if "symbol" in out.var:
        out.var["symbol"] = out.var["symbol"].astype(str)
    return out


def _schraivogel_runs(adata: ad.AnnData) -> dict[str, tuple[str, str]]:
    genes = sorted(set(adata.obs["target"]) & set(adata.var_names))
    return {g: (g, g) for g in genes} | {"HBE1 by HS2": ("HBE1", "HS2")}


def _gasperini_runs(adata: ad.AnnData) -> dict[str, tuple[str, str]]:
    """Genes whose transcription start sites are targeted."""
    symbol = adata.var["symbol"].astype(str)
    targets = sorted(t for t in set(adata.obs["target"]) if t.endswith("_TSS"))
    genes = {t: symbol.index[symbol == t.removesuffix("_TSS")] for t in targets}
    return {t.removesuffix("_TSS"): (g[0], t) for t, g in genes.items() if len(g)}


SCREENS = {
    "schraivogel": Screen(
        "schraivogel",
        "schraivogel2020_k562_crispri_tapseq.h5ad",
        _schraivogel,
        _schraivogel_runs,
        {"UBR5": "CPNE3", "GATA1": "HBE1", "HBE1 by HS2": "HBD"},
        ("STK3", "RIPK2", "OXR1"),
        ("UBR5", "GATA1", "HBE1 by HS2"),
    ),
    "gasperini": Screen(
        "gasperini",
        "gasperini2019_k562_crispri_highmoi.h5ad",
        _gasperini,
        _gasperini_runs,
        {},
        (),
        ("CITED2", "MRPL9"),
    ),
}
