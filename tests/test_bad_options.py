"""Bad options of the shell: a message that names the flag and says what is allowed, and no results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import pytest

import dream_sc as ds
from dream_sc._cli import options
from dream_sc._cli.main import main

UNKNOWN = "no-such-thing"
# of `dream-sc fit`: options whose text may be anything, or is made where it is missing
FREE = {"size_factor_key", "data", "cis", "output"}
NAMED = [o for o in (*options.OWN, *options.OPTIONS) if o.name not in FREE]
TEXTS = [o.name for o in NAMED if o.kind in (options.TEXT, options.TEXTS)]
NUMBERS = [o.name for o in NAMED if o.kind in (options.WHOLE, options.NUMBER)]


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad") / "screen.h5ad"
    ds.datasets.titration(300, 10, rng=0, n_guides=4).write_h5ad(path)
    (path.parent / "text.h5ad").write_text("no HDF5")
    (path.parent / "half.h5ad").write_bytes(path.read_bytes()[:2000])
    (path.parent / "half.h5").write_bytes(path.read_bytes()[:2000])
    (path.parent / "empty").mkdir()
    (path.parent / "file").write_text("a file where a folder is expected")
    (path.parent / "no.toml").write_text("cis = ")
    (path.parent / "unknown.toml").write_text('cys = "GFI1B"')
    (path.parent / "kind.toml").write_text("cis = 3")
    return path


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


FIT = ["fit", "screen.h5ad", "--cis", "GFI1B", "-o", "out", "--quiet"]
SCREEN = ["screen", "screen.h5ad", "-o", "out", "--quiet"]
COMMANDS: list[tuple[list[str], str]] = [
    *(([*FIT, _flag(name), UNKNOWN], _flag(name)) for name in TEXTS),
    *(([*FIT, _flag(name), "x"], _flag(name)) for name in NUMBERS),
    *(([*FIT, _flag(name), "-7"], _flag(name)) for name in NUMBERS),
    ([*FIT, "--min-count", "nan"], "--min-count"),
    ([*FIT, "--min-cells-per-guide", "0"], "--min-cells-per-guide"),
    ([*FIT, "--min-cells-per-guide", "1000"], "min_cells_per_guide"),
    ([*FIT, "--min-count", "1000"], "min_count"),
    ([*FIT, "--control", "GFI1B"], "GFI1B"),
    ([*FIT, "--batch-key", "guide"], ".obs['guide']"),
    ([*FIT, "--size-factor-key", "guide"], "guide"),
    ([*FIT, "--unknown-flag"], "--unknown-flag"),
    (["fit", "nothing.h5ad", *FIT[2:]], "nothing.h5ad"),
    (["fit", "text.h5ad", *FIT[2:]], "text.h5ad"),
    (["fit", "half.h5ad", *FIT[2:]], "half.h5ad"),
    (["fit", "half.h5", *FIT[2:]], "half.h5"),
    (["fit", "empty", *FIT[2:]], "empty"),
    (["fit", "file", *FIT[2:]], "file"),
    (["fit", "screen.h5ad", "--cis", UNKNOWN, "-o", "out"], UNKNOWN),
    (["fit", "screen.h5ad", "--cis", "GFI1B", "-o", "file"], "--output"),
    (["fit", "screen.h5ad", "--cis", "GFI1B", "-o", "file/inside"], "--output"),
    (["fit", "screen.h5ad", "-o", "out"], "--cis"),
    (["fit", "screen.h5ad", "--cis", "GFI1B"], "--output"),
    (["fit", "--config", "nothing.toml"], "nothing.toml"),
    (["fit", "--config", "no.toml"], "no.toml"),
    (["fit", "--config", "unknown.toml"], "cys"),
    (["fit", "--config", "kind.toml"], "cis"),
    ([*SCREEN, "--targets", UNKNOWN], "--targets"),
    ([*SCREEN, "--n-jobs", "x"], "--n-jobs"),
    ([*SCREEN, "--min-guides", "-1"], "--min-guides"),
    ([*SCREEN, "--min-cells", "-1"], "--min-cells"),
    ([*SCREEN, "--min-count", "-1"], "--min-count"),
    ([*SCREEN, "--memory-limit", "much"], "--memory-limit"),
    ([*SCREEN, "--function-type", UNKNOWN], "--function-type"),
    ([*SCREEN, "--pooling", UNKNOWN], "--pooling"),
    ([*SCREEN, "--control", UNKNOWN], "--control"),
    ([*SCREEN, "--guide-key", UNKNOWN], "--guide-key"),
    ([*SCREEN, "--batch-key", UNKNOWN], "--batch-key"),
    ([*SCREEN, "--mod", UNKNOWN], "--mod"),
    (["screen", "screen.h5ad", "-o", "file", "--quiet"], "--output"),
    (["screen", "screen.h5ad"], "--output"),
    (["screen", "text.h5ad", "-o", "out"], "text.h5ad"),
    (["collect", "nothing"], "nothing"),
    (["collect", "file"], "file"),
    (["collect", "empty"], "empty"),
    (["config", "nothing.h5ad"], "nothing.h5ad"),
    (["config", "text.h5ad"], "text.h5ad"),
    (["memory"], "--features"),
    (["memory", "nothing.h5ad"], "nothing.h5ad"),
    (["memory", "text.h5ad"], "text.h5ad"),
    (["memory", "--features", "0", "--cells", "10"], "--features"),
    (["memory", "--features", "10", "--cells", "x"], "--cells"),
    (["memory", "--features", "10", "--cells", "10", "--sparsity", "2"], "--sparsity"),
    (["memory", "--features", "10", "--cells", "10", "--device", "gpu"], "--device"),
    (["memory", "--features", "10", "--cells", "10", "--ram", "much"], "--ram"),
    (["memory", "--features", "10", "--cells", "10", "--distribution", UNKNOWN], "--distribution"),
    (["memory", "screen.h5ad", "--layer", UNKNOWN], "--layer"),
    (["memory", "screen.h5ad", "--batch-key", UNKNOWN], "--batch-key"),
    (["demo", "--n-cells", "0"], "--n-cells"),
    (["demo", "--output", "file"], "--output"),
    ([UNKNOWN], UNKNOWN),
]


@pytest.mark.parametrize(("command", "names"), COMMANDS, ids=lambda value: " ".join(value) if value else "")
def test_a_bad_option_is_named(
    command: list[str],
    names: str,
    screen: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    restore_settings: None,
) -> None:
    monkeypatch.chdir(screen.parent)
    before = {str(path) for path in screen.parent.rglob("*")}
    try:
        status: Any = main(command)
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr().err
    assert status in (1, 2)
    assert names in said
    assert "Traceback" not in said
    made = {str(path) for path in screen.parent.rglob("*") if path.is_file()} - before
    assert not [path for path in made if ".checkpoint" not in path]
    assert ad.read_h5ad(screen).n_obs == 300


def test_there_are_many_commands() -> None:
    assert len(COMMANDS) > 80
