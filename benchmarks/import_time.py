"""What `import dream_sc` costs beyond `import anndata`, and that the heavy packages stay out of it."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

HEAVY = ("torch", "pyro", "scanpy", "matplotlib")
BAR = 0.1
CODE = """
import sys, time
start = time.perf_counter()
import {module}
seconds = time.perf_counter() - start
print(seconds, *(m for m in {heavy} if m in sys.modules))
"""


def fresh(module: str, env: dict[str, str]) -> tuple[float, list[str]]:
    """Seconds of the import in a new interpreter, and the heavy packages it loaded."""
    code = CODE.format(module=module, heavy=HEAVY)
    run = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    seconds, *heavy = run.stdout.split()
    return float(seconds), heavy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=11)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        # compiled files as an installed package has them, whatever the environment says
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = cache
        loaded = fresh("dream_sc", env)[1]
        pairs = [(fresh("anndata", env)[0], fresh("dream_sc", env)[0]) for _ in range(args.pairs)]
    base, ours = (statistics.median(values) for values in zip(*pairs, strict=True))
    difference = statistics.median(b - a for a, b in pairs)
    print(f"import anndata   {base:.3f} s\nimport dream_sc  {ours:.3f} s  (medians of {args.pairs} alternating pairs)")
    print(f"difference       {difference:.3f} s, bar {BAR} s: {'held' if difference <= BAR else 'MISSED'}")
    print(f"of {', '.join(HEAVY)} loaded: {', '.join(loaded) or 'none'}")
    print(f"load average {os.getloadavg()[0]:.2f} (above 1 the times mean little)")


if __name__ == "__main__":
    main()
