"""Who fits the targets: this process, several of this machine, or the workers of a cluster; what they are handed."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from filelock import FileLock

from dream_sc._checkpoint import acquired

from . import tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from anndata import AnnData

    from .all_targets import AllTargets
    from .store import Part, Store
    from .targets import Library, Target
    from .tasks import Steps

SHARED = ".shared"  # folder in a store
MEASURED, LOCK = "measured-", ".lock"  # what one process writes there for its workers, and for as long as it lives
CHECKED_EACH = 2.0  # seconds after which a worker looks whether its master still lives


class Fits(Protocol):
    """The fit of each target."""

    def here(self, target: Target) -> Callable[[], Part]:
        """As this process makes it."""

    def elsewhere(self, target: Target, folder: Path) -> Callable[[], Part]:
        """As another process makes it, which may read from a `folder`."""


@dataclass(frozen=True)
class Single:
    """A fit for each target by itself, on its cells and the controls."""

    adata: AnnData
    library: Library
    steps: Steps

    def here(self, target: Target) -> Callable[[], Part]:
        """With the cells of one target and the controls, and no more."""
        cells = tasks.cells_of(self.adata, self.library.cells(target.labels), self.steps)
        return partial(tasks.fit_target, cells, target, self.steps)

    def elsewhere(self, target: Target, folder: Path) -> Callable[[], Part]:
        """The same: a file is read by one process, and no worker holds all cells."""
        return self.here(target)


@dataclass
class Together:
    """Fits out of what is measured once for all targets, when the first is asked for."""

    measure: Callable[[], AllTargets]
    every: AllTargets | None = field(default=None, init=False)
    written: Path | None = field(default=None, init=False)
    lock: Any = field(default=None, init=False)  # held while `written` is needed

    def here(self, target: Target) -> Callable[[], Part]:
        """With what is in memory."""
        if self.every is None:
            self.every = self.measure()
        return partial(tasks.fit_together, self.every, target)

    def elsewhere(self, target: Target, folder: Path) -> Callable[[], Part]:
        """With a file, of which a worker reads what it needs: a task is its path and a name."""
        import joblib

        if self.written is None:
            every = self.measure() if self.every is None else self.every
            folder.mkdir(parents=True, exist_ok=True)
            name = folder / f"{MEASURED}{uuid.uuid4().hex}"
            self.lock = FileLock(name.with_suffix(LOCK))
            acquired(self.lock, 0.0)  # before there is a folder that others may take for left behind
            name.mkdir(mode=0o700)
            self.written = name / "measured.joblib"
            joblib.dump(every, self.written)
        return partial(from_file, str(self.written), target)


def from_file(path: str, target: Target) -> Part:
    """The fit of one target by a worker."""
    return tasks.fit_together(_opened(path), target)


@lru_cache(maxsize=1)
def _opened(path: str) -> AllTargets:
    import joblib

    every: AllTargets = joblib.load(path, mmap_mode="r")
    return every


@dataclass(frozen=True)
class Workers:
    """Processes of this machine, or a client of a cluster."""

    n_jobs: int = 1
    client: Any = None

    @property
    def size(self) -> int:
        """How many targets are fitted at a time."""
        return self.n_jobs if self.client is None else max(1, len(self.client.scheduler_info().get("workers", ())))

    def each(self, targets: Iterable[Target], fits: Fits, store: Store | None) -> Iterator[Part | None]:
        """Parts of targets, as they are made."""
        if self.client is None and self.n_jobs == 1:
            for target in targets:
                yield tasks.work(fits.here(target), target, store, None)
            return
        own = store is None
        folder = Path(tempfile.mkdtemp(prefix="dream_sc-")) if store is None else store.path / SHARED
        remove_left_behind(folder)
        try:
            calls = self._by_joblib if self.client is None else self._by_client
            yield from calls(targets, fits, store, folder)
        finally:
            _remove(fits)
            if own:
                shutil.rmtree(folder, ignore_errors=True)

    def _by_joblib(
        self, targets: Iterable[Target], fits: Fits, store: Store | None, folder: Path
    ) -> Iterator[Part | None]:
        import joblib
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        from dream_sc._core.parallel import n_threads

        threads = max(1, n_threads() // self.n_jobs)
        # cells are taken here, as workers ask for more
        with joblib.parallel_config(backend="loky", n_jobs=self.n_jobs, inner_max_num_threads=threads):
            parts = joblib.Parallel(return_as="generator", pre_dispatch=self.n_jobs, batch_size=1)(
                joblib.delayed(_work_for)(os.getpid(), fits.elsewhere(t, folder), t, store, threads) for t in targets
            )
            try:
                yield from parts
            except TerminatedWorkerError as error:
                raise tasks.WorkerLostError from error

    def _by_client(
        self, targets: Iterable[Target], fits: Fits, store: Store | None, folder: Path
    ) -> Iterator[Part | None]:
        from distributed import as_completed

        # a worker calls as many tasks at a time as it has threads
        futures = [
            self.client.submit(tasks.work, fits.elsewhere(t, folder), t, store, 1, retries=tasks.RETRIES, pure=False)
            for t in targets
        ]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            self.client.cancel(futures)


def _work_for(master: int, *task: Any) -> Part | None:
    """A task, by a process of this machine that ends where its master was killed."""
    _end_with(master)
    return tasks.work(*task)


@lru_cache(maxsize=1)
def _end_with(master: int) -> None:
    """From the first task on: a master that is killed tells its workers nothing, and they would wait for ever."""

    def watch() -> None:
        while os.getppid() == master:
            time.sleep(CHECKED_EACH)
        os._exit(1)

    if os.getppid() == master:
        threading.Thread(target=watch, name="dream_sc-master", daemon=True).start()


def _remove(fits: Fits) -> None:
    """Remove what was written for workers."""
    if isinstance(fits, Together) and fits.written is not None:
        shutil.rmtree(fits.written.parent, ignore_errors=True)
        fits.written = None
        fits.lock.release()
        Path(fits.lock.lock_file).unlink(missing_ok=True)


def remove_left_behind(folder: Path) -> None:
    """Remove what processes that were killed had written for their workers, whose locks are free by now."""
    for found in folder.glob(f"{MEASURED}*/"):
        lock = FileLock(found.with_suffix(LOCK))
        if acquired(lock, 0.0):
            shutil.rmtree(found, ignore_errors=True)
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)
