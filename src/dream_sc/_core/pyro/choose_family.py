"""Which variational family: an autoregressive one (IAF) where the device holds it, else independent normals."""

from __future__ import annotations

IAF_BYTES = 18  # per pair of latent numbers, of the rule: three matrices of 4 bytes, half as much again for work
RESERVE = 10_000_000_000  # of the memory of a device, that the rule leaves to all else
# per pair of latent numbers, by count: weights, masks, products, gradients of both, and two moments, of three matrices
IAF_HELD = 7 * 3 * 4


def n_latent(n_features: int, n_groups: int) -> int:
    """Latent numbers of the technical step: level, overdispersion, and an effect of each group but the reference."""
    return (n_groups - 1 + 2) * n_features


def guide_of(asked: str, n: int, total: float, free: float = float("inf")) -> tuple[str, str]:
    """The family, and why it is not the autoregressive one where that was left to us.

    Parameters
    ----------
    asked
        One of `engines.GUIDES`.
    n
        Latent numbers.
    total, free
        Bytes that the device has, and those that are free.
    """
    if asked != "auto":
        return asked, ""
    gb = 1e9
    if IAF_BYTES * n**2 > total - RESERVE:
        return "AutoNormal", (
            f"an autoregressive guide of {n:,} latent numbers needs {IAF_BYTES * n**2 / gb:.3g} GB, more than the "
            f"{total / gb:.3g} GB of the device less 10 GB: AutoNormal is used"
        )
    if IAF_HELD * n**2 > free:
        return "AutoNormal", (
            f"an autoregressive guide of {n:,} latent numbers takes {IAF_HELD * n**2 / gb:.3g} GB with its gradients, "
            f"more than the {free / gb:.3g} GB that are free: AutoNormal is used"
        )
    return "AutoIAFNormal", ""
