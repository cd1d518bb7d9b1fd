"""Nothing is claimed before the server's time is known; only then signatures expire as expected."""

from datetime import timedelta
from email.utils import formatdate
from itertools import cycle
from pathlib import Path

import pytest

from orchestrator.clock import SystemClock
from orchestrator.cloud.clock_skew import SIGNATURE_LIFETIME
from orchestrator.job_states import JobState
from orchestrator.simulator import Simulator, cos, cos_xml, routing
from orchestrator.store import Database
from orchestrator.store.tables import attempts
from tests.end_to_end.harness import (
    OpenStore,
    count_exports,
    enqueue_and_run,
    make_image_ids,
    make_requests_for,
    once_each,
    read_ledger,
    run_and_stop_when,
    run_to_end,
)
from tests.job_factory import read_rows, update_job

pytestmark = pytest.mark.anyio

VENDOR_LIFETIME = timedelta(seconds=300)


@pytest.mark.parametrize("skew", [-3600.0, -400.0, -20.0, 0.0, 20.0, 250.0, 3600.0])
async def test_signatures_have_expired_when_resending_is_allowed(
    open_store: OpenStore, cloud: Simulator, tmp_path: Path, skew: float
) -> None:
    """However wrong the machine's clock is: for the first request and a resumed run too."""
    cloud.change(skew=skew)
    async with open_store() as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2)))
    # a job that an earlier process has described: nothing has to be asked before its claim
    async with open_store() as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(1, first=2)))
        database = Database(f"sqlite+aiosqlite:///{tmp_path}/orchestrator.db", SystemClock())
        await update_job(database, 3, described_at=SystemClock().now())
        result = await run_to_end(orchestrator)
    assert result.counts[JobState.VERIFIED] == 1
    for job in (1, 2, 3):
        for attempt in await read_rows(database, attempts, job):
            # the vendor refuses it from then on, by its own clock, which is ahead by the skew
            expires_at = attempt.signed_at + VENDOR_LIFETIME - timedelta(seconds=skew)
            assert expires_at <= attempt.claimed_at + SIGNATURE_LIFETIME
            assert expires_at > attempt.claimed_at
    await database.close()
    assert not [entry for entry in read_ledger(cloud) if entry.code]


async def test_server_time_is_learned_before_the_first_claim(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """DescribeImages is the first request of every run, even if all images are described."""
    async with open_store(verify="off") as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
    actions = [entry.action for entry in cloud.ledger if entry.service == "cvm"]
    assert actions == ["DescribeImages", "ExportImages"]


async def test_nothing_is_sent_to_a_server_that_does_not_tell_its_time(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a valid Date header the run says why it waits, and claims no job."""
    monkeypatch.setattr(routing, "formatdate", lambda *_, **__: "someday")
    said: list[str] = []
    async with open_store(verify="off", notify=said.append) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(1)))
        result = await run_and_stop_when(
            orchestrator,
            lambda: len(read_ledger(cloud, "DescribeImages")) > 4 or bool(read_ledger(cloud)),
        )
    assert not read_ledger(cloud)
    assert result.counts[JobState.QUEUED] == 1
    assert len([sentence for sentence in said if "sends no Date header" in sentence]) == 1


async def test_absurd_times_of_a_server_are_ignored(
    open_store: OpenStore, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run continues, and no request in flight is cancelled, whatever the headers say."""
    absurd = ("Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 99999999999999999999 00:00:00 GMT")
    dates = cycle((formatdate(usegmt=True), *absurd))
    monkeypatch.setattr(routing, "formatdate", lambda *_, **__: next(dates))
    objects = cycle(absurd)
    monkeypatch.setattr(cos, "formatdate", lambda *_, **__: next(objects))
    monkeypatch.setattr(cos_xml, "_time", lambda _: "9999-12-31T23:59:59-12:00")
    images = make_image_ids(8)
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(images))
    assert result.counts[JobState.VERIFIED] == len(images)
    assert count_exports(cloud) == once_each(images)
