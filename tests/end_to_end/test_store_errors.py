"""A store that cannot be written for a while costs time, and nothing that is known."""

import sqlite3
from collections import Counter
from functools import partial
from pathlib import Path

import anyio
import pytest
import sqlalchemy as sa

from orchestrator.errors import StoreError
from orchestrator.job_states import JobState
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Fault, Simulator
from orchestrator.store import sqlite
from tests.end_to_end.scene import (
    Store,
    accepted,
    drained,
    images,
    jobs_of,
    once_each,
    orders,
    until,
)
from tests.relay import relay_to
from tests.store_errors import commit_in_doubt

pytestmark = pytest.mark.anyio


async def test_a_locked_store_is_waited_for(
    cloud: Simulator, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program holds the store while answers arrive: none of them is lost."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 20)
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=0.3))
    said: list[str] = []
    async with store(notify=said.append) as orchestrator, anyio.create_task_group() as tasks:
        tasks.start_soon(drained, orchestrator, orders(images(8)))
        await until(lambda: len(accepted(cloud)) > 0)
        other = sqlite3.connect(tmp_path / "orchestrator.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await until(lambda: any("cannot be used just now" in sentence for sentence in said))
        other.execute("ROLLBACK")
        other.close()
    await assert_every_answer_is_kept(store, cloud)
    assert "can be used again" in said[-1]


async def test_a_server_that_restarts_is_waited_for(
    cloud: Simulator, postgresql_url: str, store: Store
) -> None:
    """Every connection breaks while answers arrive, and none can be made for a while."""
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=0.3))
    said: list[str] = []
    url = sa.make_url(postgresql_url)
    async with relay_to(url.port or 5432) as relay:
        behind = url.set(port=relay.port).render_as_string(hide_password=False)
        async with (
            store(notify=said.append, database_url=behind) as orchestrator,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(drained, orchestrator, orders(images(8)))
            await until(lambda: len(accepted(cloud)) > 0)
            relay.cut()
            await until(lambda: any("cannot be used just now" in sentence for sentence in said))
            relay.mend()
    await assert_every_answer_is_kept(partial(store, database_url=postgresql_url), cloud)
    assert "can be used again" in said[-1]


async def test_a_claim_in_doubt_leaves_no_job_behind(
    cloud: Simulator, empty_url: str, store: Store
) -> None:
    """Jobs of a claim whose commit was applied and yet seemed to fail are sent in this run."""
    async with store(database_url=empty_url) as orchestrator:
        with commit_in_doubt(orchestrator._database, "INSERT INTO attempts"):
            result = await drained(orchestrator, orders(images(8)))
        assert result.counts[JobState.VERIFIED] == 8
        happened = await kinds_of(orchestrator)
    assert happened["not sent"] > 0
    assert happened["rescued"] == 0
    assert accepted(cloud) == once_each(images(8))


async def test_an_answer_in_doubt_is_recorded_once(
    cloud: Simulator, empty_url: str, store: Store
) -> None:
    """An answer whose commit was applied and yet seemed to fail leaves a single event."""
    async with store(database_url=empty_url) as orchestrator:
        with commit_in_doubt(orchestrator._database, "UPDATE attempts"):
            result = await drained(orchestrator, orders(images(8)))
        assert result.counts[JobState.VERIFIED] == 8
        happened = await kinds_of(orchestrator)
    assert happened == dict.fromkeys(("enqueued", "claimed", "accepted", "verified"), 8)
    assert accepted(cloud) == once_each(images(8))


async def kinds_of(orchestrator: Orchestrator) -> Counter[str]:
    """Count the events of all jobs by their kind."""
    stories = [await orchestrator.show(str(job.id)) for job in await jobs_of(orchestrator)]
    return Counter(event["kind"] for story in stories if story for event in story.events)


async def assert_every_answer_is_kept(store: Store, cloud: Simulator) -> None:
    """Each image was exported once, and its job holds the TaskId that the cloud gave."""
    assert accepted(cloud) == once_each(images(8))
    tasks = {entry.image_ids: entry.task_id for entry in cloud.ledger if entry.accepted}
    async with store() as orchestrator:
        assert {job.image_ids: job.task_id for job in await jobs_of(orchestrator)} == tasks


async def test_a_file_that_is_no_database_is_refused(store: Store, tmp_path: Path) -> None:
    """What waiting does not mend is said at once, with the file's name."""
    (tmp_path / "orchestrator.db").write_bytes(b"no database, and never was" * 100)
    with pytest.raises(StoreError, match=r"orchestrator\.db cannot be used"):
        async with store():
            pass
