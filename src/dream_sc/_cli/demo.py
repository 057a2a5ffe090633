"""The demonstration behind ``dream-sc demo``: simulate, fit, compare with the truth, draw, write."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

CIS_GENE = "GFI1B"
Q_LEVEL = 0.05
ROWS_PRINTED = 25
PANELS = (2, 3)


def run(output: Path, *, n_cells: int = 3000, n_genes: int = 300, seed: int = 0) -> AnnData:
    """Simulate a titration, run the three steps, print a table, and write figures, the table and the h5ad.

    Parameters
    ----------
    output
        Folder to write into; made where it is missing.
    n_cells, n_genes
        Size of the simulation.
    seed
        Seed of the simulation and of the fits.
    """
    from dream_sc import datasets, pp, tl

    from .messages import folder_of

    folder_of(output).mkdir(parents=True, exist_ok=True)
    clock = time.perf_counter()
    adata = datasets.titration(n_cells, n_genes, rng=seed)
    print(f"simulated {adata.n_obs} cells x {adata.n_vars} genes; cis gene {CIS_GENE}")
    # totals would follow the dosage: in so small a panel the genes that respond hold much of all counts
    pp.size_factors(adata, method="median_ratio")
    tl.fit_technical(adata, batch_key="batch", rng=seed)
    tl.fit_cis(adata, CIS_GENE, rng=seed)
    tl.fit_trans(adata, rng=seed)
    print(f"three fits in {time.perf_counter() - clock:.0f} s\n")

    frame = comparison(adata)
    _print_report(frame)
    written = _write(adata, frame, output)
    print("written:")
    for path in written:
        print(f"  {path}")
    return adata


def comparison(adata: AnnData) -> pd.DataFrame:
    """Return the table of all genes with the simulated truth beside the estimates, best calls first."""
    from dream_sc import get

    estimates = get.trans(adata)
    truth = adata.var.loc[estimates.index, [c for c in adata.var if str(c).startswith("true_")]]
    return estimates.join(truth).sort_values(["qvalue", "log_bf"], ascending=[True, False])


def _print_report(frame: pd.DataFrame) -> None:
    from pandas import DataFrame

    called = frame[frame["qvalue"] < Q_LEVEL]
    shown = called.head(ROWS_PRINTED)
    print(
        DataFrame(
            {
                "model": shown["model"].astype(str),
                "true model": shown["true_model"].astype(str),
                "on_knockdown": shown["on_knockdown"].astype(str),
                "q": shown["qvalue"].map("{:.1e}".format),
                "log2 EC50 [95 %]": [_interval(row, "log2_ec50") + _mark(row) for _, row in shown.iterrows()],
                "true EC50": shown["true_log2_ec50"].map(_number),
                "hill n": shown["hill_n"].map(_number),
                "true n": shown["true_hill_n"].map(_number),
                "log2FC full [95 %]": [_interval(row, "log2fc_full") for _, row in shown.iterrows()],
                "true FC": shown["true_log2fc_full"].map(_number),
            }
        ).to_string()
    )
    if len(called) > len(shown):
        print(f"... and {len(called) - len(shown)} more")
    is_null = called["true_model"].astype(str) == "null"
    n_responding = int((frame["true_model"].astype(str) != "null").sum())
    print(
        f"\n{len(called)} genes called at q < {Q_LEVEL}; {int(is_null.sum())} of them do not respond.\n"
        f"{n_responding} genes respond in truth; {int((~is_null).sum())} of them were called.\n"
        "EC50: log2 dosage relative to NTC cells; ? = the dosages do not determine it (no plateau seen).\n"
        "log2FC full: strongest knock-down against NTC.\n"
    )


def _mark(row: pd.Series) -> str:
    """`?` where an EC50 is not claimed."""
    from dream_sc.get._main_table import INSIDE

    return "  " if row["p_ec50_inside"] > INSIDE else " ?"


def _number(value: float) -> str:
    return "" if value != value else f"{value:.2f}"


def _interval(row: pd.Series, name: str) -> str:
    low, high = row[f"{name}_q025"], row[f"{name}_q975"]
    return f"{_number(row[name])} [{_number(low)}, {_number(high)}]" if low == low else _number(row[name])


def best_genes(frame: pd.DataFrame, n: int) -> list[str]:
    """Return the genes to draw: the clearest of each class in turn, peaks and troughs (two Hills) first."""
    called = frame[(frame["qvalue"] < Q_LEVEL) & (frame["class"] != "null")]
    kind = called["class"].astype(str)
    order = called.assign(_rank=kind.groupby(kind).cumcount(), _turns=kind.str.startswith("biphasic"))
    return order.sort_values(["_rank", "_turns"], ascending=[True, False], kind="stable").index[:n].tolist()


def _write(adata: AnnData, frame: pd.DataFrame, output: Path) -> list[Path]:
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure

    from dream_sc import pl

    paths = []
    rows, columns = PANELS
    genes = best_genes(frame, rows * columns)
    if genes:
        curves: Any = pl.dose_response(adata, genes, ncols=columns)  # one legend for all panels
        figure = curves[0].figure
        paths.append(output / "dose_response.png")
        figure.savefig(paths[-1], dpi=200)
        plt.close(figure)
    for name, draw in (("cis", pl.cis), ("technical", pl.technical)):
        figure = Figure(figsize=(6.0, 4.0), layout="constrained")
        draw(adata, ax=figure.subplots())
        paths.append(output / f"{name}.png")
        figure.savefig(paths[-1], dpi=200)
    paths.append(output / "responding_genes.csv")
    frame[frame["qvalue"] < Q_LEVEL].to_csv(paths[-1], index_label="gene")
    paths.append(output / "titration.h5ad")
    adata.write_h5ad(paths[-1], compression="gzip")
    return paths
