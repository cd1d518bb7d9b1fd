"""A store that cannot be written for a while costs time, but loses nothing."""

import sqlite3
from functools import partial
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa

from orchestrator.errors import StoreError
from orchestrator.job_states import JobState
from orchestrator.simulator import Fault, Simulator
from orchestrator.store import database as database_module
from tests.end_to_end.harness import (
    OpenStore,
    count_event_kinds,
    count_exports,
    enqueue_and_run,
    make_image_ids,
    make_requests_for,
    once_each,
    read_jobs,
    wait_until,
)
from tests.store_errors import uncertain_commit
from tests.tcp_relay import open_relay

pytestmark = pytest.mark.anyio


async def test_locked_store_is_waited_for(
    cloud: Simulator, tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program locks the store while answers arrive: none is lost."""
    monkeypatch.setattr(database_module, "SHORT_LOCK_TIMEOUT_MS", 20)
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=0.3))
    said: list[str] = []
    async with open_store(notify=said.append) as orchestrator, anyio.create_task_group() as tasks:
        tasks.start_soon(enqueue_and_run, orchestrator, make_requests_for(make_image_ids(8)))
        await wait_until(lambda: len(count_exports(cloud)) > 0)
        other = sqlite3.connect(tmp_path / "orchestrator.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await wait_until(lambda: any("cannot be used just now" in sentence for sentence in said))
        other.execute("ROLLBACK")
        other.close()
    await assert_all_answers_recorded(open_store, cloud)
    assert "can be used again" in said[-1]


async def test_restarting_server_is_waited_for(
    cloud: Simulator, postgresql_url: str, open_store: OpenStore
) -> None:
    """A run waits for a server that restarts, and records every answer.

    All connections break while answers arrive, and no new one can be opened for a while.
    """
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=0.3))
    said: list[str] = []
    url = sa.make_url(postgresql_url)
    async with open_relay(url.port or 5432) as relay:
        behind = url.set(port=relay.port).render_as_string(hide_password=False)
        async with (
            open_store(notify=said.append, database_url=behind) as orchestrator,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(enqueue_and_run, orchestrator, make_requests_for(make_image_ids(8)))
            await wait_until(lambda: len(count_exports(cloud)) > 0)
            relay.cut()
            await wait_until(
                lambda: any("cannot be used just now" in sentence for sentence in said)
            )
            relay.restore()
    await assert_all_answers_recorded(partial(open_store, database_url=postgresql_url), cloud)
    assert "can be used again" in said[-1]


async def test_claim_with_a_failed_commit_leaves_no_job_behind(
    cloud: Simulator, empty_url: str, open_store: OpenStore
) -> None:
    """Jobs of a claim that was committed but reported a failure are sent in this run."""
    async with open_store(database_url=empty_url) as orchestrator:
        with uncertain_commit(orchestrator._database, "INSERT INTO attempts"):
            result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(8)))
        assert result.counts[JobState.VERIFIED] == 8
        happened = await count_event_kinds(orchestrator)
    assert happened["not sent"] > 0
    assert happened["recovered"] == 0
    assert count_exports(cloud) == once_each(make_image_ids(8))


async def test_answer_with_a_failed_commit_is_recorded_once(
    cloud: Simulator, empty_url: str, open_store: OpenStore
) -> None:
    """An answer that was committed but reported a failure leaves a single event."""
    async with open_store(database_url=empty_url) as orchestrator:
        with uncertain_commit(orchestrator._database, "UPDATE attempts"):
            result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(8)))
        assert result.counts[JobState.VERIFIED] == 8
        happened = await count_event_kinds(orchestrator)
    assert happened == dict.fromkeys(("enqueued", "claimed", "accepted", "verified"), 8)
    assert count_exports(cloud) == once_each(make_image_ids(8))


async def assert_all_answers_recorded(open_store: OpenStore, cloud: Simulator) -> None:
    """Check that each image was exported once and its job has the cloud's TaskId."""
    assert count_exports(cloud) == once_each(make_image_ids(8))
    tasks = {entry.image_ids: entry.task_id for entry in cloud.ledger if entry.accepted}
    async with open_store() as orchestrator:
        assert {job.image_ids: job.task_id for job in await read_jobs(orchestrator)} == tasks


async def test_file_that_is_not_a_database_is_refused(
    open_store: OpenStore, tmp_path: Path
) -> None:
    """An error that waiting cannot fix is reported at once, with the file name."""
    (tmp_path / "orchestrator.db").write_bytes(b"no database, and never was" * 100)
    with pytest.raises(StoreError, match=r"orchestrator\.db cannot be used"):
        async with open_store():
            pass
