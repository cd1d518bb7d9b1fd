"""Print the table of variations as Markdown: ``python -m tests.scale [WORD ...]``."""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import anyio

from benchmarks.virtual import memory_folder
from orchestrator.cli.exit_codes import leaves
from tests.scale.side_by_side import run_side_by_side
from tests.scale.variation_run import Outcome, Variation, run_variation
from tests.scale.variation_table import header, row, totals
from tests.scale.vendor_variations import SIDE_BY_SIDE, VARIATIONS


def main() -> None:
    """Run the chosen variations and exit with 1 if one did harm or crashed.

    A variation is chosen if its area or name contains one of the words. Without words all are
    chosen.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="part of a name or area")
    parser.add_argument(
        "--side-by-side", action="store_true", help="in real time, with two processes and a kill"
    )
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    crashed: list[str] = []
    _print(header())
    for one in SIDE_BY_SIDE if options.side_by_side else VARIATIONS:
        if not options.words or any(word in f"{one.area}: {one.name}" for word in options.words):
            try:
                outcomes.append(_outcome(one, in_real_time=options.side_by_side))
            except Exception as error:  # noqa: BLE001 - the other variations are still of interest
                crashed.append(one.name)
                _print(f"| {one.name} | ended with {[*leaves(error)]!r} |")
            else:
                _print(row(outcomes[-1]))
    _print(totals(outcomes))
    sys.exit(bool(crashed) or any(outcome.harm for outcome in outcomes))


def _outcome(variation: Variation, *, in_real_time: bool) -> Outcome:
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        if in_real_time:
            return anyio.run(partial(run_side_by_side, variation, Path(folder)))
        return run_variation(variation, Path(folder))


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the table is what this is run for


if __name__ == "__main__":
    main()
