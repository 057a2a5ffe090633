"""Nothing that a user calls opens a connection: the steps run where no network is."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# an audit hook sees every connection of the process, of whichever library, and cannot be taken away
SCRIPT = """
import sys

asked = []


def watch(event, args):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        asked.append((event, str(args)))
        raise RuntimeError(f"{event} {args}: no network at run time")


sys.addaudithook(watch)

import matplotlib

matplotlib.use("Agg")
import dream_sc as ds

adata = ds.datasets.titration(300, 24, rng=0, n_guides=6, mean_range=(0.0, 3.0))
ds.pp.size_factors(adata, method="stable")
ds.tl.fit_technical(adata, batch_key="batch")
ds.tl.fit_cis(adata, "GFI1B")
ds.tl.fit_trans(adata, function_type="single_hill", nsamples=50)
table = ds.get.responders(adata, columns="main")
ds.get.summary(adata)
ds.pl.dose_response(adata, list(adata.var_names[1:3]))
ds.report(adata, sys.argv[1])
adata.write_h5ad(sys.argv[2])

from dream_sc._cli.main import main

assert main(["info"]) in (0, None)
assert main(["memory", "--features", "100", "--cells", "1000"]) in (0, None)
assert not asked, asked
print("done without a connection")
"""


def test_the_steps_the_report_and_the_shell_ask_no_host(tmp_path: Path) -> None:
    files = [str(tmp_path / "report.html"), str(tmp_path / "a.h5ad")]
    command = [sys.executable, "-c", SCRIPT, *files]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False, timeout=900)
    assert done.stdout.strip().endswith("done without a connection"), done.stderr[-2000:]
    assert all(os.path.getsize(file) > 10_000 for file in files)
