"""Markdown tables of the report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import summary
from real import clustered
from summary import COVERAGE_BAR, EC50_BAR, FDP_BAR, INTERVALS, SINGLE_BAR, TWO_BAR, Rate

SHOWN_STRATA = {
    "mean": ("means", "all_015"),
    "hill_n": ("shapes", "all_015"),
    "ec50": ("shapes", "outside", "all_015"),
}
STRATA = {"mean": "log2 mean count", "hill_n": "Hill coefficient", "ec50": "EC50"}
METHODS = {
    "nb_glm": "NB regression of cells",
    "sceptre": "sceptre, guides together",
    "sceptre_guides": "sceptre, by guide",
}
LEAST_SEEDS, MOST = 10, 10**6
KINDS = {"ntc_guides": "NTC guides pose, `tl.calibrate`", "permutation": "dosages permuted, `tl.calibrate`"}


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; empty text without rows."""
    lines = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    if not lines:
        return ""
    head = list(head)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines)) + "\n"


def number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def text(rate: Rate, digits: int = 3) -> str:
    """Value and error."""
    if not rate.known:
        return "–"
    return number(rate.value, digits) + (f" ± {rate.se:.{digits}f}" if rate.se > 0 else "")


def against(cell: str, held: bool | None, seeds: int = MOST) -> str:
    """The cell, and whether the bar was held; few seeds decide nothing."""
    return cell if held is None or seeds < LEAST_SEEDS or cell == "–" else f"{cell}, {'held' if held else '**missed**'}"


def bar_fdp(rate: Rate) -> str:
    """At most 0.05 with two Monte Carlo errors on top."""
    return against(text(rate), rate.value <= FDP_BAR + 2 * rate.se if np.isfinite(rate.se) else None, rate.n)


def bar_power(rate: Rate, bar: float, seeds: int) -> str:
    cell = f"{text(rate, 2)} of {rate.n}" if rate.known else "–"
    return against(cell, rate.value >= bar if rate.known else None, seeds)


def bar_coverage(rate: Rate, seeds: int) -> str:
    return against(text(rate), COVERAGE_BAR[0] <= rate.value <= COVERAGE_BAR[1] if rate.known else None, seeds)


def calls(root: Path, groups: Iterable[str]) -> str:
    """False calls and power, a row per scenario."""
    lines = []
    for scenario, rows in (x for group in groups for x in summary.scenario_rows(root, group)):
        single, two = (summary.power(rows, k) for k in ("single", "two"))
        oracle = [number(summary.power(rows, k, "oracle_").value, 2) for k in ("single", "two", "responders")]
        lines.append(
            [
                scenario.text,
                str(len(rows)),
                bar_fdp(summary.fdp(rows)),
                number(summary.worst(rows)),
                text(summary.null_rate(rows)),
                bar_power(single, SINGLE_BAR, len(rows)),
                bar_power(two, TWO_BAR, len(rows)),
                text(summary.power(rows, "responders"), 2),
                " / ".join(oracle) if set(oracle) != {"–"} else "–",
            ]
        )
    head = [
        "scenario",
        "seeds",
        "FDP",
        "worst seed",
        "nulls with p < 0.05",
        "power, one Hill",
        "power, two Hills",
        "all responders called",
        "true dosages: one / two / all",
    ]
    return markdown(head, lines)


def curves(root: Path, groups: Iterable[str]) -> str:
    """EC50s, intervals, choice of the curve, Pareto k; a row per scenario."""
    lines = []
    for scenario, rows in (x for group in groups for x in summary.scenario_rows(root, group)):
        ratio = summary.ec50_ratio(rows)
        lines.append(
            [
                scenario.text,
                text(summary.ec50_error(rows), 2),
                against(number(ratio, 2), ratio <= EC50_BAR if np.isfinite(ratio) else None, len(rows)),
                *(bar_coverage(summary.coverage(rows, name), len(rows)) for name in INTERVALS),
                text(summary.pooled(rows, "single_as_two", "single"), 2),
                text(summary.pooled(rows, "two_as_two", "two"), 2),
                text(summary.pooled(rows, "pareto_ok", "pareto_of")),
            ]
        )
    head = [
        "scenario",
        "EC50, median error, log2",
        "over true dosages",
        *(f"coverage, {name}" for name in INTERVALS.values()),
        "one Hill taken for two",
        "two Hills seen as two",
        "Pareto k < 0.7",
    ]
    return markdown(head, [line for line in lines if set(line[1:]) != {"–"}])


def strata(root: Path) -> str:
    """Movers by gene mean, steepness and place of the EC50."""
    lines = []
    for kind, names in SHOWN_STRATA.items():
        for name in names:
            for label, rows in summary.strata_rows(root, name, kind):
                lines.append(
                    [
                        STRATA[kind],
                        label.replace("-inf to", "below").replace(" to inf", " and above"),
                        summary.GRID[name].text,
                        text(summary.pooled(rows, "called", "movers"), 2),
                        str(int(rows["movers"].sum())),
                        text(summary.mean(rows["ec50_error"]), 2),
                        *(text(summary.coverage(rows, interval), 2) for interval in INTERVALS),
                        text(summary.null_rate(rows)) if kind == "mean" else "–",
                    ]
                )
    head = [
        "by",
        "bin",
        "scenario",
        "power, movers",
        "movers",
        "EC50, median error",
        *(f"coverage, {name}" for name in INTERVALS.values()),
        "nulls with p < 0.05",
    ]
    return markdown(head, lines)


def null_line(method: str, kind: str, rows: pd.DataFrame, head: list[str]) -> list[str]:
    """Rejections of some regroupings, a row each."""
    n = f"{len(rows)} x {rows['tested'].mean():.0f}"
    rates = [Rate(*clustered(rows, level), len(rows)) for level in ("p05", "p001")]
    return [*head, method, kind, n, text(rates[0]), text(rates[1], 4), text(summary.any_call(rows), 2)]


def nulls(root: Path, screen: str) -> str:
    """Rejections of fits and of other tests where nothing can respond."""
    table, refits, lines = summary.real_rows(root, screen, "nulls"), summary.real_rows(root, screen, "refits"), []
    for row in table.itertuples():
        rates = [text(Rate(row.p05, row.p05_se, row.n)), text(Rate(row.p001, row.p001_se, row.n), 4)]
        called = text(Rate(row.any_call, row.any_call_se, row.n), 2)
        lines.append([str(row.run), "dream_sc", KINDS[row.null], f"{row.n} x {row.genes}", *rates, called])
    for run, rows in refits.groupby("run", sort=False) if len(refits) else ():
        lines.append(null_line("dream_sc", "NTC guides pose, all steps anew", rows, [str(run)]))
    for kind, label in (("guides", "NTC guides pose"), ("cells", "cells dealt to guides anew")):
        rows = summary.peer_rows(root, f"{screen}_{kind}")
        for method, name in METHODS.items():
            part = rows[rows["peer"] == method] if len(rows) else rows
            lines += [null_line(name, label, part, ["any four guides"])] if len(part) else []
    head = ["dosages of", "method", "null", "regroupings x genes", "p < 0.05", "p < 0.001", "any call"]
    return markdown(head, lines)


def by_mean(root: Path, screen: str) -> str:
    """Rejections at p = 0.05 in thirds of expression, read off the quantiles."""
    table, lines = summary.real_rows(root, screen, "qq"), []
    for keys, rows in table.groupby(["run", "null", "stratum"], sort=False) if len(table) else ():
        low, high = rows[["mean_low", "mean_high"]].iloc[0]
        order = rows.sort_values("observed")
        share = 10 ** np.interp(np.log10(0.05), np.log10(order["observed"]), np.log10(order["expected"]))
        lines.append([keys[0], KINDS[keys[1]], f"{keys[2]}: {low:.2g} to {high:.3g}", number(share, 2)])
    return markdown(["dosages of", "null", "mean count", "share of p < 0.05"], lines)


def controls(root: Path, screen: str) -> str:
    """Calls per cis gene of the fits and of the other tests."""
    table, peers = summary.real_rows(root, screen, "controls"), summary.peer_rows(root, f"{screen}_targets")
    methods = [m for m in METHODS if len(peers) and (peers["peer"] == m).any()]
    lines = []
    for _, row in table.iterrows():
        if isinstance(row.get("refused"), str):
            continue
        other = [peers.loc[(peers["run"] == row["run"]) & (peers["peer"] == m), "calls"] for m in methods]
        counts = [f"{x.iloc[0]:.0f}" if len(x) else "–" for x in other]
        called = row["called"] if isinstance(row["called"], str) else "none"
        names = [str(row["run"]) + (" (to be quiet)" if row["quiet"] else ""), str(row["log2_dosages"])]
        lines.append([*names, f"{row['calls']:.0f}", *counts, called])
    others = [METHODS[m] for m in methods]
    head = ["cis gene", "guides, log2 dosage", "dream_sc", *others, "called by dream_sc (log2FC)"]
    return markdown(head, lines)


def refusals(root: Path, screen: str) -> str:
    """One sentence on the cis genes whose fit was refused."""
    table = summary.real_rows(root, screen, "controls")
    if "refused" not in table or not table["refused"].notna().any():
        return ""
    names = table.loc[table["refused"].notna(), "run"].astype(str)
    return f"Refused, because the cis gene has too few counts or guides: {', '.join(names)}.\n"


def positive(root: Path, screen: str) -> str:
    """Responses that are known."""
    table = summary.real_rows(root, screen, "controls")
    table = table[table["expected_q"].notna()] if "expected_q" in table else table.iloc[:0]
    lines = [
        [r.run, r.expected, f"{r.expected_log2fc:+.2f}", against(f"{r.expected_q:.1g}", r.expected_q < FDP_BAR)]
        for r in table.itertuples()
    ]
    return markdown(["cis gene", "responds", "log2FC at strongest knock-down", "q"], lines)


def peers(root: Path, names: Iterable[str]) -> str:
    """Simulated screens: fits and other tests on the same seeds."""
    lines = []
    for name in names:
        other, own = summary.peer_rows(root, f"simulated_{name}"), summary.store.read(root / f"simulated/{name}.csv")
        if not len(other):
            continue
        own = own[own["seed"].isin(other["seed"])] if len(own) else own
        parts = [("dream_sc", own)] + [(label, other[other["peer"] == m]) for m, label in METHODS.items()]
        for label, rows in parts:
            if len(rows):
                powers = [text(summary.power(rows, k), 2) for k in ("single", "two", "responders")]
                lines.append(
                    [
                        summary.GRID[name].text,
                        label,
                        str(len(rows)),
                        bar_fdp(summary.fdp(rows)),
                        text(summary.null_rate(rows)),
                        *powers,
                        number(rows["seconds"].median(), 0),
                    ]
                )
    head = [
        "scenario",
        "method",
        "seeds",
        "FDP",
        "nulls with p < 0.05",
        "power, one Hill",
        "power, two Hills",
        "all responders called",
        "seconds",
    ]
    return markdown(head, lines)


def times(root: Path, screens: Iterable[str]) -> str:
    """What a calibration costs beside one fit."""
    lines = []
    for screen in screens:
        rows = summary.real_rows(root, screen, "nulls")
        for r in rows[rows["fit_seconds"].notna()].itertuples() if "fit_seconds" in rows else ():
            ratio = r.seconds / r.fit_seconds
            lines.append(
                [
                    f"{screen}, {r.run}",
                    KINDS[r.null],
                    str(r.n),
                    number(r.fit_seconds, 1),
                    number(r.seconds, 1),
                    number(ratio, 1),
                    number(ratio / r.n, 3),
                ]
            )
    head = ["screen, cis gene", "null", "regroupings", "`fit_trans`, s", "`calibrate`, s", "ratio", "per regrouping"]
    return markdown(head, lines)
