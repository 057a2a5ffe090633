"""Files that the shell takes, by what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dream_sc.io._files import readable

H5MU, H5AD, H5, ZARR = ".h5mu", ".h5ad", ".h5", ".zarr"


def read(path: str | Path, *, backed: bool = False) -> Any:
    """An AnnData or a MuData; `backed` leaves the counts of an h5ad file on disk.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is of no known kind.
    """
    path = Path(path)
    with readable(path, "a file of its kind"):
        return _read(path, backed=backed)


def count_bytes(path: str | Path) -> int:
    """Bytes that `.X` of an h5ad file takes in memory; 0 of other files, and of what cannot be opened."""
    import h5py

    path = Path(path)
    if path.suffix != H5AD or not path.is_file():
        return 0
    try:
        with h5py.File(path) as file:
            x = file.get("X")
            arrays = x.values() if isinstance(x, h5py.Group) else () if x is None else (x,)
            return sum(int(a.nbytes) for a in arrays)
    except OSError:  # to read it says what is wrong with it
        return 0


def _read(path: Path, *, backed: bool) -> Any:
    """The same; what libraries say of damaged files does not name them."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there")
    if backed and path.suffix != H5AD:
        raise ValueError(f"backed=True is of an h5ad file, but here is {path.name!r}: leave it out")
    if path.suffix == H5MU:
        return _multimodal(path)
    if path.suffix == H5AD:
        import anndata

        return anndata.read_h5ad(path, backed="r" if backed else None)
    if path.is_dir() and ((path / ".zattrs").exists() or (path / "zarr.json").exists() or path.suffix == ZARR):
        import anndata

        return anndata.read_zarr(path)
    if path.is_dir() or path.suffix == H5:
        from dream_sc import io

        return io.read_cellranger(path)
    raise ValueError(
        f"{path.name!r} is of no known kind: give an h5ad, h5mu or zarr file, the h5 file of Cell Ranger or a folder "
        "of its output"
    )


def _multimodal(path: Path) -> Any:
    import mudata

    data = mudata.read_h5mu(path)
    from dream_sc._keys import GUIDE_ASSIGNMENT

    if any(GUIDE_ASSIGNMENT in a.layers for a in data.mod.values()) and "gene" in data.mod:
        from dream_sc import io

        return io.from_igvf(data)
    return data
