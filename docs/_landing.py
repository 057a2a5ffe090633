"""The figure of the first page and the example report, with the fit of README.md: ``python docs/_landing.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FIGURE = HERE / "_static" / "landing" / "overview.png"
EXAMPLE = HERE / "_extra" / "example_report.html"


def fitted() -> Any:
    import dream_sc as ds

    adata = ds.datasets.titration()
    ds.pp.size_factors(adata, method="stable")
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    ds.tl.fit_trans(adata)
    return adata


def figure(adata: Any) -> None:
    """A gene that falls and one that rises, with their EC50s, and all genes."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    import dream_sc as ds

    adata = adata.copy()
    adata.uns.pop("titration")  # no truth in the picture
    table = ds.get.responders(adata)
    sure = table[(table["p_ec50_inside"] > 0.95) & (table["log2fc_full"].abs() > 1)]
    fig, axes = plt.subplots(1, 3, figsize=(11.5, 3.5), layout="constrained")
    for ax, way in zip(axes, ("down", "up"), strict=False):
        ds.pl.dose_response(adata, sure.index[sure["on_knockdown"] == way][0], ax=ax)
    ds.pl.volcano(adata, ax=axes[2], label=6)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(FIGURE, dpi=110)


def main() -> None:
    import dream_sc as ds

    adata = fitted()
    figure(adata)
    ds.tl.check_confounding(adata, batch_key="batch")
    ds.tl.calibrate(adata)
    EXAMPLE.parent.mkdir(parents=True, exist_ok=True)
    ds.report(adata, EXAMPLE, title="A simulated titration of GFI1B")


if __name__ == "__main__":
    main()
