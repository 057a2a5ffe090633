"""Progress bars: shown on a terminal and in a notebook, silent in a log file unless asked for.

A bar says what it counts and how much of it there is. On a terminal it is a line that goes away at its end. In a
notebook it is a widget, or a line of text where ipywidgets is missing. At its end nothing is left of it, so that a
saved notebook holds no bar that stands still. In a log file it is a line each half minute and one at the end.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Sized
from typing import TYPE_CHECKING, Any, Literal

from ._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

Place = Literal["terminal", "notebook", "console", "log"]

LOG_FILE_INTERVAL = 30.0  # seconds between two updates where each of them is a new line
INTERVAL = 0.2  # seconds between two updates elsewhere
SMOOTHING = 0.1  # of the rate: blocks come in bursts, one from each thread
LARGE = 1_000_000  # from which numbers are written as 1.00M
WIDTH, HEIGHT = 80, 20  # of a place that does not tell its own
COUNT = "{desc}: {n_fmt} of {total_fmt} {unit} "
COUNT_ONLY = "{desc}: {n_fmt} {unit} "  # of how many is not known
REMAINING = " {elapsed}, {remaining} left"


def shown(progress: bool | None) -> bool:
    """Whether a bar is shown: as told, else by `settings.progress`, else on a terminal and in a notebook.

    The environment variable TQDM_DISABLE hides what is not asked for, as it does in other packages.
    """
    if progress is None:
        progress = settings.progress
    if progress is not None:
        return progress
    return os.environ.get("TQDM_DISABLE", "0") in ("", "0") and place() != "log"


def place() -> Place:
    """Where a bar would be shown.

    A notebook is told as `tqdm.autonotebook` tells it, which does so once, when it is imported. The kernel of a Qt
    console or of Spyder is a "console", which shows text but does not replace what it has shown.
    """
    kernel = sys.modules.get("ipykernel.zmqshell")
    shell = sys.modules["IPython"].get_ipython() if kernel is not None and "IPython" in sys.modules else None
    # a script that imports ipykernel does not run in it
    if kernel is not None and isinstance(shell, kernel.ZMQInteractiveShell):
        if any(name == "QT_API" or name.startswith("SPYDER") for name in os.environ):
            return "console"
        name = type(shell).__name__.lower()
        return "console" if "qt" in name or "spyder" in name else "notebook"
    stream = sys.stderr
    return "terminal" if stream is not None and stream.isatty() else "log"


def bar(
    progress: bool | None,
    label: str | Sequence[str],
    unit: str = "steps",
    *,
    size: Callable[[Any], int] | None = None,
    total: int | None = None,
) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """Return a wrapper of iterables that shows a bar, or does nothing.

    Parameters
    ----------
    progress
        True: shown, False: silent, None: see `shown`.
    label
        What is being done; of a wrapper that is used for several iterables, a label for each in their order, of which
        the last one stays.
    unit
        What is counted, in the plural.
    size
        How many units an item is, such as `features_of`; 1 by default.
    total
        Number of units; by default that of the iterable, if it has a length.
    """
    if not shown(progress):
        return lambda items: items
    labels = [label] if isinstance(label, str) else list(label)

    def wrap(items: Iterable[Any]) -> Iterator[Any]:
        name = labels.pop(0) if len(labels) > 1 else labels[0]
        n = total
        if n is None and isinstance(items, Sized):
            n = len(items) if size is None else sum(map(size, items))
        with stage(True, name, n, unit) as running:
            for item in items:
                yield item
                # the next is asked for: this one is done
                running.advance(1 if size is None else size(item))
            running.complete()

    return wrap


def features_of(item: Any) -> int:
    """Number of features of a block: a slice, an array of indices, or a tuple that ends with one of these."""
    if isinstance(item, tuple):
        return features_of(item[-1])
    return item.stop - item.start if isinstance(item, slice) else len(item)


def values_of(block: Any) -> int:
    """Number of values of a block of counts, cells times features."""
    return features_of(block.cells) * features_of(block.features)


def stage(
    progress: bool | None, label: str, total: int | None = None, unit: str = "steps", *, estimate: bool = True
) -> Stage:
    """Start a stage of the work, which is told how far it has come.

    Any thread may tell it. Use it in a ``with`` block, or call `close`::

        with stage(progress, "compiling", 17, "kernels", estimate=False) as running:
            for kernel in kernels:
                kernel.compile()
                running.advance()

    Parameters
    ----------
    progress
        True: shown, False: silent, None: see `shown`.
    label
        What is being done.
    total
        Number of units, if it is known.
    unit
        What is counted, in the plural.
    estimate
        Also say how long the rest may take. It follows from the speed so far: leave it out where units differ much.
    """
    return Stage(_open(label, total, unit, estimate) if shown(progress) else None)


class Stage:
    """A stage of the work and how far it has come; without a `bar` it says nothing."""

    def __init__(self, bar: Any = None) -> None:
        self._bar, self._lock = bar, threading.Lock()

    def advance(self, n: int = 1) -> None:
        """Count `n` more units; after `close`, nothing."""
        with self._lock:
            if self._bar is not None:
                self._bar.update(n)

    def complete(self) -> None:
        """Count what is missing: what did not have to be done is done as well."""
        with self._lock:
            if self._bar is not None and self._bar.total is not None:
                self._bar.update(max(self._bar.total - self._bar.n, 0))

    def close(self) -> None:
        """End the stage; again: nothing."""
        with self._lock:
            running, self._bar = self._bar, None
            if running is not None:
                running.close()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# ---- the places ------------------------------------------------------------------------------------------------------


def _open(label: str, total: int | None, unit: str, estimate: bool) -> Any:
    """A bar of tqdm for the place that this is."""
    from tqdm.std import tqdm

    where = place()
    count = COUNT_ONLY if total is None else COUNT + "|{bar}|"
    look: dict[str, Any] = {
        "desc": label,
        "total": total,
        "unit": unit,
        "leave": False,
        "smoothing": SMOOTHING,
        "mininterval": INTERVAL,
        "miniters": 1,  # looks at the clock at each update: there are few, and they are long
        "unit_scale": total is not None and total >= LARGE,
        "bar_format": count + (" {elapsed}" if total is None or not estimate else REMAINING),
    }
    if where == "notebook":
        return _widget(look) or tqdm(file=_Shown(), position=0, ncols=WIDTH, **look)
    if where == "log":
        look |= {"mininterval": LOG_FILE_INTERVAL, "delay": LOG_FILE_INTERVAL}
        look["bar_format"] = look["bar_format"].replace("|{bar}|", "({percentage:.0f} %)")
        return _logged(look)
    return tqdm(file=sys.stderr, **look, **_width())


def _width() -> dict[str, Any]:
    """How wide the line is: as the terminal is now; one that does not tell, as some containers', would show nothing."""
    try:
        told = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        told = 0
    return {"dynamic_ncols": True} if told else {"ncols": WIDTH, "nrows": HEIGHT}


def _widget(look: dict[str, Any]) -> Any:
    """The bar of tqdm for notebooks, None without ipywidgets; `tqdm.auto` would warn of that."""
    from tqdm import notebook

    if notebook.IProgress is None:
        return None

    class Widget(notebook.tqdm):
        """A widget whose place is given to text at its end: of a closed one, a saved notebook keeps the first look."""

        def close(self) -> None:
            if self.disable:
                return
            last = str(self) if self.total and self.n < self.total else ""
            super().close()
            handle.update(_bundle(last), raw=True)

    running = Widget(display=False, **look)
    handle = _display(running.container)
    return running


def _logged(look: dict[str, Any]) -> Any:
    """Lines in a log file: after half a minute, then each half minute, and one at the end."""
    from tqdm.std import tqdm

    class Logged(tqdm):
        """Says at its end how far it came."""

        def close(self) -> None:
            if not self.disable:
                last = str(self)
                super().close()
                self.fp.write(last)

    return Logged(file=_Lines(), position=0, ncols=WIDTH, **look)


def _display(what: Any, **options: Any) -> Any:
    """Show something in a notebook, and return the handle that replaces it."""
    from IPython.display import display

    return display(what, display_id=True, **options)


def _bundle(text: str) -> dict[str, str]:
    """A line as a notebook takes it; without text there is no room left for it."""
    return {"text/plain": text} if text else {"text/plain": "", "text/html": ""}


class _Written(io.TextIOBase):
    """A file that tqdm draws its line into."""

    encoding = "utf-8"  # lets the bar have its blocks

    def write(self, text: str) -> int:
        self.put(text.strip())  # carriage returns, and blanks over what was there
        return len(text)

    def put(self, line: str) -> None:
        raise NotImplementedError


class _Shown(_Written):
    """A line of text in a notebook, replaced in its place."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._line = ""

    def put(self, line: str) -> None:
        if line == self._line:
            return
        self._line = line
        if self._handle is None:
            self._handle = _display(_bundle(line), raw=True)
        else:
            self._handle.update(_bundle(line), raw=True)


class _Lines(_Written):
    """Lines of a log file."""

    def put(self, line: str) -> None:
        if line:
            print(line, file=sys.stderr, flush=True)  # noqa: T201
