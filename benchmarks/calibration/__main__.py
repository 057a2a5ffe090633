"""The calibration study: simulated screens, real screens, other tests beside them, and the report.

    python benchmarks/calibration --results benchmarks/calibration/results [--data FOLDER]

What has a row in the results is not run again, so a run that was ended goes on where it stopped. The report is made
from the rows alone: tables and pictures in docs/_static/calibration, which docs/calibration.md shows. Real screens need
their folder as --data or in DREAM_SC_DATA, the other tests `pip install --group bench`; without them, these parts are
skipped and say so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import peers
import real
import report
import scenarios
import screens
import simulated

PARTS = ("simulated", "real", "peers", "report")
MOST_SEEDS = ("plain", "all_005", "all_015", "all_sparse")  # the scenarios on which the error rates are claimed
MANY, SOME = 20, 10  # seeds
HERE = Path(__file__).parent


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder of the rows")
    parser.add_argument("--data", help="folder of the real screens")
    parser.add_argument("--docs", type=Path, default=HERE.parents[1] / "docs", help="where the report goes")
    parser.add_argument("--peers", help="folder into which pysceptre was installed, if it is not in the environment")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    most = ", ".join(MOST_SEEDS)
    parser.add_argument(
        "--seeds",
        type=int,
        help=f"default: {MANY} for {most}; {SOME} else and for the other tests",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="these scenarios and cis genes of real screens; without NTC guides for the other tests",
    )
    parser.add_argument("--regroupings", type=int, default=200, help="of NTC guides by tl.calibrate")
    parser.add_argument("--refits", type=int, default=20, help="regroupings with all steps anew, per cis gene")
    parser.add_argument("--peer-regroupings", type=int, default=100, help="regroupings for the other tests")
    parser.add_argument("--cells", type=int, help="other number of cells: for a trial, with --results of its own")
    parser.add_argument("--genes", type=int, help="other number of genes: for a trial, with --results of its own")
    return parser.parse_args()


def simulate(root: Path, names: list[str], seeds: int | None, override: dict[str, int]) -> None:
    """Some seeds of everything first, the slow ones last, then the rest of those that get many."""
    slow = [n for n in names if scenarios.GRID[n].dosage == "cell"]
    simulated.run(root, [n for n in names if n not in slow] + slow, range(seeds or SOME), **override)
    if seeds is None:
        simulated.run(root, [n for n in names if n in MOST_SEEDS], range(SOME, MANY), **override)


def main() -> None:
    """Run the parts that were asked for."""
    given = arguments()
    data = screens.folder(given.data)
    override = {k: v for k, v in (("n_cells", given.cells), ("n_genes", given.genes)) if v}
    if "simulated" in given.parts:
        names = [n for n in scenarios.GRID if not given.only or n in given.only]
        simulate(given.results, names, given.seeds, override)
    if "real" in given.parts:
        real.run(given.results, data, n=given.regroupings, n_refits=given.refits, wanted=given.only)
    if "peers" in given.parts:
        peers.run(
            given.results,
            data,
            given.peers,
            seeds=given.seeds or SOME,
            n=given.peer_regroupings,
            wanted=given.only,
            **override,
        )
    if "report" in given.parts:
        report.write(given.results, given.docs)


if __name__ == "__main__":
    main()
