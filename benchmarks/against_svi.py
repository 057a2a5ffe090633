"""The trans step against variational inference on single cells: seconds, and distance of both to the No-U-Turn sampler.

    python benchmarks/against_svi.py [--genes 60] [--cells 2500] [--cap-seconds 120] [--nuts-genes 4]

A simulated titration with guide shifts, the dosages of the guides as `tl.fit_cis` gives them, one Hill per gene. The
fast engine works on sums per guide and group. The other side is what the published method does: Pyro's SVI with
AutoNormal on genes x cells tensors (`cell_level`). It
starts at the means of the fast engine's posteriors, in double precision without validation, and runs until the ELBO is
flat: the means of two windows of steps that follow each other differ by less than the Monte Carlo error of that
difference. Both sides get one thread, and the seconds are the processor's. Those of 100,000 steps, the number in the
published method, are a step's times 100,000; the remaining steps are not run.
"""

from __future__ import annotations

import os

os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")})

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import pandas as pd
import pyro
import torch
from engines import COLUMNS, compare
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal, init_to_median, init_to_value
from simulated_fdp import movers

import dream_sc as ds
from dream_sc._core.curves import curve as get_curve
from dream_sc._core.engines import engine
from dream_sc._core.likelihoods import likelihood
from dream_sc._core.likelihoods.negbinom import torch_log_density
from dream_sc._core.priors import TransPriors
from dream_sc._core.pyro import tensors
from dream_sc._core.pyro.models import trans as models
from dream_sc._core.response import summary
from dream_sc._core.types import GuideStats, RowDosage
from dream_sc.tl._response_inputs import response_inputs

PUBLISHED_STEPS = 100_000
BAR = 1000.0
CURVE = "single_hill"
RATE = 0.01
FEWEST = 3  # genes in which NUTS converged, for a verdict


@dataclass(frozen=True)
class Cells:
    """The cells' counts and what the fast engine learned before it came to the curves, as the Pyro engines take it."""

    genes: pd.Index
    axis: Any
    rows: tuple[Any, Any]  # GuideStats and RowDosage with a row per cell
    keywords: dict[str, Any]

    def take(self, genes: pd.Index) -> Cells:
        """Some of the genes."""
        at = self.genes.get_indexer(genes)
        stats, dosage = self.rows
        stats = GuideStats(stats.counts[at], *list(vars(stats).values())[1:])
        one = {k: self.keywords[k][at] for k in ("overdispersion", "consts")}
        return Cells(genes, self.axis, (stats, dosage), self.keywords | one)

    def table(self, draws: Any) -> pd.DataFrame:
        """Medians and intervals of draws ``(T, S, P)``."""
        columns = summary.summarise(draws, get_curve(CURVE), self.keywords["consts"], self.axis, likelihood("negbinom"))
        return pd.DataFrame({k: v for k, v in columns.items() if k.startswith(COLUMNS)}, index=self.genes)


def simulate(n_genes: int, n_cells: int, seed: int) -> Any:
    adata = ds.datasets.titration(
        n_cells, n_genes, rng=seed, guide_shift_sd=0.1, single_fraction=0.4, additive_fraction=0.0
    )
    ds.tl.fit_technical(adata, batch_key="batch")
    ds.tl.fit_cis(adata, "GFI1B")
    # the fast engine would add this error of the dosages; the cell-level model has no place for it
    adata.uns["cis"]["diagnostics"]["ntc_level_sd"] = 0.0
    return adata


def seconds_of_fit(adata: Any, function_type: str, repeats: int) -> float:
    """Median processor seconds of the step after a run that compiles."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.process_time()
        ds.tl.fit_trans(adata, function_type=function_type, progress=False)
        seconds.append(time.process_time() - begin)
    return float(np.median(seconds[1:]))


def single_cells(adata: Any) -> Cells:
    hyper, technical = adata.uns["trans"]["hyper"], adata.uns["technical"]
    inputs = response_inputs(adata, adata, technical_key="technical", cis_key="cis", known=hyper)
    guides, measured = inputs.guides, inputs.prepared
    ok = measured.fitted
    used = adata.obs["guide"].isin(guides["guide"]).to_numpy()
    code = pd.Index(guides["guide"]).get_indexer(adata.obs["guide"][used])
    group = pd.Index(technical["groups"]).get_indexer(adata.obs["batch"][used])
    s = adata.obs["size_factor"].to_numpy()[used] * 2.0 ** guides["offset"].to_numpy()[code]
    counts = adata.X[used].toarray().T[ok].astype(float)
    row = np.unique(measured.stats.guide, return_index=True)[1][code]  # a row of each cell's guide
    d = measured.dosage
    escape = np.broadcast_to(d.escape, d.mean.shape)
    dosage = RowDosage(d.mean[row], d.spread[row], d.error, d.control, 0.0, escape[row])
    names = ("tau_log_mean", "tau_log_sd", "wide_weight", "wide_sd")
    return Cells(
        adata.var_names[ok],
        measured.axis,
        (GuideStats(counts, s, s**2, code, group, len(guides), len(technical["groups"])), dosage),
        {
            "overdispersion": measured.overdispersion[ok],
            "axis": measured.axis,
            "priors": TransPriors(),
            "hyper": {name: hyper[name] for name in names} | {"group_effect_sd": measured.group_effect_sd},
            "consts": np.zeros((len(counts), 2)),
        },
    )


def density_alone(data: Any, repeats: int = 20) -> float:
    """Seconds of the counts' log density and its gradient, with nothing around it: a step cannot take less."""
    log_mean = (data.log_w + data.level[:, None]).requires_grad_()
    variance = data.overdispersion[:, None] ** 2
    seconds = []
    for _ in range(repeats):
        begin = time.process_time()
        torch_log_density(data.counts, log_mean, None, variance).sum().backward()
        seconds.append(time.process_time() - begin)
    return float(np.median(seconds))


@dataclass(frozen=True)
class Run:
    """What SVI did."""

    steps: int
    seconds: float
    flat: bool
    change: float  # of the mean ELBO between the last two windows
    error: float  # Monte Carlo error of that change
    draws: Any  # (T, S, P)


def variational(data: Any, curve: Any, start: Any, *, window: int, cap: float, nsamples: int) -> Run:
    """SVI until the ELBO is flat or the time is over; its parameters are then averaged over the last window."""
    model = lambda: models.cell_level(data, curve)  # noqa: E731
    values = {name: torch.as_tensor(start[:, :, i].mean(1))[:, None] for i, name in enumerate(curve.params)}
    values["log_tau"] = torch.full_like(values["a"], data.tau_log_mean)
    guide = AutoNormal(model, init_loc_fn=init_to_value(values=values, fallback=init_to_median))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": RATE}), Trace_ELBO())
    elbo, means, change, error, flat = [-svi.step()], {}, np.inf, 0.0, False
    begin, cpu = time.perf_counter(), time.process_time()
    while not flat and time.perf_counter() - begin < cap and len(elbo) < PUBLISHED_STEPS:
        elbo.append(-svi.step())
        place = len(elbo) % window
        means = {} if place == 1 else means
        for name, value in guide.named_parameters():
            means[name] = means.get(name, 0.0) + value.detach()
        if place == 0 and len(elbo) >= 2 * window:
            before, last = np.array(elbo[-2 * window : -window]), np.array(elbo[-window:])
            change = last.mean() - before.mean()
            error = float(np.sqrt((before.var(ddof=1) + last.var(ddof=1)) / window))
            flat = abs(change) < error
    seconds, n = time.process_time() - cpu, (len(elbo) - 1) % window + 1
    with torch.no_grad():
        for name, value in guide.named_parameters():
            value.copy_(means[name] / n)
        found = [guide() for _ in range(nsamples)]
    draws = torch.stack([torch.cat([f[name] for name in curve.params], -1) for f in found], 1).numpy()
    return Run(len(elbo), seconds * len(elbo) / (len(elbo) - 1), flat, change, error, draws)


def reference(cells: Cells, start: Any, *, draws: int, warmup: int, cap: float) -> tuple[pd.DataFrame, Any, float]:
    """Cell-level NUTS, gene by gene until the time is over: its table, which converged, and seconds per gene.

    Columns ``*_error`` of the table are half the difference of the medians of the chain's two halves, about its error.
    """
    begin, tables, ok = time.perf_counter(), [], []
    for t, gene in enumerate(cells.genes):
        one = cells.take(cells.genes[[t]])
        out, info = engine("nuts").trans(
            *one.rows,
            **one.keywords,
            curve=CURVE,
            init=start[[t]],
            nsamples=draws,
            niters=warmup,
            device="cpu",
            rng=t,
            level="cell",
        )
        halves = [one.table(half)[list(COLUMNS)] for half in np.array_split(out, 2, axis=1)]
        tables.append(one.table(out).join((halves[1] - halves[0]).abs().div(2).add_suffix("_error")))
        ok.append(bool(info["converged"][0]))
        spent = time.perf_counter() - begin
        print(f"  NUTS, {gene}: {'converged' if ok[-1] else 'not converged'}, {spent:.0f} s so far", flush=True)
        if spent * (t + 2) / (t + 1) > cap:
            break
    return pd.concat(tables), np.array(ok), spent / len(ok)


def closeness(fast: pd.DataFrame, svi: pd.DataFrame, nuts: pd.DataFrame) -> None:
    """Distances of medians to NUTS in its posterior sds, gene by gene, and the summary of `engines.py`."""
    out = {}
    for name in COLUMNS:
        sd = (nuts[f"{name}_q975"] - nuts[f"{name}_q025"]) / 3.92
        for label, table in (("fast", fast), ("svi", svi)):
            out[name, label] = ((table.loc[nuts.index, name] - nuts[name]) / sd).abs()
        out[name, "nuts"] = nuts[f"{name}_error"] / sd
    table = pd.DataFrame(out)
    print(
        f"\nDistance of medians to NUTS, in its posterior sds (nuts: about its own error)\n{table.round(2).to_string()}"
    )
    closer = np.stack([table[name, "fast"] <= table[name, "svi"] for name in COLUMNS])
    print(f"fast at least as close in {closer.sum()} of {closer.size}")
    pair = table.T.groupby(level=1, sort=False).median().median(axis=1)
    held = "held" if pair["fast"] <= pair["svi"] else "MISSED"
    print(
        f"median over genes and quantities: fast {pair['fast']:.2f}, svi {pair['svi']:.2f}, nuts {pair['nuts']:.2f}; "
        f"at least as close: {held if len(nuts) >= FEWEST else 'too few genes to say'}"
    )
    for label, found in (("fast", fast), ("svi", svi)):
        print(f"\n{label} against NUTS\n{compare(found, nuts).to_string()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=60)
    parser.add_argument("--cells", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of the fast engine")
    parser.add_argument("--window", type=int, default=300, help="steps over which the ELBO is averaged")
    parser.add_argument("--cap-seconds", type=float, default=120.0, help="of SVI")
    parser.add_argument("--nuts-genes", type=int, default=4, help="genes that respond; 0 leaves the comparison out")
    parser.add_argument("--nuts-cap-seconds", type=float, default=280.0, help="no gene that would end after it")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--warmup", type=int, default=300)
    options = parser.parse_args()
    pd.set_option("display.width", 200)
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    adata = simulate(options.genes, options.cells, options.seed)
    auto = seconds_of_fit(adata, "auto", options.repeats)
    fast = seconds_of_fit(adata, CURVE, options.repeats)
    cells, curve, table = single_cells(adata), get_curve(CURVE), ds.get.trans(adata)
    n = len(cells.genes)
    posterior = ds.get.posterior(adata, list(cells.genes), nsamples=500)
    start = np.stack([posterior[p].to_numpy() for p in curve.params], -1)
    with tensors.isolated(options.seed, torch.device("cpu")):
        data = tensors.trans_data(*cells.rows, **cells.keywords, device=torch.device("cpu"))
        alone = density_alone(data)
        run = variational(data, curve, start, window=options.window, cap=options.cap_seconds, nsamples=1000)
        threads = torch.get_num_threads()
    step = run.seconds / run.steps
    print(
        f"{n} genes x {data.counts.shape[1]} cells; threads: fast engine {numba.get_num_threads()}, SVI {threads}; "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    print(
        f"SVI: {'ELBO flat' if run.flat else 'not converged at the cap'} after {run.steps:,} steps; windows of "
        f"{options.window} steps differ by {run.change:.2f}, Monte Carlo error {run.error:.2f}"
    )
    print(f"{1e3 * step:.1f} ms per step; the counts' density and its gradient alone take {1e3 * alone:.1f} ms")
    rows = {
        f"fit_trans, {CURVE}": fast,
        "fit_trans, auto": auto,
        f"SVI, {'until flat' if run.flat else 'until the cap'}, {run.steps:,} steps": run.seconds,
        f"SVI, {PUBLISHED_STEPS:,} steps, extrapolated": step * PUBLISHED_STEPS,
        f"density and gradient alone, {PUBLISHED_STEPS:,} times, extrapolated": alone * PUBLISHED_STEPS,
    }
    out = pd.DataFrame({"seconds": rows})
    out["seconds per gene"] = out["seconds"] / n
    out[f"/ {CURVE}"], out["/ auto"] = out["seconds"] / fast, out["seconds"] / auto
    print(out.to_string(float_format=lambda x: f"{x:,.4g}"))
    ratio = step * PUBLISHED_STEPS / fast
    held = "held" if ratio >= BAR else "MISSED"
    print(f"{PUBLISHED_STEPS:,} steps: {ratio:,.0f} times the fast engine, bar {BAR:,.0f}: {held}", flush=True)
    if options.nuts_genes:
        some = cells.genes.intersection(adata.var_names[movers(adata)], sort=False)[: options.nuts_genes]
        nuts, ok, each = reference(
            cells.take(some),
            start[cells.genes.get_indexer(some)],
            draws=options.draws,
            warmup=options.warmup,
            cap=options.nuts_cap_seconds,
        )
        print(f"NUTS: converged in {ok.sum()} of {len(ok)} genes that respond, {each:.0f} s per gene")
        if ok.any():
            closeness(table, cells.table(run.draws), nuts[ok])


if __name__ == "__main__":
    main()
