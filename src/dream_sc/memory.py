"""How much memory the three steps take, before they run."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ._memory.budget import memory_budget
from ._memory.sizes import device_of, sizes_of, takes_sets
from ._memory.table import Estimate, table
from ._validate_types import checked

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from mudata import MuData

    from ._core.curves import FunctionType
    from ._core.engines import Autoguide, Engine
    from ._core.likelihoods import Distribution
    from ._memory.sizes import Storage

__all__ = ["Estimate", "estimate", "estimate_for"]


@checked
def estimate(
    n_features: int,
    n_cells: int,
    *,
    n_groups: int = 2,
    n_guides: int = 100,
    n_cis_guides: int | None = None,
    n_guide_sets: int = 0,
    sparsity: float = 0.85,
    distribution: Distribution = "negbinom",
    n_categories: int | None = None,
    n_ntc_cells: int | None = None,
    function_type: FunctionType = "auto",
    use_all_cells: bool = False,
    inference: Engine = "laplace",
    autoguide: Autoguide = "auto",
    nsamples: int = 1000,
    minibatch_size: int | None = None,
    device: str = "cpu",
    storage: Storage | None = None,
    memory_limit: int | str | None = None,
    n_threads: int | None = None,
    n_contexts: int = 0,
    ordered_contexts: bool = False,
) -> Estimate:
    """Estimate the memory of the three steps from sizes alone.

    Parameters
    ----------
    n_features, n_cells
        Size of the data; of a multinomial the number of features, not of their categories.
    n_groups
        Technical groups.
    n_guides, n_cis_guides
        Guides that take part, which are those of the cis gene and the NTC guides, and how many of them are of the cis
        gene; by default as many as their share of the cells.
    n_guide_sets
        Sets of guides of the cis gene that cells carry together, at most 200; 0 where no cell carries several.
    sparsity
        Share of zeros; of shares, in the denominators.
    distribution
        Of counts, shares or scores, as in `tl.fit_technical`.
    n_categories
        Of each feature of a multinomial, 4 by default.
    n_ntc_cells
        Control cells, 40 % of the cells by default.
    function_type, use_all_cells, inference, autoguide, nsamples, minibatch_size, device
        As in the fits. On "cuda" the columns of VRAM are those of a GPU, whether there is one here or not; "auto" is a
        GPU if torch finds one, for the Pyro engines.
    storage
        Where the counts are: "sparse" or "dense" in memory, "backed" or "backed_dense" in a file. By default
        sparse; scores are dense.
    memory_limit
        As in the fits; None stands for a machine with room for blocks of 256 MB.
    n_threads
        By default those granted to this process.
    n_contexts
        Contexts that `tl.compare` compares, with equally many cells each: 2 or more add a step "compare".
    ordered_contexts
        Whether they are compared along an order, by `tl.compare(order=)`.

    Returns
    -------
    A DataFrame with columns step, component, RAM and VRAM, in bytes, at the step's peak; the row "total" of a step is
    what a fresh process takes: interpreter, imports and data included.

    Raises
    ------
    ValueError
        For impossible sizes, a sparsity outside 0 to 1, and options that are not known.

    Examples
    --------
    >>> estimate = ds.memory.estimate(20_000, 50_000)
    >>> bool(estimate.totals()["RAM"].max() < 8e9)
    True
    >>> estimate.fits(ram="16GB")
    True
    """
    given = dict(locals())  # the arguments, and nothing else so far
    sizes = {name: given[name] for name in list(inspect.signature(estimate).parameters)[2:]}
    if memory_limit is not None:
        sizes["memory_limit"] = memory_budget(memory_limit)
    return table(sizes_of(n_features, n_cells, sizes | {"device": device_of(device, inference)}))


@checked
def estimate_for(
    data: AnnData | MuData | str | PathLike[str],
    *,
    mod: str | None = None,
    layer: str | None = None,
    batch_key: str | None = None,
    target_key: str = "target",
    control: str | list[str] = "NTC",
    guide_key: str = "guide",
    guides: str | None = None,
    cis_gene: str | None = None,
    cis_targets: str | list[str] | None = None,
    distribution: Distribution = "negbinom",
    denominator_layer: str | None = None,
    category_key: str | None = None,
    category_layers: list[str] | None = None,
    backed: bool = False,
    **options: Any,
) -> Estimate:
    """Estimate the memory of the three steps for data, whose sizes are read, not their values.

    Parameters
    ----------
    data
        AnnData or MuData, in memory or backed, or the path of an h5ad file, of which only shapes and labels are read.
    mod, layer, batch_key, target_key, control, guide_key, guides, cis_gene, cis_targets, distribution
        As in the fits. Without `cis_gene` every guide counts as one that takes part. Columns that are not there count
        as the defaults of `estimate`.
    denominator_layer, category_key, category_layers
        As in `tl.fit_technical`.
    backed
        Of a path: whether it would be opened with ``backed="r"``.
    **options
        Those of `estimate` that the data do not say: function_type, use_all_cells, inference, autoguide, nsamples,
        minibatch_size, device, memory_limit, n_threads, n_contexts, ordered_contexts, and any that shall differ from
        what the data say.

    Returns
    -------
    As `estimate`.

    Raises
    ------
    TypeError, ValueError, KeyError
        For what is no AnnData or MuData, a file that is no h5ad, and names that are not there.

    Examples
    --------
    >>> estimate = ds.memory.estimate_for(adata, cis_gene="GFI1B")
    >>> estimate.totals().index.tolist()
    ['fit_technical', 'fit_cis', 'fit_trans']
    """
    from ._memory.from_data import read_sizes

    known = list(inspect.signature(estimate).parameters)[2:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(f"estimate_for does not know {unknown}; it takes {sorted(known)}")
    asked = {
        "mod": mod,
        "layer": layer,
        "batch_key": batch_key,
        "target_key": target_key,
        "control": control,
        "guide_key": guide_key,
        "guides": guides,
        "cis_gene": cis_gene,
        "cis_targets": cis_targets,
        "distribution": distribution,
        "denominator_layer": denominator_layer,
        "category_key": category_key,
        "category_layers": category_layers,
        "backed": backed,
    }
    n_features, n_cells, found, counted = read_sizes(data, asked)
    for name, by in (("stored", {"sparsity", "storage"}), ("held", {"storage"})):
        if by & set(options):  # what was counted is of the data as they are
            counted.pop(name, None)
    if not takes_sets(options.get("inference", "laplace"), distribution):
        found.pop("n_guide_sets", None)
    if "n_guides" in options and "n_cis_guides" not in options:
        found.pop("n_cis_guides", None)
    return estimate_of(n_features, n_cells, found | options, counted)


def estimate_of(n_features: int, n_cells: int, options: dict[str, Any], counted: dict[str, Any]) -> Estimate:
    """The estimate for sizes, some of which were counted."""
    from dataclasses import replace

    guessed = estimate(n_features, n_cells, **options)
    return table(replace(guessed.sizes, **counted))
