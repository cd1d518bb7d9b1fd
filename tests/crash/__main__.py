"""Run the crash tests: more than a thousand kills, counted from the cloud's ledger."""

import argparse
import itertools
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace

import anyio
import sqlalchemy as sa

from orchestrator.clock import iso
from orchestrator.job_states import JobState
from tests.crash.child_processes import start_fork_server
from tests.crash.export_counts import ExportCounts
from tests.crash.long_runs import run_side_by_side, run_with_restarts
from tests.crash.scenario import KILL_KINDS, Kill, Scenario, make_kill, run_scenario
from tests.crash.suspended_process import run_with_suspension
from tests.crash.worker_process import KillPoint
from tests.postgresql_server import NoServerError, fresh_database, server, text_of

_AT_ONCE = 2
_MAX_COMMITS = 150
"""About the number of commits of an undisturbed scenario: three or four for each export."""


def main() -> None:
    """Run the crash tests, and exit with 1 if an export was lost or doubled.

    Unfinished jobs, jobs that differ from the ledger and stored secrets also give exit code 1.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument(
        "--scenarios", type=int, default=400, help="scenarios, each with 40 images and 3 kills"
    )
    parser.add_argument("--restarts", type=int, default=40, help="restarts of the command line")
    parser.add_argument("--side-by-side", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--postgresql", type=int, default=20, metavar="SCENARIOS")
    parser.add_argument("--suspend", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    total = anyio.run(run_all, options)
    sys.exit(0 if total.holds else 1)


async def run_all(options: argparse.Namespace) -> ExportCounts:
    """Run all parts; report the counts of each and of all together."""
    _print(
        f"seed {options.seed}: {options.scenarios} scenarios, then restarts, then four processes."
    )
    chance = random.Random(options.seed)
    total = ExportCounts()
    async with anyio.create_task_group() as tasks:
        # it mostly waits, for minutes, so it runs beside the other parts
        if options.suspend:
            tasks.start_soon(_run_suspension, total)
        _add(total, "scenarios", await _run_scenarios(options.scenarios, chance))
        _add(total, "scenarios on PostgreSQL", await _run_on_postgresql(options.postgresql, chance))
        _add(total, "restarts", await run_with_restarts(options.restarts))
        four = await run_side_by_side(options.side_by_side, chance)
        _add(total, "four processes on one file", four)
    _print("all together:", total)
    _print(json.dumps(total.figures()))
    return total


def _add(total: ExportCounts, name: str, counts: ExportCounts) -> None:
    _print(f"{name}:", counts)
    total.add(counts)


async def _run_suspension(total: ExportCounts) -> None:
    """Suspend a process beyond its lease and its signature, and add the counts.

    Meanwhile another process drains the store.
    """
    scenario = await run_with_suspension(
        lease=None, signature_lifetime=None, resume_at=JobState.VERIFIED
    )
    _add(total, "a suspended", scenario.counts)
    _print(f"  the vendor refused its late request: {scenario.codes}")
    for event in scenario.details.events:
        _print(f"  {iso(event['at'])} {event['kind']} {event['attempt'] or ''} {event['details']}")


async def _run_scenarios(number: int, chance: random.Random) -> ExportCounts:
    """Run this many scenarios, with a kill at each commit in turn and two others."""
    scenarios = _make_scenarios(number, chance)
    total, done = ExportCounts(), itertools.count(1)

    async def work_off() -> None:
        async with start_fork_server() as fork_server:
            for scenario in scenarios:
                counts = await run_scenario(scenario, fork_server)
                total.add(counts)
                if not counts.holds:
                    _print(f"broken by {scenario}:", counts)
                if (count := next(done)) % 50 == 0:
                    _print(f"{count} scenarios, {total.kills.total()} kills")

    async with anyio.create_task_group() as tasks:
        for _ in range(_AT_ONCE):
            tasks.start_soon(work_off)
    return total


async def _run_on_postgresql(number: int, chance: random.Random) -> ExportCounts:
    """Run scenarios on PostgreSQL, if there is a server."""
    total = ExportCounts()
    try:
        with server() as found:
            await _run_on_this_server(found, total, _make_scenarios(number, chance))
    except NoServerError as error:
        _print(f"no PostgreSQL server, so those scenarios are left out: {error}")
    return total


async def _run_on_this_server(
    found: sa.URL, total: ExportCounts, scenarios: Iterator[Scenario]
) -> None:
    async with start_fork_server() as fork_server:
        for scenario in scenarios:
            with fresh_database(found) as url:
                counts = await run_scenario(
                    replace(scenario, settings={"database_url": text_of(url)}), fork_server
                )
            total.add(counts)
            if not counts.holds:
                _print(f"broken by {scenario}:", counts)


def _make_scenarios(number: int, chance: random.Random) -> Iterator[Scenario]:
    kinds = itertools.cycle(KILL_KINDS)
    for index in range(number):
        commit = Kill("every commit in turn", KillPoint(1 + index % _MAX_COMMITS))
        others = [make_kill(next(kinds), chance) for _ in range(2)]
        yield Scenario([commit, *others], capped=bool(index & 1), losing=bool(index & 2))


def _print(text: str, counts: ExportCounts | None = None) -> None:
    print(text, flush=True)  # noqa: T201 - the figures are what this is run for
    for name, figure in (counts.figures() if counts else {}).items():
        print(f"  {name:<30} {figure}", flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main()
