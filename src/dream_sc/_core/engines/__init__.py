"""Engines: one module each; the list below is the registry. Each offers `technical`, `cis` and `trans`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINES = ("laplace", "svi", "nuts")


@dataclass(frozen=True)
class Inference:
    """Which engine, and for the sampling ones how long and where."""

    engine: str = "laplace"
    nsamples: int = 1000
    niters: int | None = None
    device: str = "auto"
    seed: int = 0
    autoguide: str = "AutoNormal"  # of "svi", in the technical step of counts
    minibatch_size: int | None = None
    progress: Callable[[Any], Any] = lambda x: x  # wraps guides, blocks of features or steps


def engine(name: str) -> Any:
    """Load an engine by name; the Pyro ones bring torch, so each loads on first use."""
    if name not in ENGINES:
        raise ValueError(f"inference={name!r} is not known; use one of {list(ENGINES)}")
    return import_module(f".{name}", __name__)


def run(step: str, inference: Inference, *arguments: Any) -> Any:
    """Run the technical or the cis step; the fast engine is deterministic and takes no options."""
    function = getattr(engine(inference.engine), step)
    i, more = inference, {"progress": inference.progress} if step in ("cis", "technical") else dict[str, Any]()
    if i.engine == "laplace":
        return function(*arguments, **more)
    if i.engine == "svi" and step == "technical":
        more |= {"autoguide": i.autoguide, "minibatch_size": i.minibatch_size}
    return function(*arguments, nsamples=i.nsamples, niters=i.niters, device=i.device, rng=i.seed, **more)
