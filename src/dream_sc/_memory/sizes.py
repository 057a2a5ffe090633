"""The sizes that an estimate of memory is made from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from dream_sc import _validate

if TYPE_CHECKING:
    from dream_sc._core.likelihoods import Likelihood

Storage = Literal["sparse", "dense", "backed", "backed_dense"]
NO_DEVICE = (None, "auto")
NTC_SHARE = 0.4  # of the cells, unless said otherwise
CATEGORIES = 4  # of a multinomial feature, unless said otherwise
VALUE, INDEX = 4, 4  # bytes of a count (float32) and of the index of a stored one (int32)
NAME = 130  # bytes of the name of a cell or a feature, as text in an index with its look-up table
CSR = VALUE + INDEX


@dataclass(frozen=True)
class Sizes:
    """Sizes of a data set and the choices of its fits; see `memory.estimate`."""

    n_features: int
    n_cells: int
    n_groups: int = 2
    n_guides: int = 100
    n_cis_guides: int = 60
    n_guide_sets: int = 0  # of guides of the cis gene, in cells with several of them
    sparsity: float = 0.85
    distribution: str = "negbinom"
    n_categories: int = 1
    n_ntc_cells: int = 1
    function_type: str = "auto"
    use_all_cells: bool = False
    inference: str = "laplace"
    autoguide: str = "auto"
    nsamples: int = 1000
    minibatch_size: int | None = None
    device: str = "cpu"
    storage: str = "sparse"
    n_threads: int = 1
    n_contexts: int = 0  # that are compared after the fits; 0: none are
    ordered_contexts: bool = False  # whether they are compared along an order
    memory_limit: int | None = None  # of reading
    stored: int | None = None  # values stored, where they were counted
    held: int | None = None  # bytes of the data in memory, where they were counted
    context_cells: int | None = None  # of the largest context, where they were counted; else all are alike

    @property
    def likelihood(self) -> Likelihood:
        """That of the distribution."""
        from dream_sc._core.likelihoods import likelihood

        return likelihood(self.distribution)

    @property
    def n_columns(self) -> int:
        """Columns of the matrix: categories of a multinomial, else features."""
        return self.n_features * (self.n_categories if self.likelihood.categories else 1)

    @property
    def n_sticks(self) -> int:
        """Rows that are fitted: categories but the last of a multinomial feature, else features."""
        return self.n_features * (self.n_categories - 1 if self.likelihood.categories else 1)

    @property
    def n_fitted_cells(self) -> int:
        """Cells of the technical step."""
        return self.n_cells if self.use_all_cells else self.n_ntc_cells

    @property
    def n_rows(self) -> int:
        """Rows of the trans step: a guide, or a set of guides, in a group."""
        return self.n_labels * self.n_groups

    @property
    def n_labels(self) -> int:
        """Guides and sets of guides of the trans step."""
        return self.n_guides + self.n_guide_sets

    @property
    def n_stored(self) -> int:
        """Stored values of one matrix."""
        return round(self.n_cells * self.n_columns * (1 - self.sparsity)) if self.stored is None else self.stored

    @property
    def is_dense(self) -> bool:
        """Whether every value is stored."""
        return self.storage in ("dense", "backed_dense")

    @property
    def is_backed(self) -> bool:
        """Whether counts stay in a file."""
        return self.storage in ("backed", "backed_dense")

    @property
    def matrix(self) -> int:
        """Bytes of one matrix of counts, wherever it lies."""
        if self.is_dense:
            return self.n_cells * self.n_columns * VALUE
        return self.n_stored * CSR + 4 * (self.n_cells + 1)

    def inputs(self) -> dict[str, int]:
        """Bytes of the data that a fit finds in memory, by component."""
        names = NAME * (self.n_cells + self.n_columns)
        if self.held is not None:
            return {"counts": self.held, "tables": names}
        counts = 0 if self.is_backed else self.matrix
        out = {"counts": counts, "tables": names}
        if self.likelihood.denominator:
            out["denominators"] = counts
        return out


def takes_sets(inference: str, distribution: str | None) -> bool:
    """Whether the trans step takes cells with several guides of the cis gene."""
    from dream_sc._core.likelihoods import likelihood

    return inference == "laplace" and not likelihood(distribution).categories


def choices() -> dict[str, tuple[str, ...]]:
    """What the options that are texts may be."""
    from dream_sc._core.curves import FUNCTION_TYPES
    from dream_sc._core.engines import ENGINES, GUIDES
    from dream_sc._core.likelihoods import DISTRIBUTIONS

    return {
        "distribution": DISTRIBUTIONS,
        "function_type": FUNCTION_TYPES,
        "inference": ENGINES,
        "autoguide": GUIDES,
        "storage": get_args(Storage),
    }


def check(sizes: Sizes) -> Sizes:
    """Refuse impossible sizes and options that are not known."""
    for name in ("n_features", "n_cells", "n_groups", "n_guides", "n_ntc_cells", "nsamples", "n_threads"):
        _validate.whole(name, getattr(sizes, name))
    _validate.whole("n_cis_guides", sizes.n_cis_guides, 0)
    _validate.whole("n_guide_sets", sizes.n_guide_sets, 0)
    _validate.whole("n_contexts", sizes.n_contexts, 0)
    if sizes.n_contexts == 1:
        raise ValueError("n_contexts=1 is not allowed: tl.compare needs two contexts at least, and 0 leaves it out")
    if sizes.ordered_contexts and sizes.n_contexts < 3:
        raise ValueError(
            f"ordered_contexts=True with n_contexts={sizes.n_contexts!r}: tl.compare(order=) needs three contexts at "
            "least"
        )
    for name, most in (
        ("n_ntc_cells", "n_cells"),
        ("n_cis_guides", "n_guides"),
        ("n_groups", "n_cells"),
        ("n_contexts", "n_cells"),
    ):
        if getattr(sizes, name) > getattr(sizes, most):
            raise ValueError(
                f"{name}={getattr(sizes, name)!r} is more than {most}={getattr(sizes, most)!r}: it is a part of them"
            )
    if sizes.n_guide_sets and not takes_sets(sizes.inference, sizes.distribution):
        raise ValueError(
            f"n_guide_sets={sizes.n_guide_sets!r} is not allowed: inference={sizes.inference!r} with "
            f"distribution={sizes.distribution!r} takes cells with one guide of the cis gene only; leave it out"
        )
    s = sizes.sparsity
    if isinstance(s, bool) or not isinstance(s, int | float | np.number) or not 0 <= s <= 1:
        raise ValueError(f"sparsity={s!r} is not allowed: it is the share of zeros, from 0 to 1")
    for name, allowed in choices().items():
        _validate.one_of(name, getattr(sizes, name), allowed)
    from dream_sc._core.device import check_name

    check_name(sizes.device)
    if sizes.minibatch_size is not None:
        _validate.whole("minibatch_size", sizes.minibatch_size)
    if sizes.likelihood.categories:
        _validate.whole("n_categories", sizes.n_categories, 2)
    return sizes


def device_of(name: str | None, inference: str) -> str:
    """The device that a name stands for: where it names none, a GPU for the Pyro engines if torch finds one."""
    if name not in NO_DEVICE:
        return str(name)
    if inference == "laplace":
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def sizes_of(n_features: int, n_cells: int, options: dict[str, Any]) -> Sizes:
    """Sizes from the arguments of `memory.estimate`; what is None follows from the others."""
    from dream_sc._core.likelihoods import likelihood, named

    given = {k: v for k, v in options.items() if v is not None}
    _validate.whole("n_features", n_features)
    _validate.whole("n_cells", n_cells)
    ntc = given.get("n_ntc_cells", max(1, round(NTC_SHARE * n_cells)))
    guides = given.get("n_guides", 100)
    share = 1 - ntc / n_cells if isinstance(ntc, int | np.integer) else 1.0
    more = {"n_ntc_cells": ntc}
    if "n_cis_guides" not in given and isinstance(guides, int | np.integer):
        more["n_cis_guides"] = round(guides * max(share, 0.0))
    like = likelihood(given.get("distribution"))
    if like.categories:
        more["n_categories"] = given.get("n_categories", CATEGORIES)
    elif given.get("n_categories", 1) != 1:
        those = " or ".join(f'distribution="{name}"' for name in named(categories=True))
        raise ValueError(f"n_categories={given['n_categories']!r} is for {those}, not {like.name!r}: leave it out")
    if like.statistics == "scores" and "storage" not in given:
        more["storage"] = "dense"  # scores have no zeros to leave out
    if "n_threads" not in given:
        from dream_sc._core.parallel import n_threads

        more["n_threads"] = n_threads()
    return check(replace(Sizes(n_features, n_cells), **(given | more)))
