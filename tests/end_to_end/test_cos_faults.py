"""Faults of COS: a failed lookup proves nothing, and a temporary fault is waited for."""

from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from orchestrator.clock import SystemClock
from orchestrator.job_states import JobState
from orchestrator.model import Scope
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import BucketSettings, Fault, Refusal, Simulator
from orchestrator.store import Database
from orchestrator.verification import bucket_access
from tests.end_to_end.harness import (
    BUCKET,
    OpenStore,
    count_exports,
    count_states,
    enqueue_and_run,
    make_image_ids,
    make_requests_for,
    once_each,
    read_jobs,
    read_ledger,
    run_to_end,
    wait_until,
    wait_until_stored,
)
from tests.job_factory import now, update_job

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_retries")]

OTHER = "archive-1250000000"


async def test_temporary_faults_of_cos_are_retried(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """COS can fail, break off or send nonsense for a while: lookups are repeated."""
    cloud.set_faults(
        Fault("gateway", action="cos", times=3, status=503),
        Fault("reset", action="cos", times=3),
        Fault("half", action="cos", times=3),
        Fault("html", action="cos", times=3),
    )
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(12)))
    assert result.counts[JobState.VERIFIED] == 12
    assert count_exports(cloud) == once_each(make_image_ids(12))


async def test_few_denied_lookups_do_not_make_a_bucket_unreadable(
    orchestrator: Orchestrator, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one or two denied lookups the exports are still verified."""
    monkeypatch.setattr(
        bucket_access, "_MIN_REFUSED_FOR", 20
    )  # two look-ups may be far apart on a busy machine
    cloud.change(codes=(Refusal("AccessDenied", action="HeadObject", times=2),))
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(6)))
    assert result.counts[JobState.VERIFIED] == 6


async def test_failed_listing_proves_no_absence(open_store: OpenStore, cloud: Simulator) -> None:
    """While listings fail, nothing counts as absent, so no lost request is resent."""
    cloud.set_faults(
        Fault("reset", action="ExportImages", after=True, times=1),
        Fault("gateway", action="GetBucket", times=5),
    )
    async with open_store(resend="always", resend_after=0.3) as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
    assert len(read_ledger(cloud, "GetBucket")) > 5
    assert result.counts[JobState.VERIFIED] == 1
    assert count_exports(cloud) == once_each(make_image_ids(1))
    assert len(read_ledger(cloud)) == 1


@pytest.mark.parametrize("minutes", [2, 60])
async def test_after_outage_the_oldest_exports_are_looked_up_first(
    open_store: OpenStore, cloud: Simulator, tmp_path: Path, minutes: int
) -> None:
    """The probe after an outage of COS looks up an export that can have ended."""
    async with open_store(verify="off") as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(15)))
    long_ago, young, ended = range(1, 3), range(3, 6), range(6, 16)
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/orchestrator.db", SystemClock())
    moment, typical_duration = await now(database), timedelta(minutes=minutes)
    for job in long_ago:
        times = {
            "sent_at": moment - 2 * typical_duration,
            "accepted_at": moment - 2 * typical_duration,
        }
        await update_job(
            database, job, state="verified", finished_at=moment - typical_duration, **times
        )
    for job in young:
        await update_job(database, job, due_at=moment + timedelta(seconds=1))
    for job in ended:
        await update_job(database, job, accepted_at=moment - typical_duration)
    await database.close()
    cloud.set_faults(Fault("reset", action="cos"))
    said: list[str] = []
    async with (
        open_store(verify_interval="adaptive", notify=said.append) as orchestrator,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(orchestrator.run)

        async def all_are_seen() -> bool:
            counts = await count_states(orchestrator)
            return counts == {JobState.VERIFIED: 12, JobState.ACCEPTED: 3}

        await wait_until(lambda: any("one look-up at a time" in sentence for sentence in said))
        cloud.set_faults()
        await wait_until_stored(all_are_seen)
        tasks.cancel_scope.cancel()


async def test_verification_off(open_store: OpenStore, cloud: Simulator) -> None:
    """With verification off a job ends as accepted, and no bucket is read."""
    async with open_store(verify="off") as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(4)))
        assert result.counts[JobState.ACCEPTED] == 4
        assert result.left == 0
        assert (await run_to_end(orchestrator)).requests == 0
    assert len(read_ledger(cloud)) == 4
    assert not [entry for entry in cloud.ledger if entry.service == "cos"]


async def test_accepted_jobs_are_verified_by_a_later_run(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """A run with verification verifies jobs that an earlier run left accepted."""
    async with open_store(verify="off") as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(4)))
    async with open_store() as orchestrator:
        result = await run_to_end(orchestrator)
    assert result.counts[JobState.VERIFIED] == 4
    assert result.requests == 0
    assert count_exports(cloud) == once_each(make_image_ids(4))


async def test_without_read_permission_jobs_end_accepted(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """Without read permission jobs end accepted, and the user is notified once."""
    cloud.change(buckets={BUCKET: BucketSettings(deny=("HeadObject", "GetBucket"))})
    said: list[str] = []
    async with open_store(notify=said.append) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(8)))
        result = await enqueue_and_run(
            orchestrator, make_requests_for(make_image_ids(4, first=8), bucket=OTHER)
        )
        assert await count_states(orchestrator, buckets=(BUCKET,)) == {JobState.ACCEPTED: 8}
    assert result.counts[JobState.VERIFIED] == 4
    assert (result.left, result.blocked) == (0, ())
    (sentence,) = (one for one in said if BUCKET in one)
    assert "HeadObject" in sentence


async def test_without_head_permission_listings_are_the_evidence(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """If objects can be listed but not read, the listing is the evidence."""
    cloud.change(buckets={BUCKET: BucketSettings(deny=("HeadObject",))})
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(4)))
    assert result.counts[JobState.VERIFIED] == 4


@pytest.mark.parametrize("has_begun", [False, True])
async def test_without_list_permission_head_finds_the_exports_of_lost_answers(
    open_store: OpenStore, cloud: Simulator, has_begun: bool
) -> None:
    """What it does not find stays unknown for an operator, with the reason."""
    denied = BucketSettings(deny=("GetBucket", "ListMultipartUploads"))
    lost = Fault(
        "reset", action="ExportImages", after=has_begun, images=tuple(make_image_ids(1)), times=1
    )
    cloud.change(buckets={BUCKET: denied}, faults=(lost,))
    images = make_image_ids(5)
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(images))
        unknown = await read_jobs(orchestrator, states=("unknown",))
    assert result.counts[JobState.VERIFIED] == 4 + has_begun
    assert count_exports(cloud) == once_each(images if has_begun else images[1:])
    assert len(read_ledger(cloud)) == 5
    if not has_begun:
        (left,) = unknown
        assert left.image_ids == tuple(images[:1])
        assert "its listings are refused" in (left.message or "")


async def test_unknown_job_is_resolved_once_listing_is_permitted(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """A run that can read the bucket resolves and verifies an unknown job.

    An earlier run without read permission left the job unknown.
    """
    cloud.change(
        buckets={BUCKET: BucketSettings(deny=("HeadObject", "GetBucket"))},
        faults=(Fault("reset", action="ExportImages", after=True, times=1),),
    )
    async with open_store() as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
    cloud.change(buckets={})
    async with open_store() as orchestrator:
        result = await run_to_end(orchestrator)
    assert result.counts[JobState.VERIFIED] == 1
    assert len(read_ledger(cloud)) == 1


async def test_required_verification_halts_an_unreadable_bucket(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """If verification is required, an unreadable bucket halts only its own exports."""
    cloud.change(buckets={BUCKET: BucketSettings(deny=("HeadObject", "GetBucket"))})
    async with open_store(verify="required", rate=8) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(60)))
        result = await enqueue_and_run(
            orchestrator, make_requests_for(make_image_ids(4, first=60), bucket=OTHER)
        )
    (stop,) = result.blocked
    assert (stop.scope, stop.value) == (Scope.BUCKET, f"ap-singapore/{BUCKET}")
    assert stop.remedy
    assert result.counts[JobState.VERIFIED] == 4
    assert result.counts[JobState.QUEUED] > 0
    assert result.counts[JobState.ACCEPTED] + result.counts[JobState.QUEUED] == 60


async def test_wrong_clock_is_corrected_from_cos_answers(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """A wrong clock is corrected by COS answers alone, and no verification fails."""
    async with open_store(verify="off") as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(20)))
    cloud.change(skew=3600)
    async with open_store() as orchestrator:
        result = await run_to_end(orchestrator)
    assert result.counts[JobState.VERIFIED] == 20


async def test_outage_of_cos_proves_no_absence(open_store: OpenStore, cloud: Simulator) -> None:
    """During an outage of COS nothing counts as absent, and later all is verified."""
    cloud.set_faults(Fault("reset", action="cos", times=12))
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(8)))
    assert result.counts[JobState.VERIFIED] == 8
    assert count_exports(cloud) == once_each(make_image_ids(8))


async def test_outage_of_cos_leaves_one_probe(open_store: OpenStore, cloud: Simulator) -> None:
    """While COS does not answer there are few lookups; the outage is reported once."""
    cloud.set_faults(Fault("gateway", action="cos", status=503))
    said: list[str] = []

    def far_apart() -> bool:
        times = [entry.monotonic for entry in cloud.ledger if entry.service == "cos"][-3:]
        return len(times) == 3 and all(later - sooner > 0.4 for sooner, later in pairwise(times))

    async with open_store(notify=said.append) as orchestrator, anyio.create_task_group() as tasks:
        await orchestrator.enqueue(make_requests_for(make_image_ids(24)))
        tasks.start_soon(run_to_end, orchestrator)
        await wait_until(far_apart)
        cloud.set_faults()
        await wait_until(lambda: len(said) == 2)
    lost, found = said
    assert "gives no answer (Http503" in lost
    assert "answers again" in found


async def test_expired_token_during_lookups_halts_the_account(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """A refusal of the account does not mark the bucket as unreadable."""
    cloud.change(codes=(Refusal("ExpiredToken", action="cos"),))
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2)))
    (stop,) = result.blocked
    assert (stop.scope, stop.code) == (Scope.CREDENTIAL, "ExpiredToken")
    assert (result.counts[JobState.ACCEPTED], result.left) == (2, 2)
