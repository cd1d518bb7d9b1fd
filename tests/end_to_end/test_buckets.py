"""Trouble with COS: what cannot be seen is not claimed, and what passes is waited for."""

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
from orchestrator.verification import bucket_permissions as permissions
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

pytestmark = pytest.mark.anyio

OTHER = "archive-1250000000"


async def test_faults_that_pass(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """COS may fail, break off and answer nonsense in between: it is looked again until it holds."""
    cloud.set_faults(
        Fault("gateway", action="cos", times=3, status=503),
        Fault("reset", action="cos", times=3),
        Fault("half", action="cos", times=3),
        Fault("html", action="cos", times=3),
    )
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(12)))
    assert result.counts[JobState.VERIFIED] == 12
    assert count_exports(cloud) == once_each(make_image_ids(12))


async def test_a_refusal_that_passes(
    orchestrator: Orchestrator, cloud: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused look or two are no lost right: the exports are verified all the same."""
    monkeypatch.setattr(
        permissions, "_SHORTEST", 20
    )  # two looks may be far apart on a busy machine
    cloud.change(codes=(Refusal("AccessDenied", action="HeadObject", times=2),))
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(6)))
    assert result.counts[JobState.VERIFIED] == 6


async def test_a_listing_that_fails_is_no_look(
    orchestrator: Orchestrator, cloud: Simulator
) -> None:
    """While listings fail nothing is known to be absent: a lost request is not sent again."""
    cloud.set_faults(
        Fault("reset", action="ExportImages", after=True, times=1),
        Fault("gateway", action="GetBucket", times=5),
    )
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
    assert len(read_ledger(cloud, "GetBucket")) > 5
    assert result.counts[JobState.VERIFIED] == 1
    assert count_exports(cloud) == once_each(make_image_ids(1))
    assert len(read_ledger(cloud)) == 1


@pytest.mark.parametrize("minutes", [2, 60])
async def test_after_an_outage_no_ended_export_waits_for_a_young_one(
    open_store: OpenStore, cloud: Simulator, tmp_path: Path, minutes: int
) -> None:
    """Whether the bucket answers again one finds out that may have ended, whoever is due first."""
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
    cloud.set_faults(Fault("reset", action="cos", times=len(ended)))
    said: list[str] = []
    async with (
        open_store(verify_interval="adaptive", notify=said.append) as orchestrator,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(orchestrator.run)

        async def all_are_seen() -> bool:
            counts = await count_states(orchestrator)
            return counts == {JobState.VERIFIED: 12, JobState.ACCEPTED: 3}

        await wait_until_stored(all_are_seen)
        tasks.cancel_scope.cancel()
    assert any("one look at a time" in sentence for sentence in said)


async def test_verification_off(open_store: OpenStore, cloud: Simulator) -> None:
    """With verification off accepted is where a job rests, and no bucket is asked for anything."""
    async with open_store(verify="off") as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(4)))
        assert result.counts[JobState.ACCEPTED] == 4
        assert result.left == 0
        assert (await run_to_end(orchestrator)).requests == 0
    assert len(read_ledger(cloud)) == 4
    assert not [entry for entry in cloud.ledger if entry.service == "cos"]


async def test_what_rested_is_verified_later(open_store: OpenStore, cloud: Simulator) -> None:
    """Jobs that rest on accepted are verified by a run that may look, without another request."""
    async with open_store(verify="off") as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(4)))
    async with open_store() as orchestrator:
        result = await run_to_end(orchestrator)
    assert result.counts[JobState.VERIFIED] == 4
    assert result.requests == 0
    assert count_exports(cloud) == once_each(make_image_ids(4))


async def test_no_right_to_look(open_store: OpenStore, cloud: Simulator) -> None:
    """Without the right to look exports go on and rest on accepted; that is said once."""
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


async def test_no_right_to_read_objects(orchestrator: Orchestrator, cloud: Simulator) -> None:
    """Where objects may be listed and not read, the listing is the evidence."""
    cloud.change(buckets={BUCKET: BucketSettings(deny=("HeadObject",))})
    result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(4)))
    assert result.counts[JobState.VERIFIED] == 4


async def test_no_right_to_list(open_store: OpenStore, cloud: Simulator) -> None:
    """An answer lost where no listing is allowed stays unknown for a person; the rest goes on."""
    denied = BucketSettings(deny=("GetBucket", "ListMultipartUploads"))
    cloud.change(
        buckets={BUCKET: denied},
        faults=(
            Fault("reset", action="ExportImages", after=True, images=tuple(make_image_ids(1))),
        ),
    )
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(5)))
        (unknown,) = await read_jobs(orchestrator, states=("unknown",))
    assert unknown.image_ids == tuple(make_image_ids(1))
    assert result.counts[JobState.UNKNOWN] == 1
    assert result.counts[JobState.VERIFIED] == 4
    assert count_exports(cloud) == once_each(make_image_ids(5))
    assert len(read_ledger(cloud)) == 5


async def test_an_unknown_job_is_settled_once_the_right_is_there(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """What a blind run has left unknown, a run that may look adopts and verifies."""
    cloud.change(
        buckets={BUCKET: BucketSettings(deny=("GetBucket", "ListMultipartUploads"))},
        faults=(Fault("reset", action="ExportImages", after=True, times=1),),
    )
    async with open_store() as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(1)))
    cloud.change(buckets={})
    async with open_store() as orchestrator:
        result = await run_to_end(orchestrator)
    assert result.counts[JobState.VERIFIED] == 1
    assert len(read_ledger(cloud)) == 1


async def test_verification_required(open_store: OpenStore, cloud: Simulator) -> None:
    """Where verification is required, a bucket that may not be read stops its exports alone."""
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


async def test_a_clock_that_is_wrong_when_only_looks_are_left(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """A wrong clock that only COS is there to tell of is set right, and costs no verification."""
    async with open_store(verify="off") as orchestrator:
        await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(20)))
    cloud.change(skew=3600)
    async with open_store() as orchestrator:
        result = await run_to_end(orchestrator)
    assert result.counts[JobState.VERIFIED] == 20


async def test_an_outage_of_cos(open_store: OpenStore, cloud: Simulator) -> None:
    """While COS cannot be reached nothing is taken for absent, and all is verified afterwards."""
    cloud.set_faults(Fault("reset", action="cos", times=12))
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(8)))
    assert result.counts[JobState.VERIFIED] == 8
    assert count_exports(cloud) == once_each(make_image_ids(8))


async def test_one_look_at_a_time_finds_out(open_store: OpenStore, cloud: Simulator) -> None:
    """While COS gives no answer few looks are taken; that is told once, and so is its end."""
    cloud.set_faults(Fault("gateway", action="cos", status=503))
    said: list[str] = []

    def far_apart() -> bool:
        times = [entry.monotonic for entry in read_ledger(cloud, "GetBucket")][-3:]
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


async def test_a_token_that_runs_out_while_only_looks_are_left(
    open_store: OpenStore, cloud: Simulator
) -> None:
    """What is refused to the account is not held against the bucket: a person must act."""
    cloud.change(codes=(Refusal("ExpiredToken", action="cos"),))
    async with open_store() as orchestrator:
        result = await enqueue_and_run(orchestrator, make_requests_for(make_image_ids(2)))
    (stop,) = result.blocked
    assert (stop.scope, stop.code) == (Scope.CREDENTIAL, "ExpiredToken")
    assert (result.counts[JobState.ACCEPTED], result.left) == (2, 2)
