"""Which options of the trans step go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dream_sc import _validate
from dream_sc._data import stored
from dream_sc._keys import NO_DOSAGE

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData

    from dream_sc._core.likelihoods import Likelihood
    from dream_sc._core.response.settings import Settings
    from dream_sc._core.types import Axis

MIN_DRAWS = 10


def check(
    function_type: str,
    dosage: str,
    inference: str,
    degree: int | None,
    nsamples: int,
    min_denominator: int | None,
    sampling: dict[str, Any],
    checkpoint: str | PathLike[str] | None,
) -> None:
    """Refuse options that are not known, or have no effect with the others."""
    from dream_sc._core.curves import FUNCTION_TYPES
    from dream_sc._core.curves.polynomial import CURVE, MAX_DEGREE
    from dream_sc._core.engines import ENGINES, TRANS_GUIDES

    _validate.one_of("function_type", function_type, FUNCTION_TYPES)
    _validate.one_of("dosage", dosage, ("guide", "cell", NO_DOSAGE))
    _validate.one_of("inference", inference, ENGINES)
    if sampling["autoguide"] is not None:
        _validate.one_of("autoguide", sampling["autoguide"], TRANS_GUIDES)
    _validate.whole("nsamples", nsamples, MIN_DRAWS)
    _validate.sampling(inference, None, sampling["niters"], sampling["device"])
    if inference != "svi":
        of_svi = {name: sampling[name] for name in ("autoguide", "minibatch_size")}
        _validate.without_effect(of_svi, f'with inference="{inference}", only with "svi"')
    if degree is not None:
        _validate.one_of("degree", degree, range(1, MAX_DEGREE + 1))
        if function_type != CURVE.name:
            why = f'with function_type="{function_type}", only with "{CURVE.name}"'
            _validate.without_effect({"degree": degree}, why)
    if min_denominator is not None:
        _validate.whole("min_denominator", min_denominator)
    if checkpoint is not None:
        from dream_sc._checkpoint import usable

        usable(checkpoint)


def compared(function_type: str, dosage: str) -> str:
    """The curves to compare: without dosages the switch alone."""
    from dream_sc._core.curves import SWITCH

    return SWITCH.name if dosage == NO_DOSAGE else function_type


def settings_of(
    function_type: str,
    dosage: str,
    degree: int | None,
    guide_effects: bool,
    nsamples: int,
    inference: str,
    sampling: dict[str, Any],
    seed: int,
    hyper: dict[str, Any] | None,
) -> Settings:
    """What the core is told."""
    from dream_sc._core.curves.polynomial import MAX_DEGREE
    from dream_sc._core.response.settings import Settings

    return Settings(
        function_type=compared(function_type, dosage),
        guide_effects=guide_effects,
        degree=MAX_DEGREE if degree is None else degree,
        nsamples=nsamples,
        niters=sampling["niters"],
        inference=inference,
        device=sampling["device"] or "auto",
        seed=seed,
        minibatch_size=sampling["minibatch_size"],
        learned=hyper,
    )


def likelihood_of(
    adata: AnnData, technical_key: str, asked: str | None, inference: str, min_denominator: int | None
) -> Likelihood:
    """That of the technical fit; another one is refused, and so is what it does not take."""
    from dream_sc._core.likelihoods import likelihood

    own = stored.likelihood_of(_validate.step(adata, technical_key, "fit_technical(data)"))
    if asked is not None and likelihood(asked).name != own.name:
        raise ValueError(
            f"distribution={asked!r}, but .uns[{technical_key!r}] is a technical fit with {own.name!r}: leave it out, "
            f"or call dream_sc.tl.fit_technical(data, distribution={asked!r}) first"
        )
    if min_denominator is not None and own.statistics != "shares":
        raise ValueError(f"min_denominator= is of shares, but the distribution is {own.name!r}: leave it out")
    _validate.offered(inference, own.name, own.trans_engines)
    return own


def same_distribution(hyper: dict[str, Any] | None, own: str) -> None:
    """Refuse numbers that were learned on another distribution, whose unit is another."""
    theirs = own if hyper is None else stored.likelihood_of(hyper).name
    if theirs != own:
        raise ValueError(f"hyper= is of a fit with {theirs!r}, but this one is with {own!r}: leave it out")


def check_categories(settings: Settings) -> None:
    """Refuse curves that an engine does not offer for features with several categories."""
    from dream_sc._core.curves import SWITCH, single_hill

    if settings.inference == "svi" and settings.function_type == SWITCH.name:
        raise ValueError(
            f'inference="svi" of features with categories needs dosages, but dosage="{NO_DOSAGE}" was given: use '
            'inference="laplace"'
        )
    if settings.inference == "svi" and settings.function_type not in ("auto", single_hill.CURVE.name):
        raise ValueError(
            f'inference="svi" of features with categories is of one Hill, not '
            f'function_type={settings.function_type!r}: leave it out, or use inference="laplace"'
        )


def check_axis(axis: Axis, function_type: str) -> None:
    """Refuse curves that do not reach to dose 0."""
    from dream_sc._core.curves import polynomial

    if axis.from_zero and function_type == polynomial.CURVE.name:
        raise ValueError(
            f"function_type={function_type!r} is in powers of the log dose, which do not reach to controls at dose 0: "
            "use 'auto' or a Hill, or set the dosage with scale='log2' relative to a dose of your choice"
        )
