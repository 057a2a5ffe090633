"""Colours (safe for colour-blind readers), axes and text that the plots share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

ORANGE, GRAY, GREEN = "#D55E00", "#8A8A8A", "#009E73"
# of categories, neighbours far apart for every reader; and of those without a colour
CATEGORIES = ("#0072B2", "#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#F0E442", "#D55E00")
REST = "#C8C8C8"
TITLE, LABEL, TICK, SMALL = 10, 9, 8, 7.5  # font sizes in points
LONGEST, LONG_TITLE = 32, 36  # characters of a name in a figure, and in a title
LEAST_TITLE, TICK_NAMES = 6, 0.8  # points of a title in a narrow panel; inches that names of ticks take
MANY = 1000  # points from which on they are drawn fainter, as pixels


def ink() -> str:
    """Colour of text of the style in use, in which fits are drawn: dark on light paper, light on dark."""
    import matplotlib as mpl

    return str(mpl.rcParams["text.color"])


def blue() -> str:
    """The blue of marks, a light one on dark paper."""
    from matplotlib.colors import to_rgb

    return "#56B4E9" if min(to_rgb(ink())) > 0.5 else "#0072B2"


def directions() -> dict[str, str]:
    """Colours of what a feature does where the cis gene is knocked down."""
    return {"down": blue(), "up": ORANGE, "mixed": GREEN}


def paper(ax: Any) -> Any:
    """Colour behind the marks, with which they are set apart from each other."""
    color = ax.get_facecolor()
    return color if color[3] > 0 else ax.figure.get_facecolor()


def axes(
    ax: Any,
    size: tuple[float, float] = (4.2, 3.2),
    *,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Any:
    """The axes given, or new ones of `figsize`, or `size` by default.

    Raises
    ------
    ValueError
        If both `ax` and `figsize` are given.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=size if figsize is None else figsize, layout="constrained")
    elif figsize is not None:
        raise ValueError("figsize= is of a new figure, and ax= is in one already: leave out one of them")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=TICK)
    ax.xaxis.label.set_size(LABEL)
    ax.yaxis.label.set_size(LABEL)
    titled(ax, title)
    return ax


def titled(ax: Any, title: str | None) -> None:
    """Set a title that the user gave; it may hold math text."""
    if title is not None:
        ax.set_title(title, fontsize=TITLE)


def name_panel(ax: Any, name: object, text: str, *, beside: float = 0.0) -> None:
    """Set the title "name: text" so that it stays within the panel's part of the figure.

    A title that is too wide gets a second line, then smaller letters; in a very narrow panel the text has as many lines
    as it takes, and the middle of the name is left out.

    Parameters
    ----------
    beside
        Inches of the panel that a legend at its right takes.
    """
    free = (_panel_inches(ax) - TICK_NAMES - beside) * 72
    shown = plain(name, LONG_TITLE)
    for size in range(TITLE, LEAST_TITLE - 1, -1):
        for title in (f"{shown}: {text}", f"{shown}:\n{text}"):
            ax.set_title(title, fontsize=size)
            if _points_wide(ax) <= free:
                return
    lines = [""]
    for word in text.split(" "):
        ax.set_title(f"{lines[-1]} {word}".strip(), fontsize=LEAST_TITLE)
        lines[-1:] = [ax.get_title()] if not lines[-1] or _points_wide(ax) <= free else [lines[-1], word]
    for longest in range(LONG_TITLE, 3, -1):
        ax.set_title(f"{plain(name, longest)}:", fontsize=LEAST_TITLE)
        if _points_wide(ax) <= free:
            break
    ax.set_title("\n".join([ax.get_title(), *lines]), fontsize=LEAST_TITLE)


def _points_wide(ax: Any) -> float:
    """Width of the title, in points."""
    return float(ax.title.get_window_extent().width) / ax.figure.dpi * 72


def _panel_inches(ax: Any) -> float:
    """Width of the part of the figure that belongs to a panel, with the names of its ticks."""
    figure, spec = ax.figure, ax.get_subplotspec()
    whole = figure.bbox.width / figure.dpi
    if spec is None:
        at = ax.get_position()
        return float(whole * (at.width + 2 * min(at.x0, 1 - at.x1)))
    grid = spec.get_gridspec()
    given, n = grid.get_subplot_params(figure), grid.ncols
    share = spec.get_position(figure).width / (given.right - given.left)
    return float(whole * min(share * (1 + given.wspace * (n - 1) / n), 1.0))


def legend_above(ax: Any, ncols: int) -> None:
    """A legend above the axes, where it covers nothing, and the title above that."""
    legend = ax.legend(
        frameon=False,
        fontsize=SMALL,
        loc="lower right",  # what is too wide goes over the names at the left
        bbox_to_anchor=(1.0, 1.0),
        ncols=ncols,
        handletextpad=0.2,
        columnspacing=1.0,
    )
    if ax.get_title():
        n_rows = -(-len(legend.get_texts()) // ncols)
        ax.set_title(ax.get_title(), fontsize=ax.title.get_fontsize(), pad=8 + 12 * n_rows)


def name_rows(ax: Any, names: Sequence[object]) -> None:
    """Write the names of rows 0, 1, ... beside them, smaller where rows are close together."""
    height = ax.get_window_extent().height / ax.figure.dpi * 72 / max(len(names), 1)
    size = min(SMALL, max(0.9 * height, 4.0))
    ax.set_yticks(range(len(names)), [plain(name) for name in names], fontsize=size)


def panels(
    n: int,
    size: tuple[float, float],
    *,
    ncols: int,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    ratios: Sequence[float] | None = None,
) -> list[Any]:
    """`n` new axes in rows of `ncols`, each of `size` unless the figure has a `figsize`, under a common title.

    Raises
    ------
    ValueError
        If `ncols` is below 1.
    """
    import matplotlib.pyplot as plt

    if ncols < 1:
        raise ValueError(f"ncols={ncols}: a row of panels holds 1 or more")
    n_cols = max(min(n, ncols), 1)
    n_rows = max(-(-n // n_cols), 1)
    size = (size[0] * n_cols, size[1] * n_rows) if figsize is None else figsize
    widths = ratios if ratios is not None and n_cols == len(ratios) else None
    figure, grid = plt.subplots(n_rows, n_cols, figsize=size, layout="constrained", squeeze=False, width_ratios=widths)
    every = list(grid.ravel())
    for ax in every[n:]:
        ax.set_visible(False)
    if title:
        figure.suptitle(title, fontsize=TITLE + 1)
    return [axes(ax) for ax in every[:n]]


def one_panel(ncols: int | None) -> None:
    """Refuse `ncols` where there is one panel.

    Raises
    ------
    ValueError
        If it is given.
    """
    if ncols is not None:
        raise ValueError(f"ncols={ncols} is of several panels, and there is one: leave it out")


def plain(name: object, longest: int | None = LONGEST) -> str:
    """A name as it stands: none of it is math text, and the middle of a long one is left out."""
    text = str(name)
    if longest is not None and len(text) > longest:
        head = (longest - 1) * 2 // 3
        text = f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"
    return text.replace("$", r"\$")


def dosage_label(gene: str, *, doses: bool = False) -> str:
    """Label of an axis of dosage; `gene` is "" where known dosages are of none."""
    of = f" of {plain(gene)}" if gene else ""
    return rf"$\log_2$ dose{of}" if doses else rf"$\log_2$ dosage{of} relative to NTC"


def at_zero(ax: Any, lowest: float) -> float:
    """Where dose 0 is drawn on a log axis: one log2 below the lowest dose, with a tick that says so."""
    ax.set_xticks([lowest - 1.0], ["0"], minor=True)
    return lowest - 1.0


def log_counts(ax: Any) -> None:
    """A logarithmic horizontal axis with plain numbers, also between the powers of ten where it has one or none."""
    from matplotlib.ticker import LogFormatter

    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.0, 0.5)))
    ax.tick_params(axis="x", which="minor", labelsize=TICK)


def number(value: float) -> str:
    """A number as text: 417, 0.34, or a power of ten below a thousandth."""
    if value >= 10:
        return f"{value:.0f}"
    if value >= 1e-3 or value == 0:
        return f"{value:.2g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return rf"${mantissa}\times10^{{{int(exponent)}}}$"
