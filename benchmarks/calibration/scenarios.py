"""The grid of simulated screens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dream_sc as ds

CIS_GENE = "GFI1B"
# two Hills are a fifth of the genes, and the range is wide enough for them to move by 1 log2 on either side
BASE: dict[str, Any] = {
    "n_cells": 5500,
    "n_genes": 500,
    "n_guides": 12,
    "n_ntc_guides": 6,
    "single_fraction": 0.15,
    "additive_fraction": 0.2,
    "dosage_range": (-3.5, 1.5),
}
SPARSE = {"guide_shift_sd": 0.5, "guide_shift_fraction": 0.1}
OTHERS = {"cell_state_sd": 0.3, "size_factor_error_sd": 0.15}
KNOCK_DOWN = {"dosage_range": (-3.0, -1.5)}
CELLS_PER_GUIDE = (30, 100, 300, 1000)


@dataclass(frozen=True)
class Scenario:
    """One kind of screen.

    `changes` are the arguments of `titration` that differ from `BASE`. Cells of guides with a dosage above
    `below` are taken away, which leaves curves whose EC50 lies outside what was observed. `dosage` is the argument of
    `tl.fit_trans`.
    """

    name: str
    text: str
    group: str
    changes: dict[str, Any] = field(default_factory=dict)
    oracle: bool = False
    strata: bool = False
    below: float | None = None
    dosage: str = "guide"

    def simulate(self, seed: int, **override: Any):
        """The screen and its truth; `override` goes over everything."""
        given = BASE | self.changes | override
        adata = ds.datasets.titration(given.pop("n_cells"), given.pop("n_genes"), rng=seed, **given)
        if self.below is None:
            return adata
        guides = adata.uns["titration"]["guides"]
        kept = guides[(guides["target"] == "NTC") | (guides["log2_dosage"] < self.below)].reset_index(drop=True)
        adata = adata[adata.obs["guide"].isin(kept["guide"]).to_numpy()].copy()
        adata.uns["titration"]["guides"] = kept
        return adata


def _nuisances() -> list[Scenario]:
    group = "nuisance"
    return [
        Scenario("plain", "no nuisance", group, {}, True, True),
        Scenario("shift_005", "guide shifts, sd 0.05 log2", group, {"guide_shift_sd": 0.05}, True),
        Scenario("shift_015", "guide shifts, sd 0.15", group, {"guide_shift_sd": 0.15}, True, True),
        Scenario("shift_030", "guide shifts, sd 0.3", group, {"guide_shift_sd": 0.3}, True),
        Scenario("shift_sparse", "sparse guide shifts: sd 0.5 in 10 % of pairs", group, SPARSE, True),
        Scenario("cell_state", "cell state, sd 0.3", group, {"cell_state_sd": 0.3}, True),
        Scenario("size_factor", "error of size factors, sd 0.15", group, {"size_factor_error_sd": 0.15}, True),
        Scenario("all_005", "all three, shifts of sd 0.05", group, OTHERS | {"guide_shift_sd": 0.05}, True),
        Scenario("all_015", "all three, shifts of sd 0.15", group, OTHERS | {"guide_shift_sd": 0.15}, True, True),
        Scenario("all_sparse", "all three, sparse shifts", group, OTHERS | SPARSE, True),
        Scenario("low_cis", "cis gene with 0.8 counts a cell", group, {"cis_mean": 0.8}, True),
        Scenario("confounded", "targeting guides in one of two lanes", group, {"group_confounding": 1.0}, True),
        Scenario("escapers_10", "guide without effect in 10 % of its cells", group, {"escaper_fraction": 0.1}),
        Scenario("escapers_30", "guide without effect in 30 % of its cells", group, {"escaper_fraction": 0.3}),
        Scenario(
            "no_response",
            "no gene responds, guide shifts of sd 0.15",
            group,
            {"guide_shift_sd": 0.15, "single_fraction": 0.0, "additive_fraction": 0.0},
        ),
    ]


def _designs() -> list[Scenario]:
    shift = {"guide_shift_sd": 0.1}
    few = [
        Scenario(
            f"targeting_{n}",
            f"{n} targeting guide{'s' if n > 1 else ''}, knock-down only",
            "few guides",
            shift | KNOCK_DOWN | {"n_guides": n, "n_cells": 3000},
        )
        for n in (1, 2, 3, 4)
    ]
    guides = [
        Scenario(f"guides_{n}", f"{n} targeting guides", "guides", shift | {"n_guides": n, "n_cells": 6000})
        for n in (6, 12, 40, 60)
    ]
    cells = [
        Scenario(f"cells_{n}", f"{n} cells per guide", "cells per guide", shift | {"n_cells": 18 * n})
        for n in CELLS_PER_GUIDE
    ]
    curves = [
        Scenario(
            "two_hills",
            "dosages of -4 to 2 log2, 30 % of genes with two Hills",
            "curves",
            shift | {"dosage_range": (-4.0, 2.0), "additive_fraction": 0.3, "single_fraction": 0.1},
        ),
        Scenario(
            "shapes",
            "Hill coefficients and EC50s",
            "curves",
            shift | {"single_fraction": 0.4, "additive_fraction": 0.0},
            strata=True,
        ),
        Scenario(
            "outside",
            "guides above -0.5 log2 taken away: EC50s outside",
            "curves",
            shift | {"n_guides": 20, "single_fraction": 0.4, "additive_fraction": 0.0},
            strata=True,
            below=-0.5,
        ),
        Scenario(
            "means",
            "mean counts of 2^-4 to 2^4, evenly",
            "curves",
            shift | {"mean_range": (-4.0, 4.0), "single_fraction": 0.3, "additive_fraction": 0.0},
            strata=True,
        ),
    ]
    rivals = [
        Scenario("cell_plain", 'no nuisance, `dosage="cell"`', "dosage", {}, dosage="cell"),
        Scenario(
            "cell_state_alone", 'cell state, sd 0.3, `dosage="cell"`', "dosage", {"cell_state_sd": 0.3}, dosage="cell"
        ),
        Scenario(
            "cell_all_015",
            'all three, shifts of sd 0.15, `dosage="cell"`',
            "dosage",
            OTHERS | {"guide_shift_sd": 0.15},
            dosage="cell",
        ),
        Scenario(
            "cell_targeting_2",
            '2 targeting guides, knock-down only, `dosage="cell"`',
            "dosage",
            shift | KNOCK_DOWN | {"n_guides": 2, "n_cells": 3000},
            dosage="cell",
        ),
    ]
    return [*guides, *few, *cells, *curves, *rivals]


GRID = {s.name: s for s in (*_nuisances(), *_designs())}
