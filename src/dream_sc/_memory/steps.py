"""What each step holds at once, phase by phase; its peak is that of its largest phase.

`T` features (or sticks), `N` cells, `B` bins of control cells, `R` rows of the trans step (a guide in a group), `W` of
them with sums weighted by dosage, `C` groups, `J` bins of counts. A number of sums takes 8 bytes.
"""

from __future__ import annotations

from dream_sc._core.parallel import BLOCK

from .budget import beside_blocks
from .lattices import lattices
from .sizes import CSR, INDEX, VALUE, Sizes

Phase = dict[str, float]
STEPS = ("fit_technical", "fit_cis", "fit_trans")
COMPONENTS = (
    "imports",
    "counts",
    "size factors",
    "guide assignment",
    "denominators",
    "categories",
    "tables",
    "reading",
    "sufficient statistics",
    "parameters",
    "gradients and optimiser state",
    "variational guide",
    "posterior",
    "draws",
    "workspace",
)
F8 = 8
GUIDE_VALUES = 3500  # of the likelihood of a guide: at 121 means, by spread and share
PER_CELL = 12  # vectors of 8 bytes a cell that a step works with: codes, masks, size factors, dosages
# bytes per value that shares need beside themselves to be put in columns: from one block, the values as they were; from
# several, two copies of row, column and value, and masks
READ, READ_BLOCKS = 4, 40
COLUMNS = 12  # of a value in columns: float64 and int32
STICK = 600  # of the names and chains of a category
EDGES, SHARE_EDGES = 50, 24  # bins of counts that occur, of counts and of denominators
ROW_TABLE = 60 * F8 + 1024  # of a feature's row in the table, and its posterior record
ANCHORS = 2  # one at a time, and a copy of it for features that are looked at again
RESPOND = 0.02  # share of features that get all draws
HDF5 = 22_000_000  # code and buffers of the library that reads files, by comparison of fits from file and memory
MAPPED = 64_000_000  # of values and of indices of shares, each below 32 MB: glibc keeps those when they are freed
RETAINED = 15_000_000  # of the step before: its table, and small pieces that the allocator keeps


def control_bins(s: Sizes) -> int:
    """Bins of the control cells in the technical step of counts."""
    from dream_sc._core.sums.guide_sums import MIN_PER_BIN, N_BINS

    return s.n_groups * max(1, min(N_BINS, s.n_fitted_cells // s.n_groups // MIN_PER_BIN))


def technical(s: Sizes) -> list[Phase]:
    """Phases of the technical step, without what svi adds."""
    if s.likelihood.statistics == "shares":
        return _technical_shares(s)
    if s.likelihood.statistics == "scores":
        return _scores(s, F8 * s.n_features * s.n_groups * 5, 7 * s.n_fitted_cells)
    from dream_sc._core.sums.guide_sums import LARGEST_COUNT, row_bytes, tail_bytes

    t, bins = s.n_features, control_bins(s)
    sums, tails = row_bytes(bins, t), tail_bytes(t, LARGEST_COUNT)
    reading = {"sufficient statistics": sums + tails, "workspace": block(s, sums + tails)}
    # closed sums and tails beside copies of those of the features to fit, first with all bins of counts
    closing = {"sufficient statistics": sums + F8 * t * bins + tails + F8 * t * EDGES}
    found = {"posterior": F8 * t * (2 * s.n_groups + 5) * 2}
    return [reading | cells(s), closing | found | cells(s)]


def cis(s: Sizes) -> list[Phase]:
    """The cis step reads one feature, and for the offsets sums of all features in the guides of the cis gene."""
    from dream_sc._core.sums.guide_sums import row_bytes

    sums = row_bytes(s.n_cis_guides + 1, s.n_features)
    reading = {"sufficient statistics": sums, "workspace": block(s, sums) + F8 * s.n_cells}
    fitted = {"posterior": F8 * s.n_cells * 10, "workspace": F8 * (s.n_guides * 64 + s.n_cis_guides * GUIDE_VALUES)}
    return [phase | cells(s) | {"tables": RETAINED} for phase in (reading, fitted)]


def trans(s: Sizes) -> list[Phase]:
    """Phases of the trans step of the fast engine; svi adds little to them, block by block."""
    t, r, counts, grid = s.n_sticks, s.n_rows, s.likelihood.statistics == "counts", lattices(s.function_type)
    one = F8 * t * r  # an array of features x rows
    w = (s.n_cis_guides + s.n_guide_sets) * s.n_groups if counts else 0
    held = F8 * t * w
    if counts:
        from dream_sc._core.sums.guide_sums import row_bytes

        sums = row_bytes(r, t) + row_bytes(w, t) * (w > 0)
        by_guide = F8 * t * s.n_labels
        before: list[Phase] = [
            {"sufficient statistics": sums, "workspace": block(s, sums)},
            {"sufficient statistics": sums, "workspace": 3 * one + 3 * by_guide},  # offsets: expected counts
            {"sufficient statistics": sums, "workspace": 2 * one + 6 * by_guide},  # offsets: weighted medians
        ]
        arrays = 1
    else:
        before, arrays = _pairs_or_scores(s, one), 2
    many = s.n_guides - s.n_cis_guides >= max(grid.many_controls, grid.more_controls * s.n_cis_guides)
    many |= s.n_guide_sets > 0
    n_taus = grid.taus if many else grid.knots
    background = F8 * t * grid.knots * (1 + s.n_groups + s.n_groups**2) * many
    table, evidence = 2 * ROW_TABLE * t, t * (F8 * grid.curves * n_taus + 4 * grid.shapes)
    kept: Phase = {"sufficient statistics": held + 3 * arrays * one + background}
    if s.likelihood.statistics == "shares":
        kept["tables"] = min(MAPPED, sum(pairs(s)[1].values()))
    phases: list[Phase] = [
        *before,
        {"sufficient statistics": held + (3 * arrays + 1) * one},  # rows are put in order
        kept | {"posterior": 2 * evidence, "workspace": anchors(s) if s.n_guide_sets else looking(s)},
        kept | {"posterior": evidence + table, **drawing(s)},
    ]
    return [phase | cells(s) for phase in phases]


def anchors(s: Sizes) -> float:
    """Bytes of the prior of level, groups and guides of a block of features, at each sd of guide effects.

    Sets of guides share the effects of their guides, which are parameters of a feature then.
    """
    n = 1 + s.n_groups + s.n_cis_guides
    return F8 * s.n_threads * min(BLOCK, s.n_sticks) * lattices(s.function_type).taus * n**2 * ANCHORS


def looking(s: Sizes) -> float:
    """Bytes of the first pass over a block of features on every thread: ratios, their masses and cumulative sums."""
    return s.n_threads * min(BLOCK, s.n_sticks) * lattices(s.function_type).first_pass * 40


def drawing(s: Sizes) -> Phase:
    """Draws of curves at the dosages of the axis: of likely nulls by a look on all threads, or of responders."""
    grid = lattices(s.function_type)
    curve = grid.dosages * F8 * 4
    quick: Phase = {
        "draws": s.n_threads * min(BLOCK, s.n_sticks) * min(grid.quick_draws, s.nsamples) * curve,
        "workspace": looking(s),
    }
    full: Phase = {"draws": min(BLOCK * s.n_threads, RESPOND * s.n_sticks) * s.nsamples * curve, "workspace": 0.0}
    return max(quick, full, key=lambda phase: sum(phase.values()))


def block(s: Sizes, held: float) -> float:
    """Bytes of counts that are read or compressed at a time."""
    from dream_sc._data.counts import COPIES, LARGEST_BLOCK

    if s.storage == "sparse":
        return 0.0
    room: float = LARGEST_BLOCK * COPIES
    if s.memory_limit is not None:
        beside = beside_blocks(s.memory_limit, s.n_cells) if s.is_backed else 0
        room = max(s.memory_limit - held - beside, 0)
    size = min(LARGEST_BLOCK, room / COPIES)
    stored = 1 - s.sparsity
    if not s.is_dense:
        # the last block is there while the next one is read, and of small ones the allocator keeps what was freed
        return min((COPIES if size < MAPPED else 2) * size, s.n_stored * CSR)
    # a slab has room for its values twice and indices; two of them are there while the second is compressed
    slab = min(size / (2 * VALUE + INDEX), s.n_cells * s.n_columns)
    number = 1 if slab >= s.n_cells * s.n_columns else 2
    return slab * (number * CSR * stored + VALUE * number * s.is_backed)


def cells(s: Sizes) -> Phase:
    """Vectors over cells, and what reading a file takes by itself."""
    out: Phase = {"size factors": F8 * s.n_cells, "guide assignment": F8 * s.n_cells * (PER_CELL - 1)}
    return out | {"reading": HDF5} if s.is_backed else out


def pairs(s: Sizes) -> tuple[Phase, Phase]:
    """Shares in columns: while they are put in order, and afterwards."""
    from dream_sc._data.counts import COPIES, LARGEST_BLOCK

    n, two = s.n_stored, s.likelihood.denominator
    names = STICK * s.n_columns * (not two)
    after: Phase = {"counts": COLUMNS * n, "categories": names}
    if two:
        after["denominators"] = COLUMNS * n
    pieces = s.is_backed and n * CSR > min(LARGEST_BLOCK, (s.memory_limit or LARGEST_BLOCK * COPIES) // COPIES)
    during = dict(after) | {"workspace": (READ_BLOCKS if pieces else READ) * n + block(s, 0)}
    return during, after


def _technical_shares(s: Sizes) -> list[Phase]:
    during, after = pairs(s)
    one = F8 * s.n_sticks * (s.n_groups * 2 + s.n_groups * SHARE_EDGES * 2 + SHARE_EDGES)
    found = {"posterior": F8 * s.n_sticks * (3 * s.n_groups + 7) * 2}
    return [phase | cells(s) for phase in (during, after | {"sufficient statistics": 2 * one} | found)]


def _score_block(s: Sizes, by_em: float) -> float:
    """A block of scores and what is made of it: values, whether they are there, squares; or what EM holds."""
    from dream_sc._data import scores

    size = scores.BLOCK if s.memory_limit is None else scores.score_block(s.n_cells, s.memory_limit)
    arrays = 1.5 * s.n_cells + by_em if s.likelihood.robust else 5 * s.n_cells
    return F8 * min(size, s.n_features) * arrays


def _scores(s: Sizes, sums: float, by_em: float) -> list[Phase]:
    copied = COLUMNS * s.n_stored if s.storage == "sparse" else 0
    return [{"sufficient statistics": sums, "counts": copied, "workspace": _score_block(s, by_em)} | cells(s)]


def _pairs_or_scores(s: Sizes, one: float) -> list[Phase]:
    """Reading of the trans step of shares or scores; `one` is an array of rows."""
    if s.likelihood.statistics == "scores":
        n = 2 if s.likelihood.robust else 3
        return [*_scores(s, n * one, 5 * s.n_cells), {"sufficient statistics": (n + 4) * one}]
    during, after = pairs(s)
    return [during, after | {"sufficient statistics": 3 * one, "workspace": 3 * one}]
