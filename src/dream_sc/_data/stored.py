"""Numbers and names that earlier steps stored, checked before they are used: a file may hold anything."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dream_sc._keys import GUIDE_ACTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from dream_sc._core.likelihoods import Likelihood

MOST_DRAWS = 1_000_000
SHOWN = 200  # characters


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(0 <= value <= MOST_DRAWS)


def texts(value: Any) -> bool:
    """Whether a value is a list of texts, in any form in which files give it back."""
    return (isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1) and all(map(_text, value))


def _some_numbers(value: Any) -> bool:
    if not isinstance(value, list | tuple | np.ndarray):
        return False
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        return False
    return array.ndim == 1 and array.dtype.kind in "iuf"


def _numbers(value: Any) -> bool:
    return _some_numbers(value) and len(value) > 0 and bool(np.isfinite(value).all())


def _within(values: Any, low: float, high: float) -> bool:
    array = np.asarray(values, float)
    return bool(((array >= low) & (array <= high)).all())


def _places(values: Any) -> bool:
    if not _some_numbers(values):
        return False
    array = np.asarray(values, float)
    return bool(((array == np.floor(array)) & (array >= -1) & (array < len(array))).all())


def _number(value: Any) -> bool:
    return (
        isinstance(value, int | float | np.integer | np.floating)
        and not isinstance(value, bool)
        and (bool(np.isfinite(value)))
    )


def _above_zero(value: Any) -> bool:
    return _number(value) and value > 0


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


Checks = dict[str, tuple[str, "Callable[[Any], bool]"]]
TEXT, WHOLE = ("a text", _text), (f"a whole number of up to {MOST_DRAWS}", _whole)
TRUTH = ("True or False", lambda v: isinstance(v, bool | np.bool_ | int | np.integer) and v in (0, 1))
NAME = ("a name or None", _or_none(_text))
PARAMS: Checks = {
    **dict.fromkeys(("technical_key", "cis_key", "distribution", "size_factor_key", "dosage", "function_type"), TEXT),
    **dict.fromkeys(
        ("layer", "batch_key", "unit_key", "category_key", "denominator_layer", "covariates", "guide_key"), NAME
    ),
    **dict.fromkeys(("degree", "nsamples"), WHOLE),
    **dict.fromkeys(("guide_effects", "guide_offsets", "use_all_cells"), TRUTH),
    "min_denominator": ("a whole number or None", _or_none(_whole)),
    "category_layers": ("a list of names or None", _or_none(texts)),
    "control": ("a label or a list of labels", lambda v: _text(v) or isinstance(v, list | tuple | np.ndarray)),
}
LEARNED: Checks = {
    "model_weights": ("a list of numbers of 0 or more", lambda v: _numbers(v) and bool((np.asarray(v) >= 0).all())),
    "tau_log_mean": ("a number", _number),
    "tau_log_sd": ("a number above 0", _above_zero),
    "wide_weight": ("a number of 0 to 1", lambda v: _number(v) and 0 <= v <= 1),
    "wide_sd": ("a number of 0 or more", lambda v: _number(v) and v >= 0),
    "null_strength": ("a list of ascending numbers", lambda v: _numbers(v) and bool((np.diff(v) >= 0).all())),
    "null_threshold": ("a number", _number),
    "null_rate": ("a number above 0", _above_zero),
    "curves": ("a list of names", texts),
}
OF_GUIDES: Checks = {
    "distribution": TEXT,
    "guides": ("a list of names", texts),
    "guide_offsets": ("a list of numbers", _some_numbers),
    "guide_wide_weight": ("a list of numbers of 0 to 1", lambda v: _some_numbers(v) and _within(v, 0.0, 1.0)),
    "guide_wide_sd": ("a list of numbers of 0 or more", lambda v: _some_numbers(v) and _within(v, 0.0, np.inf)),
    "guide_departs": ("a list of numbers", _some_numbers),
    GUIDE_ACTS: ("a list of numbers", _some_numbers),
    "guide_partner": ("a list of places of guides, or -1", _places),
    "guide_together": ("a list of numbers of 0 to 1", lambda v: _some_numbers(v) and _within(v, 0.0, 1.0)),
}


def likelihood_of(entry: Mapping[str, Any]) -> Likelihood:
    """The likelihood of a stored fit, or of what it learned; what names none is of counts."""
    from dream_sc._core.likelihoods import likelihood

    name = entry.get("params", entry).get("distribution")
    return likelihood(None if name is None else str(name))


def check_params(params: Any, where: str) -> None:
    """Refuse parameters of an earlier step that are of another type than it writes.

    Raises
    ------
    ValueError
        If there are any.
    """
    if not isinstance(params, Mapping):
        raise ValueError(f"{where} is {_shown(params)}, not a dict: call the step again that wrote it")
    _check(params, PARAMS, where)


def check_learned(hyper: Any, where: str) -> None:
    """Refuse what is not the learned numbers of a trans fit.

    Raises
    ------
    ValueError
        If a number is not there, or not what a fit would have written.
    """
    lacking = [name for name in LEARNED if not isinstance(hyper, Mapping) or name not in hyper]
    if lacking:
        raise ValueError(
            f"{where} is not what dream_sc.tl.fit_trans stores as .uns['trans']['hyper']: it is {_shown(hyper)}, "
            f"without {lacking}"
        )
    _check(hyper, LEARNED | OF_GUIDES, where)
    own = [name for name in OF_GUIDES if name.startswith("guide_") and name != "guide_offsets" and name in hyper]
    alike = [("guides", name, "guides") for name in ("guide_offsets", *own)]
    for one, other, what in (("model_weights", "curves", "curves"), *alike):
        if len(hyper.get(one, ())) != len(hyper.get(other, ())):
            raise ValueError(f"{where} has {one!r} and {other!r} of different numbers of {what}")


def _check(found: Mapping[str, Any], checks: Checks, where: str) -> None:
    for name, (text, fits) in checks.items():
        if name in found and not fits(found[name]):
            raise ValueError(
                f"{where}[{name!r}] is {_shown(found[name])}, not {text}: call the step again that wrote it"
            )


def _shown(value: Any) -> str:
    return reprlib.repr(value)[:SHOWN]
