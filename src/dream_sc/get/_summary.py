"""A fit in words: what was done, what was found, what to be careful about, and how to report it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from dream_sc._data import made_from
from dream_sc._keys import CALIBRATION, CHECKS, CONFIDENCE, CONFOUNDING, FLAGS, SIZE_FACTORS, TRANS

from ._curves import inert_guides
from ._names import TransFit, by_feature, trans_fit
from ._responders import CALLED, called
from ._symbols import cis_label

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

WIDTH = 100
SHOWN = 10  # names
FEW_FEATURES = 20
NOT_CHECKED = "not run: dream_sc.tl.{}(data) {}"
WARNING_FPR = 2.0  # times the nominal rate


def summary(
    data: AnnData | MuData, *, key: str = TRANS, mod: str | None = None, gene_symbols: str | None = None
) -> str:
    """Say in words what was done, what was found, what to be careful about, and what to write in a paper.

    Parameters
    ----------
    data
        AnnData or MuData on which `tl.fit_trans` has run.
    key
        `key_added` of the fit.
    mod
        Modality of a MuData.
    gene_symbols
        Column of `.var` with the names that features get, as in `get.trans`.

    Returns
    -------
    A text of five parts: done, found, careful, methods, citation. The results of `tl.calibrate` and
    `tl.check_confounding` are in it where these have run under their default names.

    Raises
    ------
    KeyError
        If the fit is not there.

    Examples
    --------
    >>> text = ds.get.summary(adata)
    >>> [line for line in text.splitlines() if line.isupper()]
    ['WHAT WAS DONE', 'WHAT WAS FOUND', 'WHAT TO BE CAREFUL ABOUT', 'METHODS PARAGRAPH', 'HOW TO CITE']
    """
    found = parts(data, trans_fit(data, key, mod, gene_symbols))
    texts = {
        "What was done": found.done,
        "What was found": found.found,
        "What to be careful about": [remark.text for remark in found.careful],
        "Methods paragraph": [found.methods],
        "How to cite": found.cite,
    }
    return "\n\n".join(f"{head.upper()}\n{_wrapped(lines)}" for head, lines in texts.items()) + "\n"


class Remark(NamedTuple):
    """Something about a fit, and whether it is good, to be looked at, makes the fit doubtful, or is not known."""

    state: Literal["good", "look", "doubtful", "unknown"]
    text: str


class Parts(NamedTuple):
    """The parts of a summary, before they are text."""

    done: list[str]
    found: list[str]
    careful: list[Remark]
    methods: str
    cite: list[str]


def parts(data: AnnData | MuData, fit: TransFit) -> Parts:
    """What the summary of a fit says."""
    s = _Steps(data, fit)
    return Parts(_done(s), _found(s), _careful(s), _methods(s), _cite(s))


def _wrapped(lines: list[str]) -> str:
    bullet = len(lines) > 1
    return "\n".join(
        textwrap.fill(
            line,
            WIDTH,
            initial_indent="- " if bullet else "",
            subsequent_indent="  " if bullet else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines
    )


class _Steps:
    """The steps behind a fit, as they were stored."""

    def __init__(self, data: Any, fit: TransFit) -> None:
        self.fit, self.adata, self.info = fit, fit.adata, fit.info
        self.params = self.info["params"]
        other = self.info.get("cis_mod")
        holder = self.adata if other is None or not hasattr(data, "mod") else data.mod.get(other, self.adata)
        self.technical = self.adata.uns.get(self.params["technical_key"], {"params": {}})
        self.cis = holder.uns.get(self.params["cis_key"], {"params": {}})
        gene = cis_label(data, self.adata, self.info, fit.gene_symbols)
        self.of_gene = f" of {gene}" if gene else ""  # known dosages may be of none
        self.guides: pd.DataFrame = self.info["guides"]
        self.table = by_feature(fit)
        self.called = called(fit)

    @property
    def control(self) -> Any:
        """``(G,)`` whether a guide is an NTC guide."""
        return self.guides["is_control"].to_numpy(bool)

    @property
    def n_cells(self) -> int:
        """Cells that take part in the trans step."""
        n = self.table["n_cells"].max()
        return int(n) if np.isfinite(n) else 0

    @property
    def targets(self) -> str:
        """What the guides of the fit target."""
        names = self.cis["params"].get("cis_targets", ())
        return ", ".join(map(str, names)) or "the target"

    @property
    def n_targeting(self) -> int:
        """Targeting guides that took part."""
        return len(self.guides) - int(self.control.sum()) - len(inert_guides(self.fit))

    @property
    def fitted(self) -> Any:
        """Rows of features that were fitted."""
        return self.table[self.table["lfdr"].notna().to_numpy()]

    @property
    def has_dosages(self) -> bool:
        """Whether the fit was one of dosages, not of acting guides alone."""
        return bool(np.isfinite(self.info["axis"]["low"]))

    @property
    def size_factors(self) -> str:
        """Where the size factors come from."""
        name = self.technical["params"].get("size_factor_key")
        if self.fit.likelihood.statistics != "counts" or name is None:
            return ""
        return f"size factors in .obs[{str(name)!r}]{_made_by(self.adata, str(name))}"


def _made_by(adata: AnnData, name: str) -> str:
    """By which call a column of size factors was made; "" where it is not known, or was changed since."""
    made = adata.uns.get(SIZE_FACTORS, {})
    entry = made.get(name) if isinstance(made, Mapping) else None
    if not isinstance(entry, Mapping) or "check" not in entry or name not in adata.obs:
        return ""
    s = adata.obs[name].to_numpy(float)
    if len(s) == int(entry["n_cells"]) and not np.isclose(s @ s, entry["check"], rtol=1e-4):
        return ""
    how = ", ".join(f"{k}={_value(v)}" for k, v in sorted(entry["how"].items()))
    cells = "" if len(s) == int(entry["n_cells"]) else f", over {int(entry['n_cells'])} cells"
    return f" by {entry['step']}({how}){cells}"


def _value(value: Any) -> str:
    """An argument in words: a text, or a list of names, which files give back as an array."""
    names = [value] if isinstance(value, str) else [str(v) for v in value]
    return f"{len(names)} names" if len(names) > 3 else ", ".join(map(repr, names))


def _done(s: _Steps) -> list[str]:
    technical, own = s.technical["params"], s.params
    n_control = int(s.control.sum())
    axis = s.info["axis"]
    groups = "no technical groups" if technical.get("batch_key") is None else f"groups: {technical['batch_key']}"
    covariates = "no covariates" if technical.get("covariates") is None else f"covariates: {technical['covariates']}"
    size = f"; {s.size_factors}" if s.size_factors else ""
    versions = ", ".join(f"{name} {v}" for name, v in sorted(s.info["versions"].items()))
    what = [
        f"{len(s.fitted)} of {len(s.table)} features fitted, over {s.n_cells} cells with {s.n_targeting} "
        f"guides{s.of_gene} and {n_control} NTC guides",
        f"dosages of the guides from {axis['low']:.2f} to {axis['high']:.2f} "
        + ("(log2 dose)" if "zero" in axis else "(log2, relative to NTC)")
        if s.has_dosages
        else "no dosages: guides act or do not",
        f"distribution {s.fit.distribution}; {groups}; {covariates}{size}{_nuisances(technical, '; ')}",
        f"steps: {' -> '.join(_steps(s))}",
        f"curves: {own['function_type']}; engine: {own['inference']}; dosage of each {own['dosage']}; seed "
        f"{s.info['seed']}"
        if s.has_dosages
        else f"curves: no response, or one level for all acting guides; engine: {own['inference']}; seed "
        f"{s.info['seed']}",
        f"versions: {versions}",
    ]
    return what


def _steps(s: _Steps) -> list[str]:
    stored = ((s.params["technical_key"], s.technical), (s.params["cis_key"], s.cis), (s.fit.key, s.info))
    return [f"{entry.get('step', 'a step')} ({key})" for key, entry in stored]


def _found(s: _Steps) -> list[str]:
    table = s.called
    acting = s.params.get("dosage") == "none"
    to_what = f"where guides of {s.targets} act" if acting else f"to the dosage{s.of_gene}"
    out = [f"{len(table)} of {len(s.fitted)} features respond {to_what} at q < {CALLED}"]
    if not len(table):
        return out
    out.append("on knock-down: " + _counted(table["on_knockdown"], ("down", "up", "mixed")))
    if not acting:
        out.append("shapes as dosage rises: " + _counted(table["class"]))
    if CONFIDENCE in table:
        out.append("confidence: " + _counted(table[CONFIDENCE], ("high", "moderate", "low")))
    inside = int((table["p_ec50_inside"] > 0.95).sum())
    if not acting:
        out.append(f"an EC50 within the observed dosages is determined (probability above 0.95) for {inside} of them")
    names = [str(name) for name in table.index[:SHOWN]]
    out.append("the surest: " + ", ".join(names))
    return out


def _counted(column: pd.Series, order: tuple[str, ...] = ()) -> str:
    counts = column.dropna().astype(str).value_counts()
    names = [name for name in order if name in counts] + [name for name in counts.index if name not in order]
    return ", ".join(f"{int(counts[name])} {name}" for name in names) or "none"


def _careful(s: _Steps) -> list[Remark]:
    n_control = int(s.control.sum())
    out = _flags(s.info)
    out += [_calibration(s)] if s.params.get("dosage") == "none" else [_confounding(s), _calibration(s)]
    more, inert = [], inert_guides(s.fit)
    if inert:
        more.append(f"guides that do nothing, left out of the fit: {', '.join(inert)}")
    if n_control < 6:
        more.append(f"only {n_control} NTC guides: how much guides differ by themselves is known roughly")
    if len(s.fitted) < FEW_FEATURES:
        more.append(f"only {len(s.fitted)} features: prior odds and guide effects are learned from few")
    counts = s.called["status"].astype(str).value_counts() if len(s.called) else {}
    for name, text in (
        ("few_guides", "have two targeting guides or fewer: no EC50"),
        ("low_accuracy", "have rough intervals (pareto_k above 0.7)"),
        ("not_converged", "have not converged"),
    ):
        if counts.get(name, 0):
            more.append(f"{int(counts[name])} calls {text}")
    if "note" in s.called:
        gaps = int(s.called["note"].astype(str).str.contains("gap of dosages").sum())
        if gaps:
            more.append(f"{gaps} calls move in a single gap of dosages: EC50 and steepness are not told apart in it")
    if CONFIDENCE in s.called and (s.called[CONFIDENCE] == "low").any():
        names = [str(name) for name in s.called.index[(s.called[CONFIDENCE] == "low").to_numpy()]]
        others = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        more.append(f"calls of low confidence: {', '.join(names[:SHOWN])}{others}")
    direct = s.table.get("direct_target")
    if direct is not None and direct.any():
        more.append(f"direct targets of the guides, without a q-value: {', '.join(map(str, s.table.index[direct]))}")
    return out + [Remark("look", text) for text in more]


def _flags(info: Mapping[str, Any]) -> list[Remark]:
    """What makes the fit doubtful as a whole, where the fit looked for it."""
    table = info.get(FLAGS)
    if table is None:
        return []
    raised = table[table["raised"].astype(bool)]
    return [Remark("doubtful", f"{f}: {advice}") for f, advice in zip(raised["flag"], raised["advice"], strict=True)]


def _confounding(s: _Steps) -> Remark:
    entry = s.adata.uns.get(CONFOUNDING)
    if entry is None or CHECKS not in entry or entry["params"].get("cis_key") != s.params["cis_key"]:
        how = NOT_CHECKED.format("check_confounding", "says what else changes with the dosage")
        return Remark("unknown", f"confounding: {how}")
    if made_from.older_steps(entry, s.adata):
        again = "call dream_sc.tl.check_confounding(data) again"
        return Remark("unknown", f"confounding: is of an earlier fit: {again}")
    checks = entry[CHECKS]
    flagged = checks[checks["flag"].astype(bool)]
    if not len(flagged):
        return Remark("good", f"confounding: none of {len(checks)} checks is flagged")
    names = ", ".join(dict.fromkeys(flagged["what"].astype(str)))
    text = f"{len(flagged)} of {len(checks)} checks are flagged ({names}); see dream_sc.get.confounding"
    return Remark("look", f"confounding: {text}")


def _calibration(s: _Steps) -> Remark:
    entry = s.adata.uns.get(CALIBRATION)
    if entry is None or "fpr" not in entry or entry["params"].get("key") != s.fit.key:
        how = NOT_CHECKED.format("calibrate", "says how often control guides give a hit")
        return Remark("unknown", f"calibration: {how}")
    if made_from.older_steps(entry, s.adata):
        return Remark("unknown", "calibration: is of an earlier fit: call dream_sc.tl.calibrate(data) again")
    rates = entry["fpr"]
    text = ", ".join(f"{row['fpr']:.2g} at p < {row['level']:g}" for _, row in rates.iterrows())
    high = bool((rates["fpr"] > WARNING_FPR * rates["level"]).any())
    advice = "; above nominal, see replace=True of dream_sc.tl.calibrate" if high else ""
    told = f"calibration: false-positive rates of control guides are {text}{advice}"
    return Remark("doubtful" if high else "good", told)


def _nuisances(technical: Any, before: str) -> str:
    """What the technical fit was told of units within guides and of ambient counts."""
    unit, share = technical.get("unit_key"), technical.get("ambient")
    of_unit = "" if unit is None else f"{before}replicates within guides by {unit}"
    of_share = "" if share is None else f"{before}expected ambient counts taken off"
    return of_unit + of_share


def _methods(s: _Steps) -> str:
    version = s.info["versions"].get("dream-sc", "unknown")
    technical = s.technical["params"]
    batch = "" if technical.get("batch_key") is None else f", with effects of {technical['batch_key']}"
    size = f" ({s.size_factors})" if s.size_factors else ""
    known = str(s.cis.get("step", "")).endswith("set_dosage")
    dosage = "was given" if known else "was estimated for each guide from its cells"
    dosage = dosage if s.has_dosages else "was left out of account: guides act or do not"
    n_control = int(s.control.sum())
    levels = "no response, one level for all acting guides"
    curves = {"auto": f"{levels}, one Hill curve or two" if s.has_dosages else levels.replace(",", " and")}.get(
        str(s.params["function_type"]), f"no response or {s.params['function_type']}"
    )
    to_what = f"the dosage{s.of_gene}" if s.has_dosages else f"guides of {s.targets}"
    told, n_inert = _nuisances(technical, ", "), len(inert_guides(s.fit))
    left_out = f" ({n_inert} more did nothing and {'was' if n_inert == 1 else 'were'} left out)" if n_inert else ""
    return (
        f"Responses to {to_what} were fitted with dream_sc {version} (seed {s.info['seed']}). Level and "
        f"{s.fit.likelihood.noise} of each feature were estimated in control cells{batch}{size}{told}, with a "
        f"{s.fit.distribution} likelihood. The dosage{s.of_gene} {dosage}, relative to {n_control} non-targeting "
        f"guides. For each of {len(s.fitted)} features, in {s.n_cells} cells with {s.n_targeting} "
        f"targeting guides{left_out}, marginal likelihoods of {curves} were compared, with random effects of guides; "
        f"features with a false discovery rate below {CALLED} were called ({len(s.called)}). Intervals are 95 % "
        "credible intervals, given that a feature responds."
    )


def _cite(s: _Steps) -> list[str]:
    return [
        "dream_sc developers. dream_sc: dosage response of every gene in single-cell CRISPR titrations. Version "
        f"{s.info['versions'].get('dream-sc', 'unknown')}. The repository's CITATION.cff has it for reference managers",
        "the idea of the three steps is that of bayesDREAM (Bayesian dosage response effects across modalities): cite "
        "its publication too",
    ]
