"""Engines, by name: where each has its technical and cis step; those of Pyro have a trans step, too."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable

Engine = Literal["laplace", "svi", "nuts"]
ENGINES: tuple[str, ...] = get_args(Engine)
# variational families of "svi"
Autoguide = Literal["auto", "AutoNormal", "AutoIAFNormal"]
GUIDES: tuple[str, ...] = get_args(Autoguide)
TransAutoguide = Literal["auto", "AutoNormal"]  # of the trans step
TRANS_GUIDES: tuple[str, ...] = get_args(TransAutoguide)
LAPLACE = {
    "technical": "technical.counts",
    "technical_shares": "technical.shares",
    "technical_normal": "technical.scores",
    "technical_studentt": "technical.scores",
    "cis": "dosage.guides",
}


@dataclass(frozen=True)
class Inference:
    """Which engine, and for those of Pyro how long and where."""

    engine: str = "laplace"
    nsamples: int = 1000
    niters: int | None = None
    device: str = "auto"
    seed: int = 0
    autoguide: str = "auto"  # of "svi", in the technical step of counts
    minibatch_size: int | None = None
    progress: Callable[[Any], Any] = lambda x: x  # wraps guides, blocks of features or steps

    @classmethod
    def of(cls, engine: str, seed: int, **options: Any) -> Inference:
        """Build it from arguments of a step, of which those that are None keep their defaults."""
        return cls(engine, seed=seed, **{name: value for name, value in options.items() if value is not None})


class Laplace:
    """The fast engine, a step of which loads on first use."""

    def __getattr__(self, step: str) -> Any:
        if step not in LAPLACE:
            raise AttributeError(f"the fast engine has no step {step!r}")
        return getattr(import_module(f"dream_sc._core.{LAPLACE[step]}"), step)


def engine(name: str) -> Any:
    """An engine's functions by name; those of Pyro bring torch, so each loads on first use."""
    if name not in ENGINES:
        raise ValueError(f"inference={name!r} is not known; use one of {list(ENGINES)}")
    if name == "laplace":
        return Laplace()
    return import_module(f"dream_sc._core.pyro.{name}")


def run(step: str, inference: Inference, *arguments: Any) -> Any:
    """Run the technical or the cis step; the fast engine is deterministic and takes no options."""
    function = getattr(engine(inference.engine), step)
    i, more = inference, {"progress": inference.progress} if step in ("cis", "technical") else dict[str, Any]()
    if i.engine == "laplace":
        return function(*arguments, **more)
    if i.engine == "svi" and step == "technical":
        more |= {"autoguide": i.autoguide, "minibatch_size": i.minibatch_size}
    return function(*arguments, nsamples=i.nsamples, niters=i.niters, device=i.device, rng=i.seed, **more)
