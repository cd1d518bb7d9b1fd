"""What `status` and the progress display print."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.cli.status import scope_line
from orchestrator.clock import SystemClock
from orchestrator.learned_vendor_facts import VendorFact, record_fact
from orchestrator.limits.concurrency_limit import ConcurrencyLimit
from orchestrator.reporting.status import ScopeStatus
from orchestrator.run_warnings import RunWarnings
from orchestrator.simulator import Duration, Simulator
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from tests.cli_process import Shell, wait_until

pytestmark = pytest.mark.anyio

WHERE = ("--region", "ap-tokyo", "--bucket", "backup-1250000000")


def scope(running: int, left: float | None) -> ScopeStatus:
    limit = ConcurrencyLimit(
        "ap-tokyo",
        7,
        running,
        full_since=None,
        probe_at=None,
    )
    return ScopeStatus("default", limit, waiting=0, usual_seconds=9.0, seconds_left=left)


@pytest.mark.parametrize(
    ("known", "is_overdue"),
    [
        (scope(running=2, left=0.0), True),
        (scope(running=2, left=3.0), False),
        (scope(running=2, left=None), False),
        (scope(running=0, left=0.0), False),
    ],
)
def test_overdue_exports_are_marked(known: ScopeStatus, is_overdue: bool) -> None:
    """Exports that run longer than usual are overdue, and the usual time is shown."""
    assert scope_line(known).endswith("overdue (usually 9 s)") == is_overdue


@pytest.mark.parametrize(
    ("running", "ceiling", "text"),
    [
        (1, None, "1 export in progress"),
        (2, None, "2 exports in progress"),
        (0, 1, "0 of 1 export in progress"),
        (1, 7, "1 of 7 exports in progress"),
    ],
)
def test_exports_are_counted_in_singular_and_plural(
    running: int, ceiling: int | None, text: str
) -> None:
    """The noun agrees with the number directly before it."""
    known = scope(running, None)
    limit = replace(known.concurrency, ceiling=ceiling)
    assert f": {text}, " in scope_line(replace(known, concurrency=limit))


async def test_without_an_active_run_the_command_that_starts_one_is_printed(
    shell: Shell, cloud: Simulator
) -> None:
    """Without an active run, `status` prints a command, but no ETA and no next probe.

    If no job is left, it prints no command either.
    """
    cloud.change(duration=Duration(seconds=600), cap=1)
    await shell.run("enqueue", "-", "--batch", "to night", *WHERE, stdin=b"img-00000001")
    async with shell.start("run"):
        await wait_until(lambda: any(entry.accepted for entry in cloud.ledger))
        active = await shell.run("status")
    idle = await shell.run("status", "--batch", "to night")
    assert "No run is active" not in active.out
    assert "No run is active. Continue with: orchestrator run --batch 'to night'" in idle.out
    assert "orchestrator run\n" in (await shell.run("status")).out
    cloud.change(duration=Duration(seconds=0.1), skew=601.0)
    assert (await shell.run("run")).code == 0
    assert "No run is active, and no job waits for one." in (await shell.run("status")).out
    left = (await shell.run("status", "--json")).json
    assert [left["seconds_left"], *_waits(left)] == [None, None, None]


def _waits(shown: dict[str, Any]) -> list[Any]:
    (only,) = shown["scopes"]
    return [only["seconds_left"], only["next_probe"]]


async def test_warnings_and_facts_are_printed(shell: Shell) -> None:
    """Without any, nothing is printed; with some, the lines fit 80 columns."""
    await shell.run(
        *("enqueue", "--image", "img-00000001", "--region", "ap-tokyo"),
        *("--bucket", "backup-1250000000"),
    )
    plain = (await shell.run("status")).out
    assert "Warning" not in plain
    at, bucket = datetime(2026, 12, 1, 8, tzinfo=UTC), "ap-tokyo/backup-1250000000"
    database = Database(f"sqlite+aiosqlite:///{shell.folder}/exports.db", SystemClock())
    async with database.write() as connection:
        await record_fact(connection, "default", bucket, VendorFact.PREFIX_HONOURED, "yes", at)
        await connection.execute(
            jobs.update().values(sent_at=at, first_trace_at=at + timedelta(seconds=3.5))
        )
    await RunWarnings(database, "default", print).warn("key", f"{bucket}: {'no trace ' * 20}.")
    await database.close()
    printed = (await shell.run("status")).out
    assert f"default {bucket}: prefix honoured yes, time to first trace 4 s" in " ".join(
        printed.split()
    )
    assert "Warning since " in printed
    assert max(len(line) for line in printed.splitlines()) <= 80
    for columns, used in ((60, 60), (100, 100), (200, 120), (40, 60)):
        at_terminal = (await shell.run_at_terminal("status", columns=columns)).splitlines()
        assert used - 10 < max(map(len, at_terminal)) <= used
    shown = (await shell.run("status", "--json")).json
    (warning,) = shown["warnings"]
    assert warning["profile"] == "default"
    assert warning["message"].startswith(bucket)
    assert shown["vendor"][0] == {
        "profile": "default",
        "subject": bucket,
        "fact": "prefix honoured",
        "value": "yes",
        "seen_at": "2026-12-01T08:00:00.000Z",
    }
