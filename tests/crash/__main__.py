"""The crash harness: a thousand kills and more; its figures come from the cloud's ledger."""

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
from tests.servers import NoServerError, fresh_database, server, text_of

_AT_ONCE = 2
_MOST_COMMITS = 150
"""Commits of one night that nobody disturbs, about: three for each of its forty exports."""


def main() -> None:
    """Reads the command line, kills, reports; ends with 1 where the promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--nights", type=int, default=400, help="of 40 images and 3 kills each")
    parser.add_argument("--restarts", type=int, default=40, help="of the command line")
    parser.add_argument("--side-by-side", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--postgresql", type=int, default=20, metavar="NIGHTS")
    parser.add_argument("--nap", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    total = anyio.run(campaign, options)
    sys.exit(0 if total.holds else 1)


async def campaign(options: argparse.Namespace) -> ExportCounts:
    """All parts, each with its figures, and all of them together."""
    _say(f"seed {options.seed}: {options.nights} nights, then restarts, then four processes.")
    chance = random.Random(options.seed)
    total = ExportCounts()
    async with anyio.create_task_group() as tasks:
        # it waits for minutes, and takes nothing from the others
        if options.nap:
            tasks.start_soon(_sleep_for_real, total)
        _take_in(total, "nights", await _nights(options.nights, chance))
        _take_in(total, "nights on PostgreSQL", await _on_a_server(options.postgresql, chance))
        _take_in(total, "restarts", await run_with_restarts(options.restarts))
        four = await run_side_by_side(options.side_by_side, chance)
        _take_in(total, "four processes on one file", four)
    _say("all together:", total)
    _say(json.dumps(total.figures()))
    return total


def _take_in(total: ExportCounts, name: str, tally: ExportCounts) -> None:
    _say(f"{name}:", tally)
    total.add(tally)


async def _sleep_for_real(total: ExportCounts) -> None:
    """A process stopped beyond its lease and its signature, while another drains the store."""
    night = await run_with_suspension(lease=None, fence=None, woken_by=JobState.VERIFIED)
    _take_in(total, "a sleeper", night.tally)
    _say(f"  the vendor refused its late request: {night.codes}")
    for event in night.story.events:
        _say(f"  {iso(event['at'])} {event['kind']} {event['attempt'] or ''} {event['details']}")


async def _nights(number: int, chance: random.Random) -> ExportCounts:
    """So many nights, some at a time; a kill at each commit in turn, and two of other kinds."""
    nights = _plans(number, chance)
    total, done = ExportCounts(), itertools.count(1)

    async def watchman() -> None:
        async with start_fork_server() as fork_server:
            for night in nights:
                tally = await run_scenario(night, fork_server)
                total.add(tally)
                if not tally.holds:
                    _say(f"broken by {night}:", tally)
                if (count := next(done)) % 50 == 0:
                    _say(f"{count} nights, {total.kills.total()} kills")

    async with anyio.create_task_group() as tasks:
        for _ in range(_AT_ONCE):
            tasks.start_soon(watchman)
    return total


async def _on_a_server(number: int, chance: random.Random) -> ExportCounts:
    """Nights on PostgreSQL, where there is a server."""
    total = ExportCounts()
    try:
        with server() as found:
            await _on_this_server(found, total, _plans(number, chance))
    except NoServerError as error:
        _say(f"no PostgreSQL server, so those nights are left out: {error}")
    return total


async def _on_this_server(found: sa.URL, total: ExportCounts, nights: Iterator[Scenario]) -> None:
    async with start_fork_server() as fork_server:
        for night in nights:
            with fresh_database(found) as url:
                tally = await run_scenario(
                    replace(night, settings={"database_url": text_of(url)}), fork_server
                )
            total.add(tally)
            if not tally.holds:
                _say(f"broken by {night}:", tally)


def _plans(number: int, chance: random.Random) -> Iterator[Scenario]:
    kinds = itertools.cycle(KILL_KINDS)
    for index in range(number):
        commit = Kill("every commit in turn", KillPoint(1 + index % _MOST_COMMITS))
        others = [make_kill(next(kinds), chance) for _ in range(2)]
        yield Scenario([commit, *others], capped=bool(index & 1), losing=bool(index & 2))


def _say(text: str, tally: ExportCounts | None = None) -> None:
    print(text, flush=True)  # noqa: T201 - the figures are what this is run for
    for name, figure in (tally.figures() if tally else {}).items():
        print(f"  {name:<30} {figure}", flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main()
