"""The long form of the property tests: more and longer histories, different each time."""

import argparse
import sys
import tempfile
from pathlib import Path

import anyio
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from orchestrator.clock import SystemClock
from orchestrator.store import Database, Schema

from .test_state_machine import SHORT, make_state_machine


def main() -> None:
    """Parse the command line and run; a failing history is reduced and printed."""
    parser = argparse.ArgumentParser(prog="python -m tests.properties", description=__doc__)
    parser.add_argument("--histories", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=60, help="maximum number of steps of each")
    options = parser.parse_args()
    long = settings(
        SHORT,
        max_examples=options.histories,
        stateful_step_count=options.steps,
        derandomize=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template.db"
        anyio.run(_make_tables, f"sqlite+aiosqlite:///{template}")
        machine = make_state_machine(template, Path(folder), on_start=_print_every_hundredth)
        run_state_machine_as_test(machine, settings=long)
    print(f"{options.histories} histories: all invariants held.")  # noqa: T201 - its result


def _print_every_hundredth(number: int) -> None:
    """Show on stderr that the run goes on: 3,000 histories take half an hour.

    Hypothesis discards some histories and does not count them: more begin than are asked for.
    """
    if number and number % 100 == 0:
        print(f"{number} histories begun", file=sys.stderr, flush=True)  # noqa: T201 - its progress


async def _make_tables(url: str) -> None:
    database = Database(url, SystemClock())
    await Schema(database).require(create=True)
    await database.checkpoint()
    await database.close()


if __name__ == "__main__":
    main()
